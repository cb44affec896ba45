"""A few steps of a training run taken, what the whole of it will take: measured rates, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from batch.model.fit.options import FitOptions
from batch.model.network import Stage
from batch.model.plan import DataOptions, pool_faces


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Faces that one worker takes in a second."""

    faces_per_s: float
    error: float
    """Standard error; not known (nan) for one step."""
    steps: int
    """That were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSample:
    """What was measured, of one worker of the run."""

    device: str
    places: int
    """Faces of a step on this worker."""
    start_s: float
    """Until the first steps of each stage were through: network, compiling."""
    input: Rate
    """Shards to decoded batches, with nothing beside it."""
    stages: Mapping[Stage, Rate]
    """Steps, fed by that input as in the run."""
    scan: Rate
    """Logits of batches in memory, as validation asks for them."""
    look_s: float
    """Of one CPU a face: what near-duplicates are found by."""
    weights_bytes: int
    state_bytes: int
    """Of a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceCounts:
    """How many faces a run has."""

    all: int
    train_real: int
    train_fake: int
    validation: int
    test: int

    def scaled(self, faces: int) -> FaceCounts:
        """The same shares of so many faces."""
        factor = faces / self.all
        real, fake, validation, test = (
            round(count * factor) for count in (self.train_real, self.train_fake, self.validation, self.test)
        )
        return FaceCounts(all=faces, train_real=real, train_fake=fake, validation=validation, test=test)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSizing:
    """What a run takes, computed from a sample."""

    epoch_faces: int
    look_cpu_hours: float
    """Before training, on all CPUs there are."""
    hours: Mapping[str, float]
    """Wall time by part: `start`, `head`, `whole`, `validation`, `final`."""
    exchange_s: float
    """Of a step while the whole network learns: gradients between nodes."""
    bytes_read: float
    get_requests: float
    checkpoint_bytes: float
    """Written in all; the last few stay."""

    @property
    def total_hours(self) -> float:
        """Wall time of the workers."""
        return sum(self.hours.values())


def epoch_faces(real: int, fake: int, options: DataOptions) -> int:
    """How many faces an epoch of `plan_epoch` takes from a split with so many."""
    reals, fakes = pool_faces(real, fake, options)
    if options.synthetic == "self-blended":
        return 2 * reals
    return 2 * min(reals, fakes) if options.balance == "downsample" else reals + fakes


def size_training(
    sample: TrainSample,
    counts: FaceCounts,
    data: DataOptions,
    fit: FitOptions,
    *,
    workers: int,
    nodes: int,
    gbit: float,
    shard_bytes: float,
    shards: float,
) -> TrainSizing:
    """What the whole run takes, if no stage ends early.

    A worker's pace is that of its steps or of its input, whichever is slower. Gradients go round the nodes in a ring,
    `2 (n - 1) / n` times their size (Patarasu and Yuan 2009), and nothing hides that.
    """
    epochs: dict[Stage, int] = {stage: fit.head_epochs if stage == "head" else fit.epochs for stage in sample.stages}
    faces = epoch_faces(counts.train_real, counts.train_fake, data)
    steps = math.ceil(faces / data.batch_size)
    exchange_s = 2 * (nodes - 1) / nodes * sample.weights_bytes * 8 / (gbit * 1e9)
    hours = {"start": sample.start_s / 3600}
    for stage, rate in sample.stages.items():
        step_s = sample.places / min(rate.faces_per_s, sample.input.faces_per_s)
        # The head alone has a few thousand weights.
        hours[stage] = epochs[stage] * steps * (step_s + (exchange_s if stage == "whole" else 0)) / 3600
    scan_rate = workers * min(sample.scan.faces_per_s, sample.input.faces_per_s)
    hours["validation"] = sum(epochs.values()) * counts.validation / scan_rate / 3600
    hours["final"] = (counts.validation + counts.test) / scan_rate / 3600
    passes = _passes(data, counts, workers, sum(epochs.values()), shard_bytes)
    return TrainSizing(
        epoch_faces=faces,
        look_cpu_hours=sample.look_s * counts.all / 3600,
        hours=hours,
        exchange_s=exchange_s,
        bytes_read=passes * shard_bytes,
        get_requests=passes * shards,
        checkpoint_bytes=float(sample.state_bytes * sum(epochs.values())),
    )


def _passes(data: DataOptions, counts: FaceCounts, workers: int, epochs: int, shard_bytes: float) -> int:
    """How often every shard is read: splits share them, so each pass over a split meets nearly all."""
    fits = shard_bytes * (counts.all - counts.test) / counts.all <= workers * data.cache_mb * 1e6
    kept = data.cache == "disk" or (data.cache == "memory" and fits)
    # Near-duplicates, training and validation, then both held-out splits by the best weights.
    return 1 + 2 * (1 if kept else epochs) + 2
