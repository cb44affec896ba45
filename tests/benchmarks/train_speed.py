"""Images/s of training: the bare step, the input alone, and the whole job, on each backend with one and two workers.

    python tests/benchmarks/train_speed.py [--model xception] [--batch 32] [--faces 128] [--epochs 3] [--workers 1 2]
    python tests/benchmarks/train_speed.py --model cnn --side 128 --faces 512

`step` feeds one decoded batch of uint8 pixels again and again: transfer, augmentation, gradient, optimizer. `input`
reads and decodes without training. `job` is `fakesift train` as a command, on Ray Train: the fastest epoch after the
first (which compiles) in its `history.csv`, validation apart; `exit` is the whole command's seconds, from the start of
Ray to the report. Faces are drawn in shards of PNG crops in a temporary folder, kept in memory after the first epoch.
Workers are processes on this machine, each with its share of the cores, or with a GPU of its own; two on a machine of
few cores show what sharing costs and not what a second machine gains. Images are counted over all workers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.options import CropOptions, FaceOptions  # noqa: E402
from batch.model.fit.engine import Engine, open_engine, use_backend  # noqa: E402
from batch.model.fit.options import FitOptions  # noqa: E402
from batch.model.index import load_index  # noqa: E402
from batch.model.network import NetworkOptions, device_name  # noqa: E402
from batch.model.plan import DataOptions, EpochPlan, plan_epoch  # noqa: E402
from batch.model.reader import FaceReader  # noqa: E402
from batch.model.records import Batch, Split  # noqa: E402
from batch.model.split import SplitOptions, make_split  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from cluster.nodes import free_ports  # noqa: E402
from jobs.predict import keras_environment  # noqa: E402
from tests.support.face_outputs import fake, picture, real, write_output  # noqa: E402
from tests.support.fit_run import environment_of, join  # noqa: E402

SHARD_FACES = 64
HELD_OUT = 8
"""Faces to validate and as many to test the job on."""
REPEATS = 3
"""Of these the fastest counts: other work on the machine only ever makes a measurement slower."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process's part of a measurement."""

    model: str
    side: int
    batch: int
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
    device: str


def write_faces(folder: str, faces: int, side: int) -> None:
    """An output of preprocessing with so many faces to train on, half of them fakes."""
    clips = []
    for number in range(faces // 2 + HELD_OUT):
        split = "train" if number < faces // 2 else "val" if number % 2 else "test"
        name = f"real{number:05d}.mp4"
        clips.append(real(name, split=split, crops=[picture(2 * number, side)]))
        clips.append(fake(f"fake{number:05d}.mp4", name, split=split, crops=[picture(2 * number + 1, side)]))
    write_output(LocalStorage(folder), clips, options=FaceOptions(crop=CropOptions(crop_size=side)), a_unit=SHARD_FACES)


def measure(task: Task) -> Speeds:
    """In a worker's process: the engine's bare step, then the reader alone."""
    use_backend(task.backend)
    join(task.rank, task.workers, task.port)
    from batch.model.augment import augmentation

    options, network = FitOptions(backend=task.backend), NetworkOptions(model=task.model, weights="none")
    engine = open_engine(network, task.side, options, augmentation(task.augment))
    index = load_index([LocalStorage(task.folder)])
    rows = make_split(index, SplitOptions(by="given")).rows(Split.TRAIN)
    data = DataOptions(batch_size=task.batch, augment=task.augment)
    threads = max(1, (os.cpu_count() or 1) // task.workers)
    with FaceReader(index, data, task.rank, task.workers, threads=threads) as reader:
        plan = plan_epoch(index, rows, data, 1)
        batch = next(reader.batches(plan, 1, training=True))
        engine.open_stage("whole")
        float(engine.train_step(batch, 1e-4, 0.0))
        step_s = min(timed_steps(engine, batch, max(3, plan.steps)) for _ in range(REPEATS))
        input_s = min(timed_input(reader, plan, 1) for _ in range(REPEATS + 1))
    return Speeds(step=task.batch / step_s, input=plan.faces / input_s, device=device_name())


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


def bare(given: argparse.Namespace, backend: str, workers: int, device: str, folder: str) -> Speeds:
    """Starts the worker processes and takes the first one's figures."""
    ports = free_ports(workers)
    with tempfile.TemporaryDirectory() as scratch:
        processes = []
        for rank in range(workers):
            task = Task(
                model=given.model, side=given.side, batch=given.batch, augment=given.augment, backend=backend,
                workers=workers, rank=rank, port=ports[0], folder=folder,
            )  # fmt: skip
            environment = {**os.environ, **environment_of(backend, rank, ports, device)}
            cores = max(1, (os.cpu_count() or 1) // workers)
            if device == "cuda" and workers > 1:
                environment["CUDA_VISIBLE_DEVICES"] = str(rank)
            elif device == "cpu":
                environment |= keras_environment(backend, 0, cores)  # as the job has it
            command = [sys.executable, __file__, "--task", json.dumps(task.__dict__), "--out", f"{scratch}/{rank}.json"]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        for process in processes:
            _, errors = process.communicate()
            if process.returncode:
                raise RuntimeError(errors[-3000:])
        return Speeds(**json.loads(Path(scratch, "0.json").read_text()))


def job(given: argparse.Namespace, backend: str, workers: int, device: str, folder: str) -> tuple[float, float]:
    """Images/s of the fastest epoch but the first of `fakesift train`, and the command's seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *(sys.executable, "-m", "jobs.cli", "train", folder, f"{scratch}/model", "--split", "given"),
            *("--model", given.model, "--weights", "none", "--augment", given.augment, "--backend", backend),
            *("--batch-size", given.batch, "--epochs", given.epochs, "--max-faces", given.faces),
            *("--workers", workers, "--gpus-per-worker", int(device == "cuda")),
        ]
        started = time.perf_counter()
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        with Path(scratch, "model", "history.csv").open() as file:
            rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        return max(rates[1:]), time.perf_counter() - started


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
    if given.epochs < 2:
        parser.error(f"--epochs: received {given.epochs}, expected 2 or more: the first one compiles")
    print(f"{given.model}, {given.side} px, global batch {given.batch}, augment {given.augment}, {given.faces} faces")
    print(f"{'backend':<12} {'workers':>7} {'step':>9} {'input':>9} {'job':>9} {'job/step':>9} {'exit':>7}  device")
    with tempfile.TemporaryDirectory() as folder:
        write_faces(folder, given.faces, given.side)
        for backend in given.backends:
            for workers in given.workers:
                alone = bare(given, backend, workers, device, folder)
                rate, seconds = job(given, backend, workers, device, folder)
                print(
                    f"{backend:<12} {workers:>7} {alone.step:>9.1f} {alone.input:>9.1f} {rate:>9.1f} "
                    f"{rate / alone.step:>9.0%} {seconds:>5.0f} s  {alone.device}"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
