"""What the figures of trials say: means over seeds with intervals, and what each option does, in pairs.

Student's t for means of few values (Gosset 1908): with three seeds an interval is 4.3 standard errors to each side.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batch.model.tuning.recipe import Value
from batch.model.tuning.records import METRICS, Status, TrialResult

LEVEL = 0.95
MOST_VALUES = 8
"""Of an option whose effects are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean with its 95% interval."""

    value: float | None
    low: float | None
    """None for fewer than two values."""
    high: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Mean:
        """Of independent values; those that are no numbers do not count. The interval ends at what is possible."""
        finite = np.array([value for value in values if math.isfinite(value)], np.float64)
        count = len(finite)
        if count < 2:
            return cls(value=float(finite[0]) if count else None, low=None, high=None, count=count)
        from scipy.stats import t

        mean = float(finite.mean())
        reach = float(t.ppf(0.5 + LEVEL / 2, count - 1) * finite.std(ddof=1) / math.sqrt(count))
        return cls(value=mean, low=max(least, mean - reach), high=min(most, mean + reach), count=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationResult:
    """A configuration over its seeds."""

    id: str
    name: str
    trials: tuple[TrialResult, ...]
    """In order of seeds."""
    values: Mapping[str, Value]
    """Of the options that vary between trials, as they were resolved."""
    metrics: Mapping[str, Mean]
    """`loss`, `accuracy`, `auc` on validation, over the seeds that ended."""

    @property
    def complete(self) -> bool:
        """Whether every seed finished."""
        return all(result.status == Status.FINISHED for result in self.trials)

    @property
    def status(self) -> str:
        """`finished`, or what its trials came to."""
        return ", ".join(sorted({str(result.status) for result in self.trials}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What changing one option does while all others stay as they are."""

    name: str
    before: Value
    after: Value
    metric: str
    difference: Mean
    """After less before, over pairs of configurations (each its mean over seeds)."""


def by_configuration(
    results: Sequence[TrialResult], values: Mapping[str, Mapping[str, Value]], metric: str
) -> list[ConfigurationResult]:
    """The configurations, best first by the mean of `metric`; what did not finish comes last.

    Args:
        results: of all trials.
        values: of the options that vary, by configuration.
        metric: of `METRICS`.
    """
    grouped: dict[str, list[TrialResult]] = defaultdict(list)
    for result in results:
        grouped[result.trial.configuration_id].append(result)
    found = []
    for key, members in grouped.items():
        ordered = tuple(sorted(members, key=lambda result: result.trial.seed))
        ended = [result for result in ordered if result.status == Status.FINISHED] or list(ordered)
        means = {
            name: Mean.of(
                [result.validation[name] for result in ended if name in result.validation],
                0.0,
                math.inf if name == "loss" else 1.0,
            )
            for name in METRICS
        }
        name = next((result.trial.name for result in ordered if result.trial.name), "")
        found.append(ConfigurationResult(id=key, name=name, trials=ordered, values=values[key], metrics=means))
    return sorted(found, key=lambda entry: _rank(entry, metric))


def chosen(configurations: Sequence[ConfigurationResult], metric: str) -> ConfigurationResult | None:
    """The best by the mean over seeds, of those whose every seed finished; None if none did."""
    complete = [entry for entry in configurations if entry.complete and entry.metrics[metric].value is not None]
    return min(complete, key=lambda entry: _rank(entry, metric)) if complete else None


def effects(
    configurations: Sequence[ConfigurationResult],
    names: Sequence[str],
    metric: str,
    followers: Mapping[str, frozenset[str]] | None = None,
) -> list[Effect]:
    """For each option and two of its values, over the pairs of configurations that differ in it alone.

    Options of more than `MOST_VALUES` values, as draws of a range have, are left out: hardly two agree in the rest.
    Where there is no such pair since other options follow from this one (`Grid.followers`), those may differ too, and
    each side is taken at its best.
    """
    done = [entry for entry in configurations if entry.complete and entry.metrics[metric].value is not None]
    found: list[Effect] = []
    for name in names:
        values = {entry.values[name] for entry in done}
        order = sorted(values, key=_sorted_by) if len(values) <= MOST_VALUES else []
        for before, after in itertools.combinations(order, 2):
            pairs = _pairs(done, metric, before, after, name, frozenset())
            if not pairs:
                pairs = _pairs(done, metric, before, after, name, (followers or {}).get(name, frozenset()))
            if pairs:
                difference = Mean.of(pairs)
                found.append(Effect(name=name, before=before, after=after, metric=metric, difference=difference))
    return found


def _pairs(
    done: Sequence[ConfigurationResult], metric: str, before: Value, after: Value, name: str, free: frozenset[str]
) -> list[float]:
    """Differences between configurations that agree in all but this option and the free ones."""
    best = min if METRICS[metric] == "min" else max
    groups: dict[tuple[tuple[str, Value], ...], dict[Value, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in done:
        rest = tuple((key, value) for key, value in entry.values.items() if key != name and key not in free)
        groups[rest][entry.values[name]].append(entry.metrics[metric].value or 0.0)
    return [best(group[after]) - best(group[before]) for group in groups.values() if {before, after} <= group.keys()]


def better(metric: str, difference: float) -> bool:
    """Whether a difference is for the better."""
    return difference < 0 if METRICS[metric] == "min" else difference > 0


def _rank(entry: ConfigurationResult, metric: str) -> tuple[bool, bool, float, str]:
    value = entry.metrics[metric].value
    signed = 0.0 if value is None else (value if METRICS[metric] == "min" else -value)
    return (value is None, not entry.complete, signed, entry.id)


def _sorted_by(value: Value) -> tuple[str, float, str]:
    if isinstance(value, (int, float)):
        return ("", float(value), "")
    return (type(value).__name__, float(len(value)) if isinstance(value, tuple) else 0.0, str(value))
