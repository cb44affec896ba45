"""The figures of a scoring page: scores beside the usual ones, shares over the last runs, a clip's score over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from batch.model.thresholds import Thresholds
from batch.reports.charts import Part, proportions
from batch.reports.page import share
from batch.reports.svg import colour, figure, inline_svg, style
from batch.scoring.drift import BINS, Change, Drift, RunStats, coarse
from batch.scoring.summary import Tally
from batch.scoring.suspicious import Followed

_WIDTH_PX, _HEIGHT_PX = 400.0, 230.0
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_EDGE = 240.0, 56.0, 4.0
BAND_COLOURS = {"likely real": "real", "uncertain": "unknown", "likely fake": "fake"}


def outcomes(chart_id: str, total: Tally) -> Markup:
    """A bar of everything that a run looked at."""
    parts = [
        *((name, BAND_COLOURS[name], total.bands.get(name, 0)) for name in reversed(BAND_COLOURS)),
        ("set aside", "aside-2", sum(total.set_aside.values())),
        ("fault", "fault-3", sum(total.faults.values())),
    ]
    drawn = [
        Part(value=count, colour=shade, tip=f"{name}: {count:,} ({share(count, total.items)})")
        for name, shade, count in parts
        if count
    ]
    return proportions(chart_id, "Outcomes of all items of this run", drawn)


def scores(chart_id: str, drift: Drift, thresholds: Thresholds) -> Markup:
    """Shares of this run's scores in ten bins; where there are enough earlier runs, theirs as a line."""
    own = coarse(drift.current.total.histogram)
    total, usual = max(1, sum(own)), max(1, sum(drift.usual))
    with style():
        drawn = figure(_WIDTH_PX, _HEIGHT_PX)
        axes = drawn.add_axes((0.13, 0.2, 0.85, 0.76))
        for number, count in enumerate(own):
            shade = colour(BAND_COLOURS[thresholds.band((number + 0.5) / BINS)])
            axes.bar(
                number / BINS, count / total, 1 / BINS, align="edge", color=shade, edgecolor=colour("page"),
                linewidth=0.8,
            )  # fmt: skip
        if drift.usual:
            heights = [count / usual for count in drift.usual]
            edges = [number / BINS for number in range(BINS + 1)]
            axes.stairs(heights, edges, color=colour("ink"), linewidth=1.8, baseline=None)
        _axes(axes, "score", "share of the scored items")
        axes.set_xlim(0, 1)
    told = ", ".join(f"{number / BINS:.1f}: {count / total:.0%}" for number, count in enumerate(own))
    if drift.usual:
        told += "; usually " + ", ".join(
            f"{number / BINS:.1f}: {count / usual:.0%}" for number, count in enumerate(drift.usual)
        )
    return inline_svg(drawn, chart_id, "Scores of this run", told)


def coverage(chart_id: str, drift: Drift) -> Markup:
    """Share of items with a score by run, with what is usual."""
    change = next((each for each in drift.changes if each.name == "coverage" and not each.where), None)
    return _by_run(chart_id, "Coverage by run", drift, lambda tally: tally.scored / tally.items, "kept", change)


def likely_fake(chart_id: str, drift: Drift) -> Markup:
    """Share of likely fakes among the scored items by run."""

    def value(tally: Tally) -> float:
        return tally.bands.get("likely fake", 0) / tally.scored if tally.scored else float("nan")

    return _by_run(chart_id, "Likely fakes by run", drift, value, "fake", None)


