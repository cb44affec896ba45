"""The figures of a training page: curves and history in, inline SVG out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from batch.model.curves import HISTOGRAM_BINS, Curves
from batch.model.records import EpochRecord
from batch.model.thresholds import Thresholds
from batch.reports.bounded import Bins
from batch.reports.charts import Mark, histogram
from batch.reports.svg import colour, figure, inline_svg, plain_axes, style

_WIDTH_PX, _HEIGHT_PX, _SQUARE_PX = 400.0, 250.0, 320.0
_LINE = 2.0
_FEWEST = 1e-3
_COLOUR = {"faces": "stage-2", "videos": "stage-1"}


def roc(chart_id: str, curves: dict[str, Curves], *, few: bool) -> Markup:
    """True-positive over false-positive rate, a line a level; with `few`, on a logarithmic axis from 0.1%."""

    def draw(axes: Axes) -> None:
        for unit, found in curves.items():
            if unit == "videos":
                axes.fill_between(
                    found.band_fpr,
                    found.band_low,
                    found.band_high,
                    color=colour(_COLOUR[unit]),
                    alpha=0.18,
                    linewidth=0,
                )
            # A rate changes at once where a threshold passes a score.
            axes.plot(found.fpr, found.tpr, color=colour(_COLOUR[unit]), linewidth=_LINE, drawstyle="steps-post")
        chance = np.geomspace(_FEWEST, 1, 50)
        axes.plot(chance, chance, color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
        _percent_axes(axes, "reals suspected (false-positive rate)", "fakes found (true-positive rate)")
        if few:
            axes.set_xscale("log")
            axes.set_xlim(_FEWEST, 1)
            axes.set_xticks([0.001, 0.01, 0.1, 1])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}".replace(".0%", "%")))

    title = "ROC curve with few false positives" if few else "ROC curve"
    told = "; ".join(f"{unit}: {_rates(found)}" for unit, found in curves.items())
    return _square(chart_id, title, told, draw)


def precision_recall(chart_id: str, curves: dict[str, Curves]) -> Markup:
    """Precision over recall, a line a level."""

    def draw(axes: Axes) -> None:
        for unit, found in curves.items():
            axes.plot(found.recall, found.precision, color=colour(_COLOUR[unit]), linewidth=_LINE)
            base = sum(found.fake_histogram) / max(1, sum(found.fake_histogram) + sum(found.real_histogram))
            axes.axhline(base, color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
        _percent_axes(axes, "fakes found (recall)", "fakes among the suspected")

    told = "; ".join(
        f"{unit}: precision {found.precision[-1]:.0%} where all are found" for unit, found in curves.items()
    )
    return _square(chart_id, "Precision over recall", told, draw)


def reliability(chart_id: str, found: Curves, unit: str) -> Markup:
    """Share of fakes over score, with 95% intervals; on the line where scores keep their promise."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
        for entry in found.reliability:
            if entry.low is not None and entry.high is not None:
                axes.plot([entry.predicted] * 2, [entry.low, entry.high], color=colour("stage-1"), linewidth=1.5)
        predicted, observed = ([getattr(e, name) for e in found.reliability] for name in ("predicted", "observed"))
        axes.plot(predicted, observed, "o", color=colour("stage-1"), markersize=7, clip_on=False)
        _percent_axes(axes, "score", "share of fakes, at even odds")

    told = "; ".join(f"score {e.predicted:.2f}: {e.observed:.0%} of {e.count:,} {unit}" for e in found.reliability)
    return _square(chart_id, f"Reliability of the scores of {unit}", told, draw)


def scores(chart_id: str, found: Curves, thresholds: Thresholds) -> Markup:
    """How many reals and fakes got which score, with the bands' edges."""
    edges = tuple(np.linspace(0, 1, HISTOGRAM_BINS + 1).tolist())
    layers = {
        "real": Bins(edges=edges, counts=found.real_histogram, open_end=False),
        "fake": Bins(edges=edges, counts=found.fake_histogram, open_end=False),
    }
    marks = [
        Mark(value=thresholds.real_below, text=f"likely real below {thresholds.real_below:.2f}", dashed=True),
        Mark(value=thresholds.fake_from, text=f"likely fake from {thresholds.fake_from:.2f}", dashed=True),
    ]
    total = sum(found.real_histogram) + sum(found.fake_histogram)
    return histogram(chart_id, "Scores of the videos by label", f"{total:,} videos", layers, marks, "score")


def losses(chart_id: str, history: Sequence[EpochRecord]) -> Markup:
    """Training and validation loss by epoch."""
    lines = {"training": ("stage-4", [record.loss for record in history])}
    if any("loss" in record.validation for record in history):
        lines["validation"] = ("stage-1", [record.validation.get("loss", np.nan) for record in history])
    return _by_epoch(chart_id, "Loss by epoch", history, lines, "loss")


def validation_curves(chart_id: str, history: Sequence[EpochRecord]) -> Markup | None:
    """AUC and accuracy on validation by epoch; None if neither was measured."""
    names = {"auc": "stage-1", "accuracy": "stage-2"}
    lines = {
        name: (shade, [record.validation.get(name, np.nan) for record in history])
        for name, shade in names.items()
        if any(name in record.validation for record in history)
    }
    return _by_epoch(chart_id, "AUC and accuracy on validation by epoch", history, lines, "share") if lines else None


def _by_epoch(
    chart_id: str, title: str, history: Sequence[EpochRecord], lines: dict[str, tuple[str, list[float]]], label: str
) -> Markup:
    with style():
        drawn = figure(_WIDTH_PX, _HEIGHT_PX)
        axes = drawn.add_axes((0.13, 0.19, 0.85, 0.76))
        epochs = [record.epoch for record in history]
        for shade, values in lines.values():
            axes.plot(epochs, values, "o-", color=colour(shade), linewidth=_LINE, markersize=4.5, clip_on=False)
        for before, after in pairwise(history):
            if before.stage != after.stage:
                middle = (before.epoch + after.epoch) / 2
                axes.axvline(middle, color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
                # Losses begin high and shares low: the other end of the line is free.
                height, side = (0.02, "bottom") if label == "loss" else (0.98, "top")
                axes.text(
                    middle, height, f"{after.stage} ", transform=axes.get_xaxis_transform(), ha="right", va=side,
                    color=colour("muted"), rotation=90,
                )  # fmt: skip
        plain_axes(axes, "epoch", label)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(min(epochs) - 0.25, max(epochs) + 0.25)
    told = "; ".join(f"{name}: {', '.join(f'{value:.3g}' for value in values)}" for name, (_, values) in lines.items())
    return inline_svg(drawn, chart_id, title, told)


def _square(chart_id: str, title: str, told: str, draw: Callable[[Axes], None]) -> Markup:
    with style():
        drawn = figure(_WIDTH_PX, _SQUARE_PX)
        axes = drawn.add_axes((0.15, 0.16, 0.81, 0.81))
        draw(axes)
    return inline_svg(drawn, chart_id, title, told)


def _percent_axes(axes: Axes, below: str, beside: str) -> None:
    plain_axes(axes, below, beside)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


def _rates(found: Curves) -> str:
    at = np.interp([0.01, 0.1], found.fpr, found.tpr)
    return f"{at[0]:.0%} of the fakes found at 1% false positives, {at[1]:.0%} at 10%"
