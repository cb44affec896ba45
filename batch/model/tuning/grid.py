"""Which configurations are tried: named rows, and a space of options with conditions between them.

In: what `parse.parse_grid` read, or `ablation.ablation_grid`. Out: configurations, all of them or drawn ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from batch.model.tuning.recipe import Configuration, Value

Kind = Literal["choices", "range", "log"]
KINDS: tuple[Kind, ...] = ("choices", "range", "log")
MOST_CONFIGURATIONS = 10_000
"""Of a cross product: more are a slip of the grid."""
_TRIES = 100
"""Draws for each new configuration, where a small space has few left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The values of one option."""

    kind: Kind
    """`choices`, a uniform `range`, or one that is uniform in the logarithm."""
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    """Of a range: whole numbers, both ends included."""
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Options that stand before this one, with the values that they must have."""

    def holds(self, chosen: Configuration) -> bool:
        """Whether the conditions are met."""
        return all(chosen.get(name) in values for name, values in self.when)

    def draw(self, rng: np.random.Generator) -> Value:
        """A value."""
        if self.kind == "choices":
            return self.values[int(rng.integers(len(self.values)))]
        if self.kind == "log":
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(round(value), int(self.high)) if self.whole else float(f"{value:.4g}")
        if self.whole:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        return float(f"{rng.uniform(self.low, self.high):.4g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An option that varies. The first domain whose conditions hold is its; none: the option stays as it was."""

    name: str
    domains: tuple[Domain, ...]

    def domain(self, chosen: Configuration) -> Domain | None:
        """Where the options before it are so chosen."""
        return next((domain for domain in self.domains if domain.holds(chosen)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A configuration with a name."""

    name: str
    configuration: Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is tried."""

    fixed: Configuration
    """The same in all trials."""
    rows: tuple[Row, ...]
    """Tried first."""
    axes: tuple[Axis, ...]
    quiet: tuple[str, ...] = ()
    """Options that vary, and that no table need tell: they follow from others."""

    @property
    def names(self) -> tuple[str, ...]:
        """The options that vary and are told, in order."""
        found = [axis.name for axis in self.axes]
        found += [name for row in self.rows for name in row.configuration if name not in self.fixed]
        return tuple(name for name in dict.fromkeys(found) if name not in self.quiet)

    @property
    def followers(self) -> dict[str, frozenset[str]]:
        """By option, those whose values depend on it."""
        found: dict[str, frozenset[str]] = {}
        for axis in reversed(self.axes):
            direct = {
                other.name
                for other in self.axes
                for domain in other.domains
                if axis.name in (name for name, _ in domain.when)
            }
            found[axis.name] = frozenset(direct.union(*(found.get(name, frozenset()) for name in direct)))
        return found

    def highest(self, name: str) -> float:
        """The largest number that any configuration sets an option to; 0 where none sets it."""
        domains = [domain for axis in self.axes if axis.name == name for domain in axis.domains]
        given = [value for domain in domains for value in (domain.values or (domain.high,))]
        given += [each[name] for each in (self.fixed, *(row.configuration for row in self.rows)) if name in each]
        return max((value for value in given if isinstance(value, (int, float))), default=0.0)

    def product(self) -> list[Configuration]:
        """Every combination, in order.

        Raises:
            ValueError: for a range, and for more than `MOST_CONFIGURATIONS` of them.
        """
        for axis in self.axes:
            for domain in axis.domains:
                if domain.kind != "choices":
                    raise ValueError(
                        f"grid: {axis.name}: received a {domain.kind} ({domain.low:g} to {domain.high:g}), expected "
                        "choices for --search grid; or --search random with --trials N"
                    )
        made = list(itertools.islice(self._expanded({}, 0), MOST_CONFIGURATIONS + 1))
        if len(made) > MOST_CONFIGURATIONS:
            raise ValueError(
                f"grid: more than {MOST_CONFIGURATIONS} configurations, expected fewer; or --search random"
            )
        return made if self.axes else []

    def drawn(self, count: int, seed: int) -> list[Configuration]:
        """So many different configurations, or as many as are found; the first n are the same for every count."""
        rng = np.random.default_rng([seed, 1])
        found: dict[tuple[tuple[str, Value], ...], Configuration] = {}
        for _ in range(count * _TRIES if self.axes else 0):
            made = self.chosen(lambda name, domain: domain.draw(rng))
            found.setdefault(tuple(sorted(made.items(), key=lambda item: item[0])), made)
            if len(found) == count:
                break
        return list(found.values())

    def chosen(self, choose: Callable[[str, Domain], Value]) -> Configuration:
        """One configuration, each value as `choose` says."""
        made: dict[str, Value] = dict(self.fixed)
        for axis in self.axes:
            domain = axis.domain(made)
            if domain is not None:
                made[axis.name] = choose(axis.name, domain)
        return made

    def row_configuration(self, row: Row) -> Configuration:
        """With what is fixed."""
        return {**self.fixed, **row.configuration}

    def _expanded(self, chosen: Mapping[str, Value], place: int) -> Iterator[Configuration]:
        made = {**self.fixed, **chosen}
        if place == len(self.axes):
            yield made
            return
        axis = self.axes[place]
        domain = axis.domain(made)
        if domain is None:
            yield from self._expanded(chosen, place + 1)
            return
        for value in domain.values:
            yield from self._expanded({**chosen, axis.name: value}, place + 1)
