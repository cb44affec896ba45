"""The figures of a tuning page: learning curves of the best configurations, inline SVG out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from batch.model.records import EpochRecord
from batch.reports.svg import colour, figure, inline_svg, plain_axes, style

_WIDTH_PX, _HEIGHT_PX = 400.0, 270.0
SHADES = 8
"""Colours of lines; more lines than that are dashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A trial's line."""

    label: str
    """What it is called in the legend."""
    history: Sequence[EpochRecord]
    shade: str
    """One of `svg.VARIABLES`."""
    dashed: bool


def curves_of(lines: Sequence[tuple[str, Sequence[EpochRecord]]]) -> list[Curve]:
    """Lines with a look of their own each."""
    return [
        Curve(label=label, history=history, shade=f"stage-{place % SHADES + 1}", dashed=place >= SHADES)
        for place, (label, history) in enumerate(lines)
    ]


def learning_curves(chart_id: str, metric: str, curves: Sequence[Curve]) -> Markup:
    """A metric on validation by epoch, a line a trial."""
    with style():
        drawn = figure(_WIDTH_PX, _HEIGHT_PX)
        axes = drawn.add_axes((0.15, 0.18, 0.83, 0.79))
        last = 1
        for curve in curves:
            points = [
                (record.epoch, record.validation[metric]) for record in curve.history if metric in record.validation
            ]
            if not points:
                continue
            last = max(last, points[-1][0])
            axes.plot(
                [epoch for epoch, _ in points], [value for _, value in points], marker="o", color=colour(curve.shade),
                linewidth=2.0, markersize=4.5, clip_on=False, linestyle=(0, (3, 2)) if curve.dashed else "-",
            )  # fmt: skip
        plain_axes(axes, "epoch", f"validation {metric}")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(0.75, last + 0.25)
    told = "; ".join(f"{curve.label}: {_values(curve, metric)}" for curve in curves)
    return inline_svg(drawn, chart_id, f"Validation {metric} by epoch", told)


def _values(curve: Curve, metric: str) -> str:
    found = [record.validation.get(metric) for record in curve.history]
    return ", ".join("-" if value is None else f"{value:.3g}" for value in found)
