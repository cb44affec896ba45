"""The figures of the report pages: numbers in, inline SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from batch.reports.bounded import Bins
from batch.reports.svg import colour, figure, inline_svg, style

# Drawn near the width at which a phone shows them, so that their text stays readable there.
_WIDTH_PX = 400.0
_NAME_LENGTH = 22
_LETTER_PX, _ROW_PX = 7.4, 25
_PLOT_PX, _BELOW_PX, _MARK_PX = 165, 46, 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A share of a whole."""

    value: float
    colour: str
    """One of `svg.VARIABLES`."""
    tip: str
    """What it says under a pointer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value that a histogram points out."""

    value: float
    text: str
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendRow:
    """A row of the table beside a bar of proportions."""

    colour: str
    name: str
    code: str
    """How the tables and `summary.json` call it."""
    value: float
    text: str
    """The value as the page writes it."""
    share: str
    each: str = ""
    """The value for one video, where that says something."""

    @property
    def part(self) -> Part:
        """The row's piece of the bar."""
        return Part(value=self.value, colour=self.colour, tip=f"{self.name}: {self.text} ({self.share})")


def proportions(chart_id: str, title: str, parts: Sequence[Part]) -> Markup:
    """A bar of the parts' shares, without text and free to stretch: the legend beside it is the page's own."""
    total = sum(part.value for part in parts)
    with style():
        drawn = figure(1000, 40)
        axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, total or 1)
        axes.set_ylim(0, 1)
        start = 0.0
        for index, part in enumerate(parts):
            bar = Rectangle((start, 0), part.value, 1, facecolor=colour(part.colour), linewidth=0)
            bar.set_gid(f"part-{index}")
            axes.add_patch(bar)
            start += part.value
        for edge in _inner_edges(parts):
            axes.axvline(edge, color=colour("page"), linewidth=2)
    tips = {f"part-{index}": part.tip for index, part in enumerate(parts)}
    return inline_svg(drawn, chart_id, title, "; ".join(part.tip for part in parts), tips, stretch=True)


def histogram(
    chart_id: str, title: str, description: str, layers: Mapping[str, Bins], marks: Sequence[Mark], unit: str
) -> Markup:
    """Stacked bins, a layer a colour name of `svg.VARIABLES`, all with the same edges, and marks above them."""
    with style():
        height = _PLOT_PX + _BELOW_PX + _MARK_PX * len(marks)
        drawn = figure(_WIDTH_PX, height)
        axes = drawn.add_axes((0.11, _BELOW_PX / height, 0.88, _PLOT_PX / height))
        first = next(iter(layers.values()))
        left, right = first.edges[0], first.edges[-1]
        widths = [after - before for before, after in zip(first.edges, first.edges[1:], strict=False)]
        base = [0] * len(widths)
        for name, bins in layers.items():
            axes.bar(
                first.edges[:-1], bins.counts, widths, base, align="edge",
                color=colour(name), edgecolor=colour("page"), linewidth=0.8,
            )  # fmt: skip
            base = [below + count for below, count in zip(base, bins.counts, strict=True)]
        axes.set_xlim(left, right)
        axes.set_ylim(0, max(*base, 1) * 1.04)
        _scales(axes, open_end=any(bins.open_end for bins in layers.values()), right=right, unit=unit)
        _draw_marks(axes, [mark for mark in marks if left <= mark.value <= right], right)
    return inline_svg(drawn, chart_id, title, description)


def stacked_rows(chart_id: str, title: str, description: str, rows: Sequence[tuple[str, Mapping[str, int]]]) -> Markup:
    """One horizontal bar a row, its pieces by colour name of `svg.VARIABLES`, its total at the end."""
    with style():
        names = [_short(name) for name, _ in rows]
        indent = (max(map(len, names)) * _LETTER_PX + 12) / _WIDTH_PX
        drawn = figure(_WIDTH_PX, _ROW_PX * len(rows))
        axes = drawn.add_axes((indent, 0.0, 0.88 - indent, 1.0))
        axes.set_axis_off()
        longest = max(sum(pieces.values()) for _, pieces in rows) or 1
        for index, (name, (_, pieces)) in enumerate(zip(names, rows, strict=True)):
            start = 0
            for part, count in pieces.items():
                if count:
                    axes.barh(index, count, 0.62, start, color=colour(part), edgecolor=colour("page"), linewidth=0.8)
                start += count
            drawn.text(0, 1 - (index + 0.5) / len(rows), name, ha="left", va="center", color=colour("ink"))
            axes.text(start + 0.02 * longest, index, f"{start:,}", ha="left", va="center", color=colour("muted"))
        axes.set_xlim(0, longest)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    return inline_svg(drawn, chart_id, title, description)


def _inner_edges(parts: Sequence[Part]) -> list[float]:
    edges, start = [], 0.0
    for part in parts[:-1]:
        start += part.value
        edges.append(start)
    return edges


def _scales(axes: Axes, *, open_end: bool, right: float, unit: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e4 else f"{value:,.0f}"))
    axes.tick_params(length=0, pad=6, labelcolor=colour("muted"))
    axes.set_xlabel(unit + (f" (last bar: {right:g} and more)" if open_end else ""), color=colour("muted"))
    axes.grid(axis="y", color=colour("rule"), linewidth=1)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(colour("muted"))


def _draw_marks(axes: Axes, marks: Sequence[Mark], right: float) -> None:
    """Upright lines with a line of text each above the plot; texts turn away from each other where there is room."""
    top = axes.get_ylim()[1]
    ordered = sorted(marks, key=lambda mark: mark.value)
    for row, mark in enumerate(ordered):
        height = top * (1 + _MARK_PX * (row + 0.7) / _PLOT_PX)
        axes.plot(
            [mark.value, mark.value], [0, height], color=colour("ink"), linewidth=1.5, clip_on=False,
            linestyle=(0, (3, 2)) if mark.dashed else "-",
        )  # fmt: skip
        leftward = mark.value > right * (0.35 if row < len(ordered) - 1 else 0.65)
        axes.text(
            mark.value + (-0.013 if leftward else 0.013) * right, height, mark.text,
            ha="right" if leftward else "left", va="center", color=colour("ink"), clip_on=False,
        )  # fmt: skip


def _short(name: str) -> str:
    """One line of at most `_NAME_LENGTH` letters."""
    line = " ".join(name.split()) or "(no folder)"
    return line if len(line) <= _NAME_LENGTH else f"{line[: _NAME_LENGTH - 1]}…"
