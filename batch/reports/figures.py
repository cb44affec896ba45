"""Figures of an evaluation in, the words and numbers that page and model card write out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch.model.evaluation import POINT_NAMES, Evaluation, Level, OperatingPoint, Slice
from batch.model.metrics import NAMES, Metric

WORDS: Mapping[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "share judged right at 0.5, as Keras' evaluate counts it"),
    "auc": ("AUC", "how often a fake scores higher than a real one; 0.5 is chance"),
    "log_loss": ("Log-loss", "of calibrated scores; 0.693 is chance, lower is better"),
    "average_precision": ("Average precision", "area under precision over recall; the share of fakes is chance"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the shares of reals and of fakes judged right at 0.5"),
    "equal_error_rate": ("Equal error rate", "where as many fakes are missed as reals suspected; lower is better"),
    "tpr_at_fpr_1pct": ("Found at 1% FPR", "share of fakes found while 1% of the reals are suspected"),
    "tpr_at_fpr_0_1pct": ("Found at 0.1% FPR", "share of fakes found while one real in a thousand is suspected"),
    "expected_calibration_error": (
        "Calibration error",
        "ECE: how far scores are from the share of fakes, at even odds, over ten bins of equal width; lower is better",
    ),
    "loss": ("Loss", "binary cross-entropy before calibration, as Keras' evaluate gives it; lower is better"),
}
"""Title and explanation of each of `metrics.NAMES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as it is written."""

    value: str
    """A dash where it is undefined."""
    interval: str
    """`0.908 to 0.939`; empty where there is none."""
    reason: str
    """Why there is no value or no interval; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """One kind of figure over several columns."""

    code: str
    name: str
    meaning: str
    cells: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """An operating point as it is written."""

    code: str
    name: str
    threshold: str
    tpr: Figure
    fpr: Figure
    accuracy: Figure
    precision: Figure
    cells: OperatingPoint
    """With the counts of the confusion matrix."""


def figure_of(metric: Metric, *, percent: bool = False) -> Figure:
    """Three digits after the point, or a percentage with one."""
    reason = metric.reason
    if metric.value is None:
        return Figure(value="–", interval="", reason=reason)
    value = _written(metric.value, percent=percent)
    if metric.low is None or metric.high is None:
        return Figure(value=value, interval="", reason=reason)
    low, high = _written(metric.low, percent=percent), _written(metric.high, percent=percent)
    return Figure(value=value, interval=f"{low} to {high}", reason=reason)


def figure_rows(levels: Sequence[Level]) -> tuple[FigureRow, ...]:
    """All figures, a column a level."""
    return tuple(
        FigureRow(
            code=name,
            name=WORDS[name][0],
            meaning=WORDS[name][1],
            cells=tuple(figure_of(level.metrics[name]) for level in levels),
        )
        for name in NAMES
    )


def point_rows(evaluation: Evaluation) -> tuple[PointRow, ...]:
    """The operating points."""
    return tuple(
        PointRow(
            code=point.name,
            name=POINT_NAMES[point.name],
            threshold=f"{point.threshold:.3f}",
            tpr=figure_of(point.tpr, percent=True),
            fpr=figure_of(point.fpr, percent=True),
            accuracy=figure_of(point.accuracy, percent=True),
            precision=figure_of(point.precision, percent=True),
            cells=point,
        )
        for point in evaluation.points
    )


def lead(evaluation: Evaluation) -> str:
    """The one sentence that says how good the model is."""
    level = evaluation.videos
    auc = level.metrics["auc"]
    total = f"{evaluation.name} ({level.real + level.fake:,} videos)"
    if auc.value is None:
        return f"How well the model ranks cannot be told from {total}: {auc.reason}."
    between = "" if auc.low is None or auc.high is None else f" (95% interval {auc.low:.1%} to {auc.high:.1%})"
    return f"On {total} the model scores a fake higher than a real one in {auc.value:.1%} of all pairs{between}."


def _written(value: float, *, percent: bool) -> str:
    """Never a rounded 0 or 1 for what is neither."""
    if not percent:
        text = f"{value:.3f}"
        if text == "1.000" and value < 1:
            return ">0.999"
        return "<0.001" if text == "0.000" and value > 0 else text
    text = f"{value:.1%}"
    if text == "100.0%":
        return ">99.9%" if value < 1 else "100%"
    return ("<0.1%" if value > 0 else "0%") if text == "0.0%" else text


def largest_slices(slices: Sequence[Slice], most: int) -> list[tuple[str, tuple[Slice, ...], int]]:
    """Each kind, its largest slices in their own order, and how many more it has."""
    tables = []
    for kind in dict.fromkeys(entry.kind for entry in slices):
        found = [entry for entry in slices if entry.kind == kind]
        kept = sorted(found, key=lambda entry: -(entry.faces.real + entry.faces.fake))[:most]
        tables.append((kind, tuple(entry for entry in found if entry in kept), len(found) - len(kept)))
    return tables
