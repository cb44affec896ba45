"""What workers are asked of Ray, and what their processes are told: GPUs above all, since there are none to try."""

import os
import subprocess
import sys

import pytest

from jobs.fitting import Placement, scaling
from jobs.predict import keras_environment
from tests.support.job import ROOT


def placement(workers: int, gpus: float) -> Placement:
    return Placement(
        workers=workers, cpus=2, gpus=gpus, max_failures=0, keep_checkpoints=1, storage_path="", file_system=None
    )


@pytest.mark.parametrize(
    ("backend", "workers", "gpus", "wanted", "strategy"),
    [
        ("tensorflow", 2, 0.0, {"CPU": 2}, "PACK"),
        ("tensorflow", 2, 1.0, {"CPU": 2, "GPU": 1}, "PACK"),
        ("tensorflow", 1, 0.25, {"CPU": 2, "GPU": 0.25}, "PACK"),
        ("jax", 2, 0.0, {"CPU": 2}, "PACK"),
        ("jax", 1, 4.0, {"CPU": 2, "GPU": 4}, "PACK"),
        ("jax", 2, 4.0, {"CPU": 2, "GPU": 4}, "STRICT_SPREAD"),
    ],
)
def test_what_a_worker_gets(backend: str, workers: int, gpus: float, wanted: dict[str, float], strategy: str) -> None:
    made = scaling(backend, placement(workers, gpus))
    assert (made["resources_per_worker"], made["placement_strategy"]) == (wanted, strategy)
    assert (made["num_workers"], made["use_gpu"]) == (workers, gpus > 0)
    if backend == "jax" and gpus:
        assert list(range(made["resources_per_worker"]["GPU"])) == [0, 1, 2, 3], "as JaxTrainer counts them"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_process_takes_what_it_was_given(backend: str) -> None:
    assert keras_environment(backend, 0)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert not {"CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH"} & set(keras_environment(backend, 1))
    shared = keras_environment(backend, 0.5)
    assert (shared["TF_FORCE_GPU_ALLOW_GROWTH"], shared["XLA_PYTHON_CLIENT_PREALLOCATE"]) == ("true", "false")


def test_jax_takes_the_cores_that_it_was_given() -> None:
    code = (
        "import keras; from pathlib import Path\n"
        "keras.ops.matmul(keras.ops.ones((400, 400)), keras.ops.ones((400, 400)))\n"
        "print(sum('Eigen' in path.read_text() for path in Path('/proc/self/task').glob('*/comm')))"
    )
    for cores in (1, 3):
        environment = {**os.environ, **keras_environment("jax", 0, cores)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert int(done.stdout) == cores
    assert keras_environment("tensorflow", 0, 3)["TF_NUM_INTRAOP_THREADS"] == "3"
    assert not {"NPROC", "OMP_NUM_THREADS"} & set(keras_environment("jax", 1, 4))


def test_a_driver_leaves_gpus_to_its_workers() -> None:
    code = (
        "from jobs.quiet import import_keras_on_cores; import_keras_on_cores(); import_keras_on_cores()\n"
        "import jax; print(jax.config.jax_platforms)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "cpu\n"
