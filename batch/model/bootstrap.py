"""Scores, labels and groups in, 95% intervals out: whole groups are drawn again, since faces of one person are alike.

Frames of a clip, clips of a source and fakes of one original err together; intervals over single faces would be too
narrow (the cluster bootstrap: Field and Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x). A resample is
the number of times that each group was drawn. What is a mean over faces is then one product of matrices, and what goes
by rank is cumulative sums over faces that are sorted once: a thousand resamples of thousands of faces take a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.model.calibration import Floats

_LOW, _HIGH = 2.5, 97.5
_CHUNK_VALUES = 300_000
"""Resamples times faces that are held at a time: 2.4 MB an array stays in the cache, five times faster than 32 MB."""
_MOST_UNDEFINED = 0.2
FEW_FALSE_RATES = (0.01, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is judged: one row a face or an item."""

    scores: Floats
    """Calibrated probabilities, shape (n,)."""
    raw: Floats
    """The network's own probabilities, before calibration, shape (n,)."""
    labels: npt.NDArray[np.int64]
    """1 fake, 0 real, shape (n,)."""
    groups: npt.NDArray[np.int64]
    """Numbers from 0 on, shape (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def group_count(self) -> int:
        """Groups that have rows here."""
        return len(np.unique(self.groups))

    def groups_of(self, label: int) -> int:
        """Groups with a row of this label."""
        return len(np.unique(self.groups[self.labels == label]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """95% of the resamples lie between; None where that cannot be told, with the reason."""

    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What goes by rank, for every resample; NaN where a resample lacks a class. Shapes (resamples,)."""

    auc: Floats
    average_precision: Floats
    equal_error_rate: Floats
    tpr_at: tuple[Floats, ...]
    """At each of FEW_FALSE_RATES."""
    tpr_on_grid: Floats
    """True-positive rate at each false-positive rate of the grid, shape (resamples, points)."""


def draw_counts(groups: npt.NDArray[np.int64], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each group is in each resample, shape (resamples, 1 + largest group number); groups without rows 0."""
    present = np.unique(groups)
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, int(present[-1]) + 1 if len(present) else 1))
    if len(present):
        counts[:, present] = rng.multinomial(len(present), np.full(len(present), 1 / len(present)), resamples)
    return counts


def resampled_sums(values: Floats, groups: npt.NDArray[np.int64], counts: Floats) -> Floats:
    """Sums of columns over the faces of each resample.

    Args:
        values: shape (n, columns).
        groups: shape (n,).
        counts: of `draw_counts`, shape (resamples, groups).

    Returns:
        Shape (resamples, columns).
    """
    per_group = np.zeros((counts.shape[1], values.shape[1]))
    np.add.at(per_group, groups, values)
    return np.asarray(counts @ per_group)


def ranked(sample: Sample, counts: Floats, grid: Floats) -> Ranked:
    """ROC and precision-recall figures of every resample; with counts of one row of ones, those of the sample itself.

    Equal scores are one step of the curves, as in scikit-learn. The equal-error rate is read off the straight lines
    between steps; a rate at few false positives is the highest step that keeps to them.
    """
    order = np.argsort(-sample.scores, kind="stable")
    scores, fake, groups = sample.scores[order], sample.labels[order] == 1, sample.groups[order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores) != 0]) if len(scores) else np.zeros(0, np.int64)
    step = max(1, _CHUNK_VALUES // max(len(sample), 1))
    parts = [
        _ranked_chunk(counts[begin : begin + step][:, groups], fake, starts, grid)
        for begin in range(0, len(counts), step)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Ranked(
        auc=columns[0],
        average_precision=columns[1],
        equal_error_rate=columns[2],
        tpr_at=tuple(columns[3].T),
        tpr_on_grid=columns[4],
    )


def _ranked_chunk(
    weights: Floats, fake: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64], grid: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    tp = np.cumsum(np.add.reduceat(weights * fake, starts, axis=1), axis=1)
    fp = np.cumsum(np.add.reduceat(weights * ~fake, starts, axis=1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr = np.pad(tp / tp[:, -1:], ((0, 0), (1, 0)))
        fpr = np.pad(fp / fp[:, -1:], ((0, 0), (1, 0)))
        precision = np.nan_to_num(tp / (tp + fp))
    defined = (tp[:, -1] > 0) & (fp[:, -1] > 0)
    auc = np.sum(np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2, axis=1)
    average_precision = np.sum(np.diff(tpr) * precision, axis=1)
    few = np.stack([np.max(np.where(fpr <= rate + 1e-12, tpr, 0.0), axis=1) for rate in FEW_FALSE_RATES], axis=1)
    on_grid = np.full((len(tp), len(grid)), np.nan)
    for row in np.flatnonzero(defined) if len(grid) else ():
        on_grid[row] = np.interp(grid, fpr[row], tpr[row])
    undefined = ~defined
    for column in (auc, average_precision, few):
        column[undefined] = np.nan
    return auc, average_precision, _equal_error(fpr, tpr, defined), few, on_grid


def _equal_error(fpr: Floats, tpr: Floats, defined: npt.NDArray[np.bool_]) -> Floats:
    """Where the line between two steps of the ROC curve crosses the falling diagonal."""
    gap = fpr - (1 - tpr)
    after = np.argmax(gap >= 0, axis=1)
    rows = np.arange(len(fpr))
    before = np.maximum(after - 1, 0)
    rise = gap[rows, after] - gap[rows, before]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(rise > 0, -gap[rows, before] / rise, 0.0)
    found = fpr[rows, before] + part * (fpr[rows, after] - fpr[rows, before])
    return np.where(defined, found, np.nan)


def interval(values: Floats, value: float, groups: int, *, bounded: bool) -> Interval:
    """The percentile interval of a figure.

    Args:
        values: of the resamples, NaN where undefined.
        value: of the sample itself; the interval is widened to hold it where resampling is biased, as for
            calibration errors.
        groups: independent groups that the figure rests on: the fewer ones of the two classes where it needs both.
        bounded: True for shares from 0 to 1. Where no resample differs from 0 or 1, since there was no error to draw,
            the exact binomial limit for that many groups stands in (Clopper and Pearson 1934).
    """
    if groups < 2:
        return Interval(low=None, high=None, reason="one group alone")
    found = values[np.isfinite(values)]
    if len(found) < (1 - _MOST_UNDEFINED) * len(values):
        return Interval(low=None, high=None, reason="too few groups")
    low, high = (float(edge) for edge in np.percentile(found, [_LOW, _HIGH]))
    limit = (_LOW / 100) ** (1 / groups)
    if bounded and low == high == 1.0:
        low = limit
    elif bounded and low == high == 0.0:
        high = 1 - limit
    return Interval(low=min(low, value), high=max(high, value))
