"""Tallies in, what a preprocessing page says of the files out: frame sizes, durations, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from batch.reports.bounded import Distribution, Tally, binned, nice_edges
from batch.reports.charts import LegendRow, Mark, histogram, proportions, stacked_rows
from batch.reports.page import duration, share
from batch.reports.tally import Outcomes
from batch.shards.summary import Summary

_MAX_SIZE_ROWS, _MAX_NAMES = 8, 6
_STAGES = {
    **{"read": "stage-1", "open": "stage-7", "decode": "stage-2", "detect": "stage-3"},
    **{"crop": "stage-4", "encode": "stage-8", "write": "stage-5"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What the files are."""

    frame_sizes: Markup | None
    durations: Markup | None
    median_s: float
    codecs: str
    frame_rates: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Where the time of the tasks went."""

    bar: Markup
    rows: tuple[LegendRow, ...]
    total_s: float


def clips(outcomes: Outcomes) -> Clips:
    """Frame sizes, durations, codecs and frame rates of all files that could be opened."""
    top, rest = outcomes.frame_sizes.top(_MAX_SIZE_ROWS)
    rows = [(f"{width} × {height}", {"stage-1": number}) for (width, height), number in top]
    rows += [("all others", {"unknown": rest})] if rest else []
    told = "; ".join(f"{name}: {sum(row.values()):,}" for name, row in rows)
    durations = outcomes.durations_s
    return Clips(
        frame_sizes=stacked_rows("frame-sizes", "Videos by frame size", told, rows) if rows else None,
        durations=_durations(durations) if durations.total else None,
        median_s=durations.quantile(0.5) if durations.total else 0.0,
        codecs=_listed(outcomes.codecs),
        frame_rates=_listed(outcomes.frame_rates),
    )


def _durations(durations: Distribution) -> Markup:
    median = durations.quantile(0.5)
    edges = nice_edges(max(durations.quantile(0.995), 1.0), durations.step, 30)
    told = f"{durations.total:,} videos, median {duration(median)}"
    marks = [Mark(value=median, text=f"median {median:g} s")]
    layers = {"stage-1": binned(durations, edges)}
    return histogram("durations", "Durations of the videos", told, layers, marks, "duration, s")


def _listed(tally: Tally[str] | Tally[float]) -> str:
    top, rest = tally.top(_MAX_NAMES)
    texts = [f"{name:g}" if isinstance(name, float) else str(name) for name, _ in top]
    told = [f"{text} ({number:,})" for text, (_, number) in zip(texts, top, strict=True)]
    return ", ".join([*told, f"others ({rest:,})"] if rest else told)


def stages(summary: Summary) -> Stages | None:
    """The time of all tasks by stage; None if none was measured."""
    spent = {name: max(0.0, value) for name, value in summary.seconds.items() if name not in {"wall", "hidden"}}
    order = [name for name in _STAGES if name in spent] + sorted(set(spent) - set(_STAGES))
    total = max(summary.seconds.get("wall", 0.0), sum(spent.values()))
    if not total:
        return None
    values = [*((name, spent[name]) for name in order), ("other", total - sum(spent.values()))]
    rows = tuple(
        LegendRow(
            colour=_STAGES.get(name, "stage-6"),
            name=name.capitalize(),
            code=name,
            value=value,
            text=duration(value),
            share=share(value, total),
            each=duration(value / summary.listed) if summary.listed else "",
        )
        for name, value in values
        if value > 0.0005
    )
    parts = [row.part for row in rows]
    return Stages(bar=proportions("stages", "Time of the tasks by stage", parts), rows=rows, total_s=total)
