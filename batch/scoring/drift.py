"""A run's summary and those of earlier runs in, alarm lines out: do scores, coverage and reasons look as they used to?

Scores are held against the pooled histogram of earlier runs by the population stability index over ten fixed bins of
the probability. Its usual reading (Siddiqi, Credit Risk Scorecards, 2006): under 0.1 little has changed, from 0.25 on
much has. That reading knows no sample size, and small nights pass it by chance: under no change the index is about
(1/n + 1/m) times a chi-squared value with one degree of freedom less than there are bins (Yurdakul and Naranjo,
Journal of Risk Model Validation, 2020), so that the alarm asks for both.

Coverage and the share of each reason are held against their pooled share, with the three standard deviations of a
control chart (Shewhart 1931) as tolerance, both of sampling and between the earlier runs, and five points at least.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.scoring.summary import ScoreSummary, Tally

EARLIER_RUNS = 14
LEAST_RUNS = 3
"""Earlier runs without which there is no saying what is usual."""
LEAST_ITEMS = 50
"""Under so many, a share moves by points with a single file."""
BINS = 10
MODERATE_PSI, LARGE_PSI = 0.1, 0.25
LEAST_CHANGE = 0.05
_CHI_SQUARED_999 = 27.877
"""The value that chi-squared with 9 degrees of freedom passes once in a thousand times."""
_EMPTY = 0.5
"""Added to every bin: the index is infinite where one of two bins is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStats:
    """What of a run later ones are held against; a few hundred bytes, whatever the run's size."""

    run: int
    night: str
    bundle: str
    options: str
    total: Tally
    inputs: Mapping[str, Tally]

    @classmethod
    def of(cls, summary: ScoreSummary) -> RunStats:
        """From `summary.json` or a file of `history/`."""
        return cls(
            run=summary.run, night=summary.night, bundle=summary.bundle, options=summary.options, total=summary.total,
            inputs=summary.inputs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A share of this run's items beside what is usual."""

    name: str
    """`coverage`, or a reason."""
    where: str
    """The INPUT; empty for all of them."""
    value: float
    usual: float
    tolerance: float
    is_alarm: bool

    @property
    def line(self) -> str:
        """For a person."""
        place = f" of {self.where}" if self.where else ""
        return f"{self.name}{place} is {self.value:.1%}, usually {self.usual:.1%} ± {100 * self.tolerance:.1f} points"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A run beside earlier ones."""

    current: RunStats
    earlier: tuple[RunStats, ...]
    """Up to `EARLIER_RUNS` that looked at something, oldest first."""
    usual: tuple[int, ...]
    """Pooled histogram of those with this run's bundle and options, in `BINS` bins; empty where there are too few."""
    psi: float | None
    """Of this run's scores; None where there is too little to compare."""
    psi_limit: float | None
    """From which on it is an alarm."""
    changes: tuple[Change, ...]
    alarms: tuple[str, ...]
    notes: tuple[str, ...]
    """What was not compared, and why."""


def compare(history: Iterable[ScoreSummary], summary: ScoreSummary) -> Drift:
    """Holds a run against those of `history` that came before it (`summary.read_history`), and are no part of it."""
    current = RunStats.of(summary)
    apart = (each for each in history if each.run < summary.run and each.run not in summary.runs)
    before = [RunStats.of(each) for each in apart if each.total.items]
    earlier = tuple(before[-EARLIER_RUNS:])
    notes: list[str] = []
    usual, psi, limit = _scores(current, earlier, notes)
    changes = _changes(current, earlier, notes)
    alarms = [change.line for change in changes if change.is_alarm]
    if psi is not None and limit is not None and psi >= limit:
        alarms.insert(
            0, f"scores are spread otherwise than usual: population stability index {psi:.2f}, limit {limit:.2f}"
        )
    return Drift(
        current=current, earlier=earlier, usual=usual, psi=psi, psi_limit=limit, changes=changes,
        alarms=tuple(alarms), notes=tuple(notes),
    )  # fmt: skip


def population_stability_index(counts: npt.ArrayLike, usual: npt.ArrayLike) -> float:
    """Sum over bins of (p - q) ln(p / q), 0 for equal shares; both of shape (bins,), counts."""
    found, expected = (np.asarray(each, np.float64) + _EMPTY for each in (counts, usual))
    p, q = found / found.sum(), expected / expected.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def coarse(histogram: Sequence[int]) -> tuple[int, ...]:
    """A stored histogram in `BINS` bins."""
    return tuple(int(count) for count in np.reshape(np.asarray(histogram), (BINS, -1)).sum(axis=1))


def _scores(
    current: RunStats, earlier: Sequence[RunStats], notes: list[str]
) -> tuple[tuple[int, ...], float | None, float | None]:
    """The pooled histogram, the index and its limit."""
    like = [each for each in earlier if (each.bundle, each.options) == (current.bundle, current.options)]
    if len(like) < LEAST_RUNS:
        notes.append(f"scores: {_runs(len(like))} with this bundle and these options, {LEAST_RUNS} are needed")
        return (), None, None
    usual = tuple(np.sum([coarse(each.total.histogram) for each in like], axis=0).tolist())
    few = min(current.total.scored, sum(usual))
    if few < LEAST_ITEMS:
        notes.append(f"scores: {few} scored items to compare, {LEAST_ITEMS} are needed")
        return usual, None, None
    psi = population_stability_index(coarse(current.total.histogram), usual)
    chance = _CHI_SQUARED_999 * (1 / current.total.scored + 1 / sum(usual))
    return usual, psi, max(LARGE_PSI, chance)


def _changes(current: RunStats, earlier: Sequence[RunStats], notes: list[str]) -> tuple[Change, ...]:
    """Coverage in all and by INPUT, then reasons; of runs with the same options, whatever their bundle."""
    like = [each for each in earlier if each.options == current.options]
    if len(like) < LEAST_RUNS:
        notes.append(f"coverage and reasons: {_runs(len(like))} with these options, {LEAST_RUNS} are needed")
        return ()
    found = []
    inputs = current.inputs if len(current.inputs) > 1 else {}
    for where in ("", *inputs):
        now = current.inputs[where] if where else current.total
        past = [each.inputs[where] if where else each.total for each in like if not where or where in each.inputs]
        names = ["coverage", *({**now.set_aside, **now.faults} if not where else {})]
        if now.items < LEAST_ITEMS or len(past) < LEAST_RUNS or sum(each.items for each in past) < LEAST_ITEMS:
            notes.append(f"coverage{f' of {where}' if where else ' and reasons'}: too few items to compare")
            continue
        found += [_change(name, where, now, past) for name in names]
    return tuple(found)


def _change(name: str, where: str, now: Tally, past: Sequence[Tally]) -> Change:
    items, hits = sum(each.items for each in past), sum(_hits(each, name) for each in past)
    # Half an item more on either side: a share of exactly 0 or 1 would have no spread at all.
    usual = (hits + 0.5) / (items + 1)
    by_chance = math.sqrt(usual * (1 - usual) * (1 / now.items + 1 / items))
    shares = [_hits(each, name) / each.items for each in past if each.items >= LEAST_ITEMS]
    between = statistics.stdev(shares) if len(shares) > 1 else 0.0
    tolerance = max(LEAST_CHANGE, 3 * by_chance, 3 * between)
    value = _hits(now, name) / now.items
    beyond = value - usual if name != "coverage" else abs(value - usual)
    return Change(
        name=name, where=where, value=value, usual=hits / items, tolerance=tolerance, is_alarm=beyond > tolerance
    )


def _hits(tally: Tally, name: str) -> int:
    if name == "coverage":
        return tally.scored
    return Counter(tally.set_aside)[name] + Counter(tally.faults)[name]


def _runs(count: int) -> str:
    return f"{count or 'no'} earlier run{'' if count == 1 else 's'}"