def sparkline(chart_id: str, followed: Sequence[Followed], thresholds: Thresholds, end_s: float) -> Markup:
    """A clip's scores over time: the most suspicious face, thin lines for the others, a ring at the frame shown.

    Hand-written rather than drawn by matplotlib, since a page holds dozens.
    """
    top = followed[0]
    lines = [_line(each, end_s, "other") for each in followed[1:]] + [_line(top, end_s, "top")]
    marks = "".join(_dot(frame.pts_s, frame.probability, end_s, 2, "dot") for frame in top.frames)
    marks += _dot(top.top.pts_s, top.top.probability, end_s, 4.5, "ring")
    cuts = "".join(
        f'<line x1="0" x2="{_SPARK_WIDTH:g}" y1="{_y(value):.1f}" y2="{_y(value):.1f}" class="cut"/>'
        for value in (thresholds.real_below, thresholds.fake_from)
    )
    values = [frame.probability for frame in top.frames]
    told = f"Score over {len(values)} frames in {end_s:.1f} s: lowest {min(values):.2f}, highest {max(values):.2f}"
    if len(followed) > 1:
        others = len(followed) - 1
        told += f"; {others} more {'face as a thin line' if others == 1 else 'faces as thin lines'}"
    head = (
        f'<svg viewBox="0 0 {_SPARK_WIDTH:g} {_SPARK_HEIGHT:g}" role="img" class="spark" aria-labelledby="{chart_id}">'
    )
    # Numbers and words of our own alone.
    return Markup(f'{head}<title id="{chart_id}">{told}</title>{cuts}{"".join(lines)}{marks}</svg>')  # noqa: S704


def _line(followed: Followed, end_s: float, kind: str) -> str:
    points = " ".join(f"{_x(frame.pts_s, end_s):.1f},{_y(frame.probability):.1f}" for frame in followed.frames)
    return f'<polyline points="{points}" class="{kind}"/>'


def _dot(pts_s: float, value: float, end_s: float, radius: float, kind: str) -> str:
    return f'<circle cx="{_x(pts_s, end_s):.1f}" cy="{_y(value):.1f}" r="{radius:g}" class="{kind}"/>'


def _x(pts_s: float, end_s: float) -> float:
    at = min(max(pts_s / end_s, 0.0), 1.0) if end_s > 0 else 0.5
    return _SPARK_EDGE + at * (_SPARK_WIDTH - 2 * _SPARK_EDGE)


def _y(value: float) -> float:
    return _SPARK_EDGE + (1 - value) * (_SPARK_HEIGHT - 2 * _SPARK_EDGE)


def _by_run(
    chart_id: str, title: str, drift: Drift, value: Callable[[Tally], float], shade: str, usual: Change | None
) -> Markup:
    """A share by run, this one as the last and largest point; the usual share and its tolerance as a band."""
    runs: list[RunStats] = [*drift.earlier, drift.current]
    values = [value(each.total) if each.total.items else float("nan") for each in runs]
    with style():
        drawn = figure(_WIDTH_PX, _HEIGHT_PX)
        axes = drawn.add_axes((0.13, 0.2, 0.85, 0.76))
        places = list(range(len(runs)))
        if usual:
            low, high = max(0.0, usual.usual - usual.tolerance), min(1.0, usual.usual + usual.tolerance)
            axes.axhspan(low, high, color=colour(shade), alpha=0.12, linewidth=0)
        axes.plot(places, values, "o-", color=colour(shade), linewidth=1.8, markersize=4, clip_on=False)
        axes.plot(places[-1:], values[-1:], "o", color=colour(shade), markersize=9, clip_on=False)
        _axes(axes, "night", "")
        axes.set_xlim(-0.4, len(runs) - 0.6)
        shown = sorted({0, len(runs) // 2, len(runs) - 1}) if len(runs) > 2 else places
        axes.set_xticks(shown, [runs[place].night[5:] for place in shown])
    told = ", ".join(f"{each.night}: {found:.1%}" for each, found in zip(runs, values, strict=True))
    return inline_svg(drawn, chart_id, title, told)


def _axes(axes: Axes, below: str, beside: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if value < 0 else f"{value:.0%}"))
    axes.tick_params(length=0, pad=6, labelcolor=colour("muted"))
    axes.set_xlabel(below, color=colour("muted"))
    axes.set_ylabel(beside, color=colour("muted"))
    axes.grid(axis="y", color=colour("rule"), linewidth=1)
    axes.set_axisbelow(True)
    axes.set_ylim(0, None)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(colour("muted"))
