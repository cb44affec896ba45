"""Images/s of training: the bare step, the input alone, and the whole job, on each backend with one and two workers.

    python tests/benchmarks/train_speed.py [--model xception] [--batch 32] [--faces 128] [--epochs 3] [--workers 1 2]
    python tests/benchmarks/train_speed.py --model cnn --side 128 --faces 512

`step` feeds one decoded batch of uint8 pixels again and again: transfer, augmentation, gradient, optimizer. `input`
reads and decodes without training. `job` is the fastest epoch but the first (which compiles) of `fit` itself, shards to
weights, without validation.
Faces are drawn noise in shards of PNG crops in a temporary folder, kept in memory after the first epoch. Workers are
processes on this machine, each with its share of the cores, or with a GPU of its own; two on a machine of few cores
show what sharing costs and not what a second machine gains. Images are counted over all workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.fit.engine import Engine  # noqa: E402
from batch.model.plan import DataOptions, EpochPlan, plan_epoch  # noqa: E402
from batch.model.reader import FaceReader  # noqa: E402
from batch.model.records import Batch  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from cluster.nodes import free_ports  # noqa: E402
from tests.support.face_shards import write_index  # noqa: E402
from tests.support.fit_run import environment_of, join  # noqa: E402

SHARD_FACES = 64
REPEATS = 3
"""Of these the fastest counts: other work on the machine only ever makes a measurement slower."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process's part of a measurement."""

    model: str
    side: int
    batch: int
    faces: int
    epochs: int
    augment: str
    backend: str
    workers: int
    rank: int = 0
    port: int = 0
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Images/s over all workers, and the device."""

    step: float
    input: float
    job: float
    device: str


def measure(task: Task) -> Speeds:
    """In a worker's process: the whole job first, then its engine's bare step, then the reader alone."""
    join(task.rank, task.workers, task.port)
    from batch.model.augment import augmentation
    from batch.model.fit.feed import ReaderFeed
    from batch.model.fit.loop import fit
    from batch.model.fit.options import FitOptions
    from batch.model.network import NetworkOptions

    labels = [[row % 2 for row in range(SHARD_FACES)]] * (task.faces // SHARD_FACES)
    index = write_index(LocalStorage(task.folder), labels, task.side)
    data = DataOptions(batch_size=task.batch, augment=task.augment)
    rows = np.arange(index.table.num_rows)
    threads = max(1, (os.cpu_count() or 1) // task.workers)
    with FaceReader(index, data, task.rank, task.workers, threads=threads) as reader:
        feed = ReaderFeed(reader, index, rows, None, data)
        options = FitOptions(backend=task.backend, epochs=task.epochs, checkpoint_minutes=None)
        network = NetworkOptions(model=task.model, weights="none")
        augment = augmentation(task.augment)
        result = fit(network, feed, options, augment=augment)

        plan = plan_epoch(index, rows, data, task.epochs)
        batch = next(reader.batches(plan, 1, training=True))
        result.engine.open_stage("whole")
        float(result.engine.train_step(batch, 1e-4, 0.0))
        step_s = min(timed_steps(result.engine, batch, max(3, plan.steps)) for _ in range(REPEATS))

        input_s = min(timed_input(reader, plan, task.epochs) for _ in range(REPEATS))
    return Speeds(
        step=task.batch / step_s,
        input=plan.faces / input_s,
        job=max(record.images_per_second for record in result.history[1:]),
        device=device_name(task.backend),
    )


def timed_steps(engine: Engine, batch: Batch, steps: int) -> float:
    """Seconds a step."""
    start = time.perf_counter()
    losses = [engine.train_step(batch, 1e-4, 0.0) for _ in range(steps)]
    float(losses[-1])
    return (time.perf_counter() - start) / steps


def timed_input(reader: FaceReader, plan: EpochPlan, epoch: int) -> float:
    """Seconds of one epoch of this worker's batches."""
    start = time.perf_counter()
    for _ in reader.batches(plan, epoch, training=True):
        pass
    return time.perf_counter() - start


def device_name(backend: str) -> str:
    """As the backend calls it; a CPU by its cores."""
    cpu = f"{os.cpu_count()} CPU cores"
    if backend == "jax":
        import jax

        device = jax.local_devices()[0]
        return cpu if device.platform == "cpu" else str(device.device_kind)
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(found[0]).get("device_name")) if found else cpu


def measured(given: argparse.Namespace, backend: str, workers: int, device: str) -> Speeds:
    """Starts the worker processes and takes the first one's figures."""
    ports = free_ports(workers)
    with tempfile.TemporaryDirectory() as scratch:
        processes = []
        for rank in range(workers):
            task = Task(
                model=given.model, side=given.side, batch=given.batch, faces=given.faces, epochs=given.epochs,
                augment=given.augment, backend=backend, workers=workers, rank=rank, port=ports[0],
                folder=str(Path(scratch, f"faces{rank}")),
            )  # fmt: skip
            environment = {**os.environ, **environment_of(backend, rank, ports, device)}
            cores = max(1, (os.cpu_count() or 1) // workers)
            if device == "cuda" and workers > 1:
                environment["CUDA_VISIBLE_DEVICES"] = str(rank)
            elif workers > 1:
                environment |= {"TF_NUM_INTRAOP_THREADS": str(cores), "OMP_NUM_THREADS": str(cores)}
            command = [sys.executable, __file__, "--task", json.dumps(task.__dict__), "--out", f"{scratch}/{rank}.json"]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        for process in processes:
            _, errors = process.communicate()
            if process.returncode:
                raise RuntimeError(errors[-3000:])
        return Speeds(**json.loads(Path(scratch, "0.json").read_text()))


def main() -> None:
    """Prints the table; with --task, is a worker of it."""
    device = "cuda" if shutil.which("nvidia-smi") else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="xception")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32 if device == "cpu" else 128)
    parser.add_argument("--faces", type=int, default=128 if device == "cpu" else 8192)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--augment", default="robust")
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        Path(given.out).write_text(json.dumps(measure(Task(**json.loads(given.task))).__dict__))
        return
    print(f"{given.model}, {given.side} px, global batch {given.batch}, augment {given.augment}, {given.faces} faces")
    print(
        f"{'backend':<12} {'workers':>7} {'step':>9} {'input':>9} {'job':>9} {'job/step':>9} {'input/step':>10}  device"
    )
    for backend in given.backends:
        for workers in given.workers:
            found = measured(given, backend, workers, device)
            print(
                f"{backend:<12} {workers:>7} {found.step:>9.1f} {found.input:>9.1f} {found.job:>9.1f} "
                f"{found.job / found.step:>8.0%} {found.input / found.step:>9.1f}x  {found.device}"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
