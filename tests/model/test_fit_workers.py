"""Two workers end with the weights of one, on both backends: real processes, uneven shards, short last batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.model.network import NetworkOptions, build_network
from tests.support.fit_run import FitSpec, Outcome, in_processes, outcome

# Three lanes on two workers: the second has one, which runs dry early; weights of 1, 2 and 3.
FEED = {"lanes": (13, 9, 6), "lane_batch": 2}
OPTIONS = {
    "head_epochs": 1, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "clip_norm": 0.3,
    "ema": 0.9, "weight_decay": 0.01, "label_smoothing": 0.1, "checkpoint_minutes": 0.0,
}  # fmt: skip


def networks_from(folder: Path) -> dict[str, dict[str, Any]]:
    """From weights in a file, so that there is a head stage: with BatchNorm frozen, and learning."""
    start = folder / "cnn.weights.h5"
    build_network(NetworkOptions(model="cnn"), 32).get_layer("backbone").save_weights(start)
    return {
        "frozen norms": {"model": "cnn", "weights": str(start), "features": "multi", "dense_units": (16,)},
        "trained norms": {"model": "cnn", "weights": str(start), "norms": "trained"},
    }


def specs(folder: Path, networks: dict[str, dict[str, Any]], which: int, backend: str) -> list[FitSpec]:
    options = {**OPTIONS, "backend": backend}
    return [
        FitSpec(out=str(folder / f"{name} {which}"), network=network, options=options, feed=FEED)
        for name, network in networks.items()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_workers_end_with_the_weights_of_one(backend: str, tmp_path: Path) -> None:
    networks = networks_from(tmp_path)
    if backend == "jax":  # under TensorFlow each worker draws a mask of its own, as the README says
        networks["trained norms"]["dropout"] = 0.3
    for workers in (1, 2):
        in_processes(backend, specs(tmp_path, networks, workers, backend), workers=workers)
    for name in networks:
        one, two, second = (outcome(tmp_path / f"{name} {which}") for which in ("1", "2", "2-1"))
        assert_same(one, two)
        for shared, other in zip(two.weights, second.weights, strict=True):
            np.testing.assert_array_equal(other, shared)
        np.testing.assert_array_equal(second.logits, two.logits)


@pytest.mark.slow
def test_two_devices_of_one_tensorflow_process_end_with_the_weights_of_one(tmp_path: Path) -> None:
    """Logical ones of the CPU, as two GPUs would be."""
    networks = networks_from(tmp_path)
    for devices in (1, 2):
        in_processes("tensorflow", specs(tmp_path, networks, devices, "tensorflow"), devices=devices)
    for name in networks:
        assert_same(*(outcome(tmp_path / f"{name} {devices}") for devices in (1, 2)))


def assert_same(one: Outcome, two: Outcome) -> None:
    for alone, shared in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(shared, alone, rtol=0, atol=2e-5)
    # A logit sums hundreds of products of such weights, and the last bits differ from processor to processor.
    np.testing.assert_allclose(two.logits, one.logits, rtol=0, atol=1e-3)
    for mine, theirs in zip(one.history, two.history, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, abs=1e-4)
        assert mine.validation["loss"] == pytest.approx(theirs.validation["loss"], abs=1e-3)
