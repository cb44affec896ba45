"""The training loop, the same for both backends and for one process or many: stages, epochs, validation, checkpoints.

In: a network's options, a feed of batches, and a checkpoint to go on from. Out: the history and the weights of the best
epoch. Every process of a run calls `fit` with the same arguments and its own part of the batches.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from batch.model.fit.engine import Arrays, Augment, Build, Engine, Snapshot, open_engine
from batch.model.fit.feed import Feed, Pass
from batch.model.fit.options import FitOptions
from batch.model.fit.schedules import average_decay, best_epoch, current_stage, learning_rate
from batch.model.fit.scoring import LabelledScores, quick_metrics, score
from batch.model.fit.standardize import STEPS
from batch.model.fit.state import RunState, load_state, save_state
from batch.model.network import NetworkOptions, Stage, build_network
from batch.model.records import EpochRecord
from batch.storage.scratch import ScratchFolder

if TYPE_CHECKING:
    import keras

LOSSES_BEHIND = 4
"""Steps whose loss is not awaited yet: the device computes them while the host prepares the next."""
CLOCK_STEPS = 10
"""Steps between two looks at the first worker's clock, which all workers must take together."""


class TrainingDivergedError(RuntimeError):
    """The loss is not a number. The last checkpoint was made before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a progress line needs; some steps behind."""

    stage: Stage
    epoch: int
    """From 1."""
    step: int
    """Steps done of the epoch, from 1."""
    steps: int
    """Of the epoch."""
    loss: float
    """Mean of the epoch so far."""
    learning_rate: float
    images_per_second: float
    """Of the epoch so far, over all workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the caller does at points that every worker reaches in the same order."""

    on_step: Callable[[StepReport], None] = field(default=lambda report: None)
    on_epoch: Callable[[EpochRecord], None] = field(default=lambda record: None)
    """After validation, before the epoch's checkpoint."""
    on_checkpoint: Callable[[Path | None, EpochRecord | None], None] = field(default=lambda folder, record: None)
    """The folder is given to the first worker alone and deleted when the call returns; the record is given at the end
    of an epoch, None within one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished run. The engine holds the best epoch's weights."""

    history: tuple[EpochRecord, ...]
    best: int
    """Place of the best epoch in the history."""
    weights: Arrays
    """Of the best epoch, averaged if there is an average, in the order of `model.weights`."""
    network: NetworkOptions
    side: int
    engine: Engine

    def score(self, faces: Pass) -> LabelledScores:
        """Scores by the best epoch's weights, in the arithmetic of training. Collective: each worker gives its part."""
        return score(self.engine, faces.batches(0))

    def saved_scores(self, *several: Pass) -> list[LabelledScores]:
        """Scores as a bundle gives them: of `model()`, in full float32 where training rounded. Collective."""
        from batch.model.predictor import Predictor

        model = self.model()
        predictor_of = cache(partial(Predictor, model))

        def logits_of(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return predictor_of(batch_size=len(images))(images)

        return [score(self.engine, faces.batches(0), logits_of) for faces in several]

    def model(self) -> keras.Model:
        """The trained network in float32, from pixels to probability: what a bundle saves. Not collective."""
        return model_of(self.network, self.side, self.weights)


def fit(
    network: NetworkOptions,
    feed: Feed,
    options: FitOptions,
    *,
    hooks: Hooks | None = None,
    restore: Path | None = None,
    augment: Augment | None = None,
    build: Build = build_network,
) -> FitResult:
    """Train until the stages are through, or go on from the checkpoint folder `restore`.

    `build` makes the network that the feed's batches go into: with `frozen.build_head` they are features.
    A finished run's checkpoint gives its result at once. Raises TrainingDivergedError when the loss is not a number,
    and ValueError for a checkpoint of other options, weights of another network, or a keras of another backend.
    """
    engine = open_engine(network, feed.side, options, augment, build)
    run = _Run(network, feed, options, hooks or Hooks(), engine)
    run.begin(restore)
    while (stage := run.next_stage()) is not None:
        run.epoch(stage)
    best = best_epoch(run.history)
    if best is None:
        raise ValueError(f"nothing was trained: received {options.epochs} epochs for a network without a head stage")
    engine.load_weights(run.best)
    return FitResult(
        history=tuple(run.history), best=best, weights=run.best, network=network, side=feed.side, engine=engine
    )


def model_of(network: NetworkOptions, side: int, weights: Arrays) -> keras.Model:
    """The float32 network with these weights."""
    model = build_network(replace(network, weights="none", precision="float32"), side)
    model.set_weights(weights)
    return model


class _Run:
    """A run's position, and its epochs one by one."""

    def __init__(self, network: NetworkOptions, feed: Feed, options: FitOptions, hooks: Hooks, engine: Engine) -> None:
        self._network = network
        self._feed = feed
        self._options = options
        self._hooks = hooks
        self._engine = engine
        self._fingerprint = fingerprint(network, feed.side, options)
        self._stage: Stage | None = None
        self._stage_step = 0
        self._step = 0
        self._epoch_step = 0
        self._sums = np.zeros(2)
        """Loss times weight, and weight, of the running epoch."""
        self._seconds = 0.0
        self.history: list[EpochRecord] = []
        self.best: Arrays = []

    def begin(self, restore: Path | None) -> None:
        """Take up a checkpoint's position, or start from nothing."""
        if restore is None:
            return
        state = load_state(restore, self._fingerprint)
        self._engine.open_stage(state.stage)
        self._engine.restore(state.snapshot)
        self._stage, self._stage_step, self._step = state.stage, state.stage_step, state.step
        self._epoch_step, self._seconds = state.epoch_step, state.seconds
        self._sums = np.array([state.loss_sum, state.weight_sum])
        self.history, self.best = list(state.history), state.best

    def next_stage(self) -> Stage | None:
        """The stage of the running or next epoch, opened; None when training is over."""
        if self._epoch_step:
            return self._stage
        stage = current_stage(self.history, self._options, self._network.pretrained)
        if stage is not None and stage != self._stage:
            self._engine.open_stage(stage)
            self._stage, self._stage_step = stage, 0
        return stage

    def epoch(self, stage: Stage) -> None:
        """Train the rest of the running epoch, validate, and save."""
        number = len(self.history) + 1
        faces = self._feed.training(number)
        if self._step == 0 and self._network.standardizes:
            with closing(faces.batches(0)) as batches:  # type: ignore[type-var]
                self._engine.standardize(islice(batches, STEPS))
        started = time.perf_counter() - self._seconds
        rate = self._train(stage, number, faces, started)
        self._seconds = time.perf_counter() - started
        held_out = self._feed.validation()
        found = quick_metrics(score(self._engine, held_out.batches(0))) if held_out else {}
        if found and not math.isfinite(found["loss"]):
            raise TrainingDivergedError(f"validation loss is {found['loss']} after epoch {number}; {_ADVICE}")
        record = EpochRecord(
            stage=stage, epoch=number, step=self._step, loss=float(self._sums[0] / self._sums[1]), learning_rate=rate,
            images_per_second=faces.faces / self._seconds, seconds=self._seconds, validation=found,
        )  # fmt: skip
        self.history.append(record)
        if best_epoch(self.history) == len(self.history) - 1:
            self.best = self._engine.weights()
        self._epoch_step, self._seconds, self._sums = 0, 0.0, np.zeros(2)
        self._hooks.on_epoch(record)
        self._save(record)

    def _train(self, stage: Stage, number: int, faces: Pass, started: float) -> float:
        """Steps to the end of the epoch; gives the last learning rate."""
        pending: deque[tuple[int, Any, float, float]] = deque()
        rate = 0.0
        saved = time.monotonic()

        def settle(left: int) -> None:
            while len(pending) > left:
                self._settle(number, faces, started, *pending.popleft())

        with closing(faces.batches(self._epoch_step)) as batches:  # type: ignore[type-var]
            for batch in batches:
                rate = learning_rate(self.history, self._options, stage, self._epoch_step / faces.steps)
                decay = average_decay(self._options, self._stage_step)
                loss = self._engine.train_step(batch, rate, decay)
                self._epoch_step += 1
                self._stage_step += 1
                self._step += 1
                pending.append((self._epoch_step, loss, batch.total_weight, rate))
                settle(LOSSES_BEHIND)
                if self._epoch_step < faces.steps and self._is_due(saved):
                    settle(0)
                    self._seconds = time.perf_counter() - started
                    self._save(None)
                    saved = time.monotonic()
        settle(0)
        return rate

    def _settle(
        self, number: int, faces: Pass, started: float, step: int, loss: Any, weight: float, rate: float
    ) -> None:
        """Await a step's loss, refuse what is not a number, and report."""
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingDivergedError(f"loss is {value} at step {step} of epoch {number}; {_ADVICE}")
        self._sums += (value * weight, weight)
        done = faces.faces * step / faces.steps
        report = StepReport(
            stage=self._stage or "whole", epoch=number, step=step, steps=faces.steps,
            loss=float(self._sums[0] / self._sums[1]), learning_rate=rate,
            images_per_second=done / max(time.perf_counter() - started, 1e-9),
        )  # fmt: skip
        self._hooks.on_step(report)

    def _is_due(self, saved: float) -> bool:
        """Whether all workers save now. Which of them looks at the clock is settled: the first."""
        every = self._options.checkpoint_steps
        if every is not None and self._epoch_step % every == 0:
            return True
        minutes = self._options.checkpoint_minutes
        if minutes is None or self._epoch_step % CLOCK_STEPS:
            return False
        late = np.array([time.monotonic() - saved >= 60 * minutes], np.int32)
        return bool(self._engine.gather(late)[0])

    def _save(self, record: EpochRecord | None) -> None:
        """Give the caller the state's folder on the first worker, and the turn on all.

        A loss is that of the weights before its step: only a look at the weights tells what the last step made of them.
        All workers have the same ones, so that all stop.
        """
        snapshot = self._engine.snapshot()
        if not all(np.isfinite(values).all() for values in (*snapshot.network, *snapshot.average)):
            raise TrainingDivergedError(f"weights are not finite after step {self._step} of the run; {_ADVICE}")
        if self._engine.rank:
            self._hooks.on_checkpoint(None, record)
            return
        with ScratchFolder() as folder:
            save_state(folder, self._state(snapshot))
            self._hooks.on_checkpoint(folder, record)

    def _state(self, snapshot: Snapshot) -> RunState:
        """The run's state."""
        return RunState(
            stage=self._stage or "whole", stage_step=self._stage_step, step=self._step, epoch_step=self._epoch_step,
            loss_sum=float(self._sums[0]), weight_sum=float(self._sums[1]), seconds=self._seconds,
            history=tuple(self.history), best=self.best, snapshot=snapshot,
            fingerprint=self._fingerprint,
        )  # fmt: skip


def fingerprint(network: NetworkOptions, side: int, options: FitOptions) -> dict[str, str]:
    """The options that may not change under a run, as text. The backend may: a checkpoint knows none."""
    free = {"backend", "checkpoint_minutes", "checkpoint_steps", "precision"}
    fields = {"side": side, **asdict(network), **asdict(options)}
    return {name: json.dumps(value) for name, value in fields.items() if name not in free}


_ADVICE = (
    "a smaller learning rate, or clip_norm, may help, in a new OUTPUT; the last checkpoint here was made before that"
)
