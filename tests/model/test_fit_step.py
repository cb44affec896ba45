"""The parts of a training step, each by itself: loss, clipping, optimizers. Engines are compared elsewhere."""

import keras
import numpy as np
import pytest
from keras import ops

from batch.model.fit.optimizers import build_optimizer
from batch.model.fit.options import FitOptions
from batch.model.loss import clip_by_global_norm, weighted_loss

RATE = 0.1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_keras(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, 8).astype(np.float32), rng.integers(0, 2, 8).astype(np.float32)
    weights = rng.uniform(0, 2, 8).astype(np.float32)
    expected = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction="none")(
        labels[:, None], logits[:, None]
    )
    found = weighted_loss(ops.array(logits), ops.array(labels), ops.array(weights), weights.sum(), smoothing)
    assert float(found) == pytest.approx(float(np.average(ops.convert_to_numpy(expected), weights=weights)), rel=1e-5)


def test_gradients_keep_their_direction_and_no_more_than_the_norm() -> None:
    gradients = [np.full((2, 2), 3.0, np.float32), np.array([4.0, -4.0], np.float32)]
    norm = np.sqrt(sum((each**2).sum() for each in gradients))
    clipped = [ops.convert_to_numpy(each) for each in clip_by_global_norm([ops.array(g) for g in gradients], 2.0)]
    for before, after in zip(gradients, clipped, strict=True):
        np.testing.assert_allclose(after, before * 2.0 / norm, rtol=1e-5)
    for largest in (None, 100.0):
        same = clip_by_global_norm([ops.array(each) for each in gradients], largest)
        for before, after in zip(gradients, same, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(after), before, rtol=1e-6)


def stepped(options: FitOptions, slope: float) -> dict[str, np.ndarray]:
    """What ones become in one step along a slope."""
    names = ("kernel", "bias", "gamma", "beta")
    variables = [keras.Variable(np.ones(3, np.float32), name=name) for name in names]
    optimizer = build_optimizer(options, variables)
    optimizer.learning_rate = RATE
    optimizer.apply([ops.full((3,), slope) for _ in variables], variables)
    return {name: ops.convert_to_numpy(each) for name, each in zip(names, variables, strict=True)}


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam", "adamw"])
def test_decay_is_of_kernels_alone(name: str) -> None:
    found = stepped(FitOptions(optimizer=name, weight_decay=0.5), 0.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(found["kernel"], 1 - RATE * 0.5, rtol=1e-5)
    for other in ("bias", "gamma", "beta"):
        np.testing.assert_array_equal(found[other], 1.0)


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (FitOptions(optimizer="sgd", momentum=0.0), 2.0),
        (FitOptions(optimizer="sgd", momentum=0.9), 2.0 * 1.9),  # Nesterov looks one step ahead
        (FitOptions(optimizer="adam"), 1.0),  # the first step has the length of the rate, whatever the slope
        (FitOptions(optimizer="adamw", weight_decay=0.5), 1.5),
    ],
)
def test_the_first_step_of_an_optimizer(options: FitOptions, step: float) -> None:
    np.testing.assert_allclose(stepped(options, 2.0)["kernel"], 1 - RATE * step, rtol=1e-4)
