"""Runs of `fit` on drawn faces, in this process or in processes of their own: `python -m tests.support.fit_run JSON`.

A process holds one Keras backend and one place among a run's workers, so tests of JAX and of several workers start
processes; each runs a list of specs one after another, for the start costs more than the runs.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from batch.model.records import EpochRecord
from cluster.nodes import free_ports

ROOT = Path(__file__).parents[2]


class Interrupted(Exception):
    """Stands for a killed process."""


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """One run."""

    out: str
    """Folder for what it leaves: `history.json`, `weights.npz`, `scores.npz`, `checkpoint/`."""
    network: dict[str, Any]
    options: dict[str, Any]
    feed: dict[str, Any] = field(default_factory=dict)
    restore: str | None = None
    stop_at: int | None = None
    """Raise right after the checkpoint at this step of the run was taken over."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run left."""

    history: list[EpochRecord]
    weights: list[np.ndarray]
    logits: np.ndarray
    """Of the validation faces by the best weights."""


def run(spec: FitSpec, rank: int = 0, workers: int = 1) -> None:
    """Run `fit` and write its outcome; the rank is part of the folder's name for all but the first worker."""
    from batch.model.fit.loop import Hooks, fit
    from batch.model.fit.options import FitOptions
    from batch.model.network import NetworkOptions
    from tests.support.drawn_faces import DrawnFeed

    out = Path(spec.out) if rank == 0 else Path(f"{spec.out}-{rank}")
    out.mkdir(parents=True, exist_ok=True)

    def on_checkpoint(folder: Path | None, record: EpochRecord | None) -> None:
        assert (folder is None) == (rank > 0)
        if folder is None:
            return
        shutil.copytree(folder, out / "checkpoint", dirs_exist_ok=True)
        if json.loads((folder / "state.json").read_text())["step"] == spec.stop_at:
            raise Interrupted

    feed = DrawnFeed(rank=rank, workers=workers, **spec.feed)
    try:
        result = fit(
            NetworkOptions(**spec.network),
            feed,
            FitOptions(**spec.options),
            hooks=Hooks(on_checkpoint=on_checkpoint),
            restore=Path(spec.restore) if spec.restore else None,
        )
    except Interrupted:
        return
    scores = result.score(feed.validation()).scores
    (out / "history.json").write_text(json.dumps([asdict(record) for record in result.history]))
    np.savez(out / "weights.npz", **{f"{place:04}": value for place, value in enumerate(result.weights)})
    np.savez(out / "scores.npz", rows=scores.rows, logits=scores.logits)


def outcome(folder: str | Path) -> Outcome:
    """Read what a run left."""
    history = [EpochRecord(**record) for record in json.loads((Path(folder) / "history.json").read_text())]
    with np.load(Path(folder) / "weights.npz") as arrays:
        weights = [arrays[name] for name in sorted(arrays.files)]
    with np.load(Path(folder) / "scores.npz") as arrays:
        assert (np.diff(arrays["rows"]) > 0).all()
        return Outcome(history=history, weights=weights, logits=arrays["logits"])


def in_processes(backend: str, specs: Sequence[FitSpec], workers: int = 1, devices: int = 1) -> None:
    """Run the specs in so many processes that form one run each time, each with so many devices (`part_the_cpu`)."""
    ports = free_ports(workers)
    started = []
    for rank in range(workers):
        spec = {"rank": rank, "workers": workers, "port": ports[0], "specs": [asdict(spec) for spec in specs]}
        spec["devices"] = devices
        command = [sys.executable, "-m", "tests.support.fit_run", json.dumps(spec)]
        environment = {**os.environ, **environment_of(backend, rank, ports)}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in started:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def environment_of(backend: str, rank: int, ports: list[int], device: str = "cpu") -> dict[str, str]:
    """Variables that put a process in its place; `device` is cpu or cuda."""
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if backend == "jax":
        return {**environment, "JAX_PLATFORMS": device, "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    if len(ports) > 1:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})
    return environment


def join(rank: int, workers: int, port: int) -> None:
    """Let JAX's processes find each other; TensorFlow's do by TF_CONFIG."""
    if os.environ["KERAS_BACKEND"] == "jax" and workers > 1:
        import jax

        jax.distributed.initialize(f"127.0.0.1:{port}", workers, rank)


def part_the_cpu(devices: int) -> None:
    """Let TensorFlow take logical devices of the CPU for the GPUs that this machine lacks."""
    import tensorflow as tf

    from batch.model.fit import tensorflow as engine

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    real, names = tf.distribute.MirroredStrategy, [f"CPU:{number}" for number in range(devices)]
    engine.tf.config.list_logical_devices = lambda kind: names  # as many as there would be GPUs
    engine.tf.distribute.MirroredStrategy = lambda: real(names)


def main(text: str) -> None:
    """Entry of a process."""
    given = json.loads(text)
    if given["devices"] > 1:
        part_the_cpu(given["devices"])
    join(given["rank"], given["workers"], given["port"])
    for spec in given["specs"]:
        run(FitSpec(**spec), given["rank"], given["workers"])


if __name__ == "__main__":
    main(sys.argv[1])
