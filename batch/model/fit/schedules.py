"""What follows from the history alone: the stage that runs, the learning rate, when to stop, which epoch was best.

Nothing of this is kept as state, so a resumed run cannot disagree with an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from batch.model.fit.options import FitOptions
from batch.model.network import Stage
from batch.model.records import EpochRecord


def current_stage(history: Sequence[EpochRecord], options: FitOptions, pretrained: bool) -> Stage | None:
    """The stage of the next epoch; None when training is over."""
    head = [record for record in history if record.stage == "head"]
    whole = [record for record in history if record.stage == "whole"]
    if pretrained and not whole and not _is_over(head, options.head_epochs, options):
        return "head"
    return None if _is_over(whole, options.epochs, options) else "whole"


def learning_rate(history: Sequence[EpochRecord], options: FitOptions, stage: Stage, progress: float) -> float:
    """Of the next step. `progress` is the share of the running epoch that is done, 0 to below 1."""
    largest = options.head_learning_rate if stage == "head" else options.learning_rate
    mine = [record for record in history if record.stage == stage]
    epochs = len(mine) + progress
    if epochs < options.warmup_epochs:
        # Never 0: the first step would be lost.
        return largest * max(epochs / options.warmup_epochs, 1e-2)
    if options.schedule == "plateau":
        return largest * options.plateau_factor ** _falls(mine, options.plateau_patience)
    if options.schedule == "cosine":
        whole = options.head_epochs if stage == "head" else options.epochs
        share = (epochs - options.warmup_epochs) / max(whole - options.warmup_epochs, 1e-9)
        return largest * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return largest


def average_decay(options: FitOptions, step: int) -> float:
    """Decay of the moving average at a stage's step (from 0): smaller at first, so that short runs average too.

    The ramp is that of `tf.train.ExponentialMovingAverage(num_updates)`.
    """
    return min(options.ema or 0.0, (1 + step) / (10 + step))


def best_epoch(history: Sequence[EpochRecord]) -> int | None:
    """Place in the history of the lowest validation loss, the first of equals; the last one without validation."""
    losses = [record.validation.get("loss", math.inf) for record in history]
    if not losses:
        return None
    lowest = min(losses)
    return len(losses) - 1 if math.isinf(lowest) else losses.index(lowest)


def _is_over(records: Sequence[EpochRecord], epochs: int, options: FitOptions) -> bool:
    """True if a stage has run its epochs, or did not get better for `patience` of them."""
    if len(records) >= epochs:
        return True
    return options.patience is not None and _stalled(records) >= options.patience


def _stalled(records: Sequence[EpochRecord]) -> int:
    """Epochs since the lowest validation loss; 0 without validation."""
    if not records or "loss" not in records[0].validation:
        return 0
    losses = [record.validation["loss"] for record in records]
    return len(losses) - 1 - losses.index(min(losses))


def _falls(records: Sequence[EpochRecord], patience: int) -> int:
    """How often the validation loss stalled for `patience` epochs, counted anew after each fall."""
    lowest, waited, falls = math.inf, 0, 0
    for record in records:
        loss = record.validation.get("loss", -math.inf)
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        if waited >= patience:
            falls, waited = falls + 1, 0
    return falls
