"""Scores and labels in, the curves of a page out: ROC with its band, precision-recall, reliability, histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from batch.model.bootstrap import Sample, draw_counts, ranked, resampled_sums
from batch.model.calibration import Floats
from batch.model.metrics import ECE_BINS, bin_of

_GRID_POINTS, _MAX_POINTS, HISTOGRAM_BINS = 101, 300, 20
_BAND = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """A bin of the probability of fake that is not empty."""

    predicted: float
    """Mean probability."""
    observed: float
    """Share of fakes, both classes counted as if there were as many of either."""
    low: float | None
    """95% of the resamples, None if too few of them have the bin."""
    high: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Points to draw; at most some hundred each, however many scores there are."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    band_fpr: tuple[float, ...]
    band_low: tuple[float, ...]
    """True-positive rate that 97.5% of the resamples reach at each of `band_fpr`."""
    band_high: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    reliability: tuple[ReliabilityBin, ...]
    real_histogram: tuple[int, ...]
    """Counts over bins of equal width from 0 to 1."""
    fake_histogram: tuple[int, ...]


def curves(sample: Sample, *, resamples: int, seed: int) -> Curves:
    """The curves of faces or items of both classes. Raises `ValueError` for one class."""
    if len(np.unique(sample.labels)) != 2:
        raise ValueError("curves: got scores of one class, expected real and fake ones")
    counts = draw_counts(sample.groups, resamples, seed)
    # Finer where few false positives matter.
    grid = np.unique(np.concatenate([np.linspace(0, 1, _GRID_POINTS), np.geomspace(1e-3, 1, 40)]))
    on_grid = ranked(sample, counts, grid).tpr_on_grid
    on_grid = on_grid[np.isfinite(on_grid).all(axis=1)]
    band = np.percentile(on_grid, _BAND, axis=0) if len(on_grid) else np.zeros((2, 0))
    fpr, tpr, _ = roc_curve(sample.labels, sample.scores)
    precision, recall, _ = precision_recall_curve(sample.labels, sample.scores)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    real, fake = (np.histogram(sample.scores[sample.labels == label], edges)[0] for label in (0, 1))
    return Curves(
        fpr=_thinned(fpr),
        tpr=_thinned(tpr),
        band_fpr=tuple(grid.tolist()) if len(on_grid) else (),
        band_low=tuple(band[0].tolist()),
        band_high=tuple(band[1].tolist()),
        recall=_thinned(recall[::-1]),
        precision=_thinned(precision[::-1]),
        reliability=_reliability(sample, counts),
        real_histogram=tuple(real.tolist()),
        fake_histogram=tuple(fake.tolist()),
    )


def _reliability(sample: Sample, counts: Floats) -> tuple[ReliabilityBin, ...]:
    """Bins at even odds: each class's faces weigh one over their number."""
    bins, rows = bin_of(sample.scores), np.arange(len(sample))
    columns = np.zeros((len(sample), 3 * ECE_BINS))
    for part, column in enumerate((sample.labels == 0, sample.labels == 1, sample.scores)):
        columns[rows, bins + part * ECE_BINS] = column
    classes = np.bincount(sample.labels, minlength=2)
    reals, fakes, scores = np.split(columns.sum(axis=0), 3)
    drawn_reals, drawn_fakes, _ = np.split(resampled_sums(columns, sample.groups, counts), 3, axis=1)
    found = []
    for place in np.flatnonzero(reals + fakes):
        drawn = _share(drawn_reals[:, place], drawn_fakes[:, place], drawn_reals.sum(axis=1), drawn_fakes.sum(axis=1))
        drawn = drawn[np.isfinite(drawn)]
        told = len(drawn) > 0.8 * len(counts)
        low, high = np.percentile(drawn, _BAND) if told else (np.nan, np.nan)
        observed = float(_share(reals[place], fakes[place], classes[0], classes[1]))
        found.append(
            ReliabilityBin(
                predicted=float(scores[place] / (reals[place] + fakes[place])),
                observed=observed,
                low=min(float(low), observed) if told else None,
                high=max(float(high), observed) if told else None,
                count=int(reals[place] + fakes[place]),
            )
        )
    return tuple(found)


def _share(reals: npt.ArrayLike, fakes: npt.ArrayLike, all_reals: npt.ArrayLike, all_fakes: npt.ArrayLike) -> Floats:
    """Share of fakes at even odds; NaN for an empty bin."""
    with np.errstate(divide="ignore", invalid="ignore"):
        real, fake = np.divide(reals, all_reals), np.divide(fakes, all_fakes)
        return np.asarray(fake / (real + fake))


def _thinned(values: Floats) -> tuple[float, ...]:
    """Every so many-th value, the last one always."""
    kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MAX_POINTS)).astype(np.int64))
    return tuple(np.asarray(values, np.float64)[kept].tolist())
