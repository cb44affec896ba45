"""A few steps of a training run, timed: the very engine, feed and batches of one worker."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np

from batch.corpus.sizing import standard_error
from batch.model.fit.engine import Engine, open_engine, use_backend
from batch.model.fit.loop import LOSSES_BEHIND
from batch.model.fit.options import FitOptions
from batch.model.fit.schedules import average_decay
from batch.model.near_duplicates import look_at_shard
from batch.model.network import NetworkOptions, Stage, gpu_names
from batch.model.plan import DataOptions, Rows, plan_epoch
from batch.model.reader import PREFETCH, FaceReader
from batch.model.records import UNUSED, Batch, FaceIndex
from batch.model.sizing import Rate, TrainSample

WARM_STEPS = 2
"""Steps that are not counted: the first compiles, and with JAX the second may do so again."""
_CORES = "CPU cores"
_LONGEST_S = 60.0
"""A stage is measured no longer than this, but for two steps at least."""


def measure_training(
    index: FaceIndex,
    rows: Rows,
    network: NetworkOptions,
    data: DataOptions,
    fit: FitOptions,
    *,
    workers: int,
    steps: int,
    threads: int,
    gpus: float,
) -> TrainSample:
    """Does what the first worker of `workers` would: reads its part of each batch, and takes a few steps of each stage.

    Leaves nothing behind. Keras must not be loaded with another backend.

    Raises:
        ValueError: for GPUs that are not there, nothing to train, weights that are not there, a network that does not
            fit the crops, a damaged shard.
    """
    if not _stages(network, fit):
        raise ValueError(f"nothing to train: got {fit.epochs} epochs for a network without a head stage")
    start = time.perf_counter()
    use_backend(fit.backend)
    if fit.backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    device = _device(threads)
    if gpus and device.endswith(_CORES):
        raise ValueError(f"got {gpus:g} GPUs a worker, and {fit.backend} finds none here; measure where there are some")
    from batch.model.augment import augmentation

    start_s = time.perf_counter() - start
    with FaceReader(index, data, 0, workers) as reader:
        with closing(_endless(reader, index, rows, data)) as fed:
            input_rate, held = _input_rate(fed, steps)
        start = time.perf_counter()
        engine = open_engine(network, reader.side, fit, augmentation(data.augment))
        start_s += time.perf_counter() - start
        rates: dict[Stage, Rate] = {}
        for stage in _stages(network, fit):
            engine.open_stage(stage)
            with closing(_endless(reader, index, rows, data)) as fed:
                first_s, rates[stage] = _step_rate(engine, fed, stage, fit, steps)
            start_s += first_s
        state = engine.snapshot()
        weights = sum(value.nbytes for value in engine.weights())
        changing = sum(value.nbytes for part in (state.network, state.optimizer, state.average) for value in part)
        return TrainSample(
            device=device,
            places=len(held.rows),
            start_s=start_s,
            input=input_rate,
            stages=rates,
            scan=_scan_rate(engine, held, steps),
            look_s=_look_seconds(index),
            weights_bytes=weights,
            state_bytes=changing + weights,  # those of the best epoch lie beside the running ones
        )


def _stages(network: NetworkOptions, fit: FitOptions) -> list[Stage]:
    found: list[Stage] = ["head"] if network.pretrained and fit.head_epochs else []
    return [*found, "whole"] if fit.epochs else found


def _endless(reader: FaceReader, index: FaceIndex, rows: Rows, data: DataOptions) -> Generator[Batch, None, None]:
    """Batches of one epoch after another: a small sample of faces may have few."""
    for epoch in itertools.count(1):
        yield from reader.batches(plan_epoch(index, rows, data, epoch), epoch, training=True)


def _input_rate(fed: Iterator[Batch], steps: int) -> tuple[Rate, Batch]:
    """Of a pipeline that is full already; with the fullest batch."""
    for _ in range(PREFETCH + 1):
        next(fed)
    start = before = time.perf_counter()
    seconds: list[float] = []
    faces, held = 0, None
    while len(seconds) < steps and (len(seconds) < WARM_STEPS or before - start < _LONGEST_S):
        batch = next(fed)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        faces += _faces(batch)
        held = batch if held is None or _faces(batch) > _faces(held) else held
    assert held is not None, "two steps at least"
    return _rate(faces, seconds), held


def _step_rate(engine: Engine, fed: Iterator[Batch], stage: Stage, fit: FitOptions, steps: int) -> tuple[float, Rate]:
    """As the loop of a run: losses are awaited some steps behind. With the seconds of the steps that do not count."""
    rate = fit.head_learning_rate if stage == "head" else fit.learning_rate
    start = time.perf_counter()
    for step in range(WARM_STEPS):
        float(engine.train_step(next(fed), rate, average_decay(fit, step)))
    warm_s = time.perf_counter() - start
    start = before = time.perf_counter()
    pending: deque[object] = deque()
    seconds: list[float] = []
    faces = 0
    while len(seconds) < steps and (len(seconds) < WARM_STEPS or before - start < _LONGEST_S):
        batch = next(fed)
        pending.append(engine.train_step(batch, rate, average_decay(fit, WARM_STEPS + len(seconds))))
        if len(pending) > LOSSES_BEHIND:
            float(pending.popleft())  # type: ignore[arg-type]  # a scalar on the device
        faces += _faces(batch)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    for loss in pending:
        float(loss)  # type: ignore[arg-type]
    seconds[-1] += time.perf_counter() - before
    return warm_s, _rate(faces, seconds)


def _scan_rate(engine: Engine, batch: Batch, steps: int) -> Rate:
    engine.logits(batch.images)
    seconds: list[float] = []
    while len(seconds) < steps and (len(seconds) < WARM_STEPS or sum(seconds) < _LONGEST_S):
        start = time.perf_counter()
        engine.logits(batch.images)
        seconds.append(time.perf_counter() - start)
    return _rate(len(seconds) * len(batch.rows), seconds)


def _look_seconds(index: FaceIndex) -> float:
    """By the smallest shard."""
    shard = min(index.shards, key=lambda shard: shard.size_bytes)
    start = time.process_time()
    look_at_shard(shard, index.face_options.crop.crop_size)
    return (time.process_time() - start) / shard.rows


def _faces(batch: Batch) -> int:
    return int(np.count_nonzero(batch.rows != UNUSED))


def _rate(faces: int, seconds: list[float]) -> Rate:
    total_s = sum(seconds)
    rate = faces / total_s
    return Rate(faces_per_s=rate, error=rate * standard_error(seconds) * len(seconds) / total_s, steps=len(seconds))


def _device(threads: int) -> str:
    """GPUs of this process by name, or its cores."""
    names = gpu_names()
    return f"{len(names)} x {names[0]}" if names else f"{threads} {_CORES}"
