"""Scores and labels in, the field's figures with 95% intervals out.

`loss` and `accuracy` are what `model.evaluate` of Keras gives for binary cross-entropy: of the network's own
probabilities, before calibration. All others are of calibrated ones. Figures come from scikit-learn; intervals from
`bootstrap`, which agrees with it on the sample itself. A figure that cannot be told is None with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
)

from batch.model.bootstrap import FEW_FALSE_RATES, Interval, Sample, draw_counts, interval, ranked, resampled_sums
from batch.model.calibration import Floats

ECE_BINS = 10
"""Calibration error: bins of equal width of the probability of fake; the mean over bins of the distance between mean
probability and share of fakes, weighted by their faces, both classes counted as if there were as many of either (see
`calibration`)."""
_EPSILON = 1e-7
"""Keras' own: a probability counts as no closer to 0 or 1 in the loss."""
_NO_GRID = np.zeros(0)

NAMES = (
    "accuracy", "auc", "log_loss", "average_precision", "balanced_accuracy", "equal_error_rate",
    "tpr_at_fpr_1pct", "tpr_at_fpr_0_1pct", "expected_calibration_error", "loss",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure with its 95% interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    """Why the figure or its interval is None."""


def metrics(sample: Sample, unit: str, *, resamples: int, seed: int) -> dict[str, Metric]:
    """All of NAMES for faces or items.

    Args:
        sample: scores, labels, groups.
        unit: what a row is, for reasons: `faces`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    if not len(sample):
        return {name: Metric(value=None, reason=f"no {unit} with a label") for name in NAMES}
    counts = draw_counts(sample.groups, resamples, seed)
    return {**_means(sample, unit, counts), **_ranks(sample, unit, counts)}


def brief(sample: Sample, unit: str, *, resamples: int, seed: int) -> tuple[Metric, Metric]:
    """Accuracy and AUC alone, for slices."""
    found = metrics(sample, unit, resamples=resamples, seed=seed)
    return found["accuracy"], found["auc"]


def rates(sample: Sample, threshold: float, unit: str, *, resamples: int, seed: int) -> Mapping[str, Metric]:
    """`tpr`, `fpr` and `accuracy` of saying fake from a threshold on."""
    counts = draw_counts(sample.groups, resamples, seed)
    said, fake = sample.scores >= threshold, sample.labels == 1
    columns = np.stack([said & fake, fake, said & ~fake, ~fake, said == fake, np.ones(len(fake))], axis=1)
    sums, own = resampled_sums(columns.astype(np.float64), sample.groups, counts), columns.sum(axis=0)
    groups = (sample.groups_of(1), sample.groups_of(0), sample.group_count)
    found = {}
    for place, name in enumerate(("tpr", "fpr", "accuracy")):
        if not own[2 * place + 1]:
            found[name] = Metric(value=None, reason=f"no {'fake' if name == 'tpr' else 'real'} {unit}")
            continue
        values = _divide(sums[:, 2 * place], sums[:, 2 * place + 1])
        found[name] = _with(float(own[2 * place] / own[2 * place + 1]), values, groups[place])
    return found


def precision_at(tpr: Metric, fpr: Metric, prevalence: float) -> Metric:
    """Of the items that are called fake, the share that is, where `prevalence` of all items are fakes (Bayes).

    The limits come from those of the two rates, so that they hold 95% or more.
    """
    if tpr.value is None or fpr.value is None:
        return Metric(value=None, reason=tpr.reason or fpr.reason)

    def share(hit: float, false: float) -> float | None:
        called = prevalence * hit + (1 - prevalence) * false
        return prevalence * hit / called if called else None

    value = share(tpr.value, fpr.value)
    if value is None:
        return Metric(value=None, reason="nothing is called fake")
    if tpr.low is None or tpr.high is None or fpr.low is None or fpr.high is None:
        return Metric(value=value, reason=tpr.reason or fpr.reason)
    return Metric(value=value, low=share(tpr.low, fpr.high) or 0.0, high=share(tpr.high, fpr.low) or 1.0)


def bin_of(scores: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The calibration bin of each score, 0 to ECE_BINS - 1."""
    return np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def _means(sample: Sample, unit: str, counts: Floats) -> dict[str, Metric]:
    """What is a mean over rows."""
    fake, said = sample.labels == 1, sample.scores >= 0.5
    losses = np.stack([_losses(sample.scores, fake), _losses(sample.raw, fake)], axis=1)
    right = (sample.raw >= 0.5) == fake
    columns = np.column_stack([np.ones(len(fake)), losses, right, said & fake, fake, ~said & ~fake, ~fake])
    sums = resampled_sums(columns.astype(np.float64), sample.groups, counts)
    groups, pairs = sample.group_count, min(sample.groups_of(0), sample.groups_of(1))
    p, raw = np.clip(sample.scores, _EPSILON, 1 - _EPSILON), np.clip(sample.raw, _EPSILON, 1 - _EPSILON)
    y = sample.labels
    found = {
        "loss": _with(float(log_loss(y, raw, labels=[0, 1])), sums[:, 2] / sums[:, 0], groups, bounded=False),
        "log_loss": _with(float(log_loss(y, p, labels=[0, 1])), sums[:, 1] / sums[:, 0], groups, bounded=False),
        "accuracy": _with(float(accuracy_score(y, sample.raw >= 0.5)), sums[:, 3] / sums[:, 0], groups),
        "expected_calibration_error": _calibration_error(sample, unit, counts),
    }
    if not fake.any() or fake.all():
        return {**found, "balanced_accuracy": Metric(value=None, reason=_one_class(sample, unit))}
    values = (_divide(sums[:, 4], sums[:, 5]) + _divide(sums[:, 6], sums[:, 7])) / 2
    return {**found, "balanced_accuracy": _with(float(balanced_accuracy_score(y, said)), values, pairs)}


def _ranks(sample: Sample, unit: str, counts: Floats) -> dict[str, Metric]:
    """What goes by rank."""
    names = ("auc", "average_precision", "equal_error_rate", "tpr_at_fpr_1pct", "tpr_at_fpr_0_1pct")
    reals, fakes = sample.groups_of(0), sample.groups_of(1)
    if not reals or not fakes:
        return dict.fromkeys(names, Metric(value=None, reason=_one_class(sample, unit)))
    drawn, pairs = ranked(sample, counts, _NO_GRID), min(reals, fakes)
    own = ranked(sample, np.ones((1, counts.shape[1])), _NO_GRID)
    y, p = sample.labels, sample.scores
    found = {
        "auc": _with(float(roc_auc_score(y, p)), drawn.auc, pairs),
        "average_precision": _with(float(average_precision_score(y, p)), drawn.average_precision, pairs),
        "equal_error_rate": _with(float(own.equal_error_rate[0]), drawn.equal_error_rate, pairs),
    }
    there = int(np.sum(y == 0))
    for place, (name, rate) in enumerate(zip(names[3:], FEW_FALSE_RATES, strict=True)):
        needed = round(1 / rate)
        if there < needed:
            found[name] = Metric(value=None, reason=f"needs {needed:,} real {unit}, there are {there:,}")
        else:
            found[name] = _with(float(own.tpr_at[place][0]), drawn.tpr_at[place], pairs)
    return found


def _calibration_error(sample: Sample, unit: str, counts: Floats) -> Metric:
    """At even odds; None with one class."""
    totals = np.bincount(sample.labels, minlength=2)
    if not totals.all():
        return Metric(value=None, reason=_one_class(sample, unit))
    rows, signed = np.arange(len(sample)), np.zeros((len(sample), 2 * ECE_BINS + 2))
    signed[rows, bin_of(sample.scores) + sample.labels * ECE_BINS] = sample.scores - sample.labels
    signed[rows, 2 * ECE_BINS + sample.labels] = 1

    def error(sums: Floats) -> Floats:
        real, fake, found = np.split(sums, [ECE_BINS, 2 * ECE_BINS], axis=1)
        gaps = _divide(real, found[:, :1]) / 2 + _divide(fake, found[:, 1:]) / 2
        return np.asarray(np.abs(gaps).sum(axis=1))

    values = error(resampled_sums(signed, sample.groups, counts))
    groups = min(sample.groups_of(0), sample.groups_of(1))
    return _with(float(error(signed.sum(axis=0, keepdims=True))[0]), values, groups, bounded=False)


def _with(value: float, values: Floats, groups: int, *, bounded: bool = True) -> Metric:
    found: Interval = interval(values, value, groups, bounded=bounded)
    return Metric(value=value, low=found.low, high=found.high, reason=found.reason)


def _losses(scores: Floats, fake: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    return np.asarray(-np.log(np.clip(np.where(fake, scores, 1 - scores), _EPSILON, 1)))


def _divide(part: Floats, whole: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _one_class(sample: Sample, unit: str) -> str:
    return f"only {'fake' if sample.labels[0] else 'real'} {unit}"
