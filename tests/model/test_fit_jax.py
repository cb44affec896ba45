"""The loop on JAX, in a process of its own: resumes exactly, shares a batch over devices, agrees with TensorFlow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.model.network import NetworkOptions, build_network
from tests.support.fit_run import FitSpec, Outcome, in_processes, outcome, run

OPTIONS = {
    "head_epochs": 1, "epochs": 2, "optimizer": "adam", "ema": 0.9, "clip_norm": 0.5, "warmup_epochs": 0.5,
    "checkpoint_minutes": None, "checkpoint_steps": 4,
}  # fmt: skip


def assert_same_run(mine: Outcome, theirs: Outcome, tolerance: float) -> None:
    for one, other in zip(mine.history, theirs.history, strict=True):
        assert (one.loss, one.learning_rate) == pytest.approx((other.loss, other.learning_rate), abs=tolerance)
        assert one.validation["loss"] == pytest.approx(other.validation["loss"], abs=tolerance)
    for one, other in zip(mine.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.soak
def test_jax_resumes_exactly_on_two_devices_and_continues_a_run_of_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "cnn.weights.h5"
    build_network(NetworkOptions(model="cnn"), 32).get_layer("backbone").save_weights(weights)
    plain = {"model": "cnn", "weights": str(weights)}
    tensorflow = FitSpec(out=str(tmp_path / "tensorflow"), network=plain, options=OPTIONS)
    run(tensorflow)
    run(replace(tensorflow, out=str(tmp_path / "left"), stop_at=10))

    jax = {**OPTIONS, "backend": "jax"}
    # Three lanes of one face: two devices cannot share five places without an empty one.
    feed = {"lanes": (11, 9, 10, 11, 8), "lane_batch": 1}
    whole = FitSpec(out=str(tmp_path / "whole"), network={**plain, "dropout": 0.3}, options=jax, feed=feed)
    specs = [
        whole,
        replace(whole, out=str(tmp_path / "first"), stop_at=20),
        replace(whole, out=str(tmp_path / "second"), restore=str(tmp_path / "first" / "checkpoint")),
        replace(tensorflow, out=str(tmp_path / "taken"), options=jax, restore=str(tmp_path / "left" / "checkpoint")),
    ]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    in_processes("jax", specs)
    assert_same_run(outcome(tmp_path / "whole"), outcome(tmp_path / "second"), 1e-6)
    assert_same_run(outcome(tmp_path / "tensorflow"), outcome(tmp_path / "taken"), 1e-4)
