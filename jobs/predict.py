"""A bundle and faces in, their logits out: one network a worker process of Ray, shards read where they are scored."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from batch.model.plan import Rows
from batch.model.records import FaceIndex, Scores
from batch.model.scan import chunks, joined, score_faces
from jobs.fanout import fan_out
from jobs.progress import progress
from jobs.runtime import NO_GPU

if TYPE_CHECKING:
    from batch.model.bundle import Bundle
    from batch.model.predictor import BatchPredictor

_LOADED: dict[str, BatchPredictor] = {}
"""The network of this worker process, by its bundle's digest: at most one."""


def predict(
    ray: Any, bundle: Bundle, index: FaceIndex, rows: Rows, *, backend: str, gpus: float, batch_size: int = 32
) -> Scores:
    """Logits of the crops at `rows`, in the order of the index.

    Args:
        ray: the module, in a session.
        bundle: whose network looks; its golden inputs are checked in each worker process.
        index: the faces.
        rows: places in it, shape (n,).
        backend: of Keras, in the workers.
        gpus: that each task gets; with 0 the network runs on one core.
        batch_size: crops a call of the network.
    """
    environment, threads = {"env_vars": keras_environment(backend, gpus, cores=1)}, None if gpus else 1
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3, runtime_env=environment)(_score)
    with progress("faces") as bar:
        bar.total(len(rows))
        parts = []
        for part in fan_out(ray, task, (bundle, index, batch_size, threads), chunks(index, rows), None):
            bar.add(Counter(done=len(part.rows)))
            parts.append(part)
    return joined(parts)


def keras_environment(backend: str, gpus: float, cores: int | None = None) -> dict[str, str]:
    """Variables that a process needs before it imports Keras, so that it takes the GPUs that it was given alone.

    Without any it takes so many cores, or all: TensorFlow's own threads, those of its OpenMP, and those of JAX, which
    has no setting for them but takes `NPROC` for the machine's cores.
    """
    found = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if not gpus:
        found |= NO_GPU
        if cores is not None:
            found |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC"), str(cores))
    elif gpus < 1:  # others share it: none takes all of its memory at once
        found |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if backend == "jax" and not gpus:
        found["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"  # or it does not join the other processes
    return found


def _score(bundle: Bundle, index: FaceIndex, batch_size: int, threads: int | None, rows: Rows) -> Scores:
    if bundle.digest not in _LOADED:
        _LOADED.clear()
        _LOADED[bundle.digest] = bundle.predictor(batch_size=batch_size)
    return score_faces(index, rows, _LOADED[bundle.digest], threads=threads)
