"""Which configurations are tried: named rows, and a space of options with conditions between them.

In: a YAML document, or `ablation.ablation_grid`. Out: configurations, all of them or drawn ones. Everything is checked
before a trial starts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from batch.model.tuning.recipe import Configuration, Value, checked_value, is_number, is_whole, option_types

Kind = Literal["choices", "range", "log"]
_KINDS: tuple[Kind, ...] = ("choices", "range", "log")
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


def parse_grid(document: object) -> Grid:
    """The grid that a YAML document describes: `fixed`, `rows` and `grid`, each of which may be missing.

    Raises:
        ValueError: naming the key, what was received, and what is expected.
    """
    parts = _mapping(document, "the file", "a mapping with any of: fixed, rows, grid")
    for name in parts:
        if name not in ("fixed", "rows", "grid"):
            raise ValueError(f"grid: unknown key {name!r}, expected fixed, rows or grid")
    fixed = _configuration(parts.get("fixed") or {}, "fixed")
    rows = tuple(_row(given, number, fixed) for number, given in enumerate(_list(parts.get("rows") or [], "rows"), 1))
    axes: list[Axis] = []
    for name, given in _mapping(parts.get("grid") or {}, "grid", "a mapping from options to values").items():
        if name in fixed:
            raise ValueError(f"grid: {name}: stands in fixed too, expected in one of them")
        axes.append(_axis(str(name), given, axes, fixed))
    if not axes and not rows:
        raise ValueError("grid: nothing to try: received neither rows nor options under grid, expected some")
    return Grid(fixed=fixed, rows=rows, axes=tuple(axes))


def _row(given: object, number: int, fixed: Configuration) -> Row:
    values = dict(_mapping(given, f"rows, entry {number}", "a mapping from options to values"))
    name = str(values.pop("name", f"row {number}"))
    for key in values:
        if key in fixed:
            raise ValueError(f"grid: rows, entry {number}: {key}: stands in fixed too, expected in one of them")
    return Row(name=name, configuration=_configuration(values, f"rows, entry {number}"))


def _axis(name: str, given: object, before: Sequence[Axis], fixed: Configuration) -> Axis:
    many = isinstance(given, list) and bool(given) and all(isinstance(each, Mapping) for each in given)
    alternatives = given if many and isinstance(given, list) else [given]
    return Axis(name=name, domains=tuple(_domain(name, each, before, fixed) for each in alternatives))


def _domain(name: str, given: object, before: Sequence[Axis], fixed: Configuration) -> Domain:
    if not isinstance(given, Mapping):
        return _choices(name, given, ())
    unknown = [key for key in given if key not in (*_KINDS, "when")]
    kinds = [kind for kind in _KINDS if kind in given]
    if unknown or len(kinds) != 1:
        raise ValueError(f"grid: {name}: received {dict(given)}, expected one of choices, range or log, and when")
    when = _conditions(name, given.get("when") or {}, before, fixed)
    if kinds[0] == "choices":
        return _choices(name, given["choices"], when)
    return _range(name, kinds[0], given[kinds[0]], when)


def _choices(name: str, given: object, when: tuple[tuple[str, tuple[Value, ...]], ...]) -> Domain:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise ValueError(f"grid: {name}: received no choice, expected one or more")
    found = tuple(_value(name, value) for value in values)
    if len(set(found)) != len(found):
        raise ValueError(f"grid: {name}: received {values}, expected each value once")
    return Domain(kind="choices", values=found, when=when)


def _range(name: str, kind: Kind, given: object, when: tuple[tuple[str, tuple[Value, ...]], ...]) -> Domain:
    if name in option_types() and not is_number(name):
        raise ValueError(f"grid: {name}: received a {kind}, expected choices: it is no number")
    ends = [_value(name, end) for end in given] if isinstance(given, list) else []
    numbers = [float(end) for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(numbers) != 2 or len(ends) != 2 or not numbers[0] < numbers[1] or (kind == "log" and numbers[0] <= 0):
        above = ", both above 0" if kind == "log" else ""
        raise ValueError(f"grid: {name}: received {kind} {given!r}, expected [low, high] with low below high{above}")
    return Domain(kind=kind, low=numbers[0], high=numbers[1], whole=is_whole(name), when=when)


def _conditions(
    name: str, given: object, before: Sequence[Axis], fixed: Configuration
) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    known = {axis.name: axis for axis in before}
    found = []
    for other, values in _mapping(given, f"{name}: when", "a mapping from options to values").items():
        domain = _choices(f"{other}", values, ())
        possible = {value for each in known[other].domains for value in each.values} if other in known else None
        if possible is None and other not in fixed:
            raise ValueError(
                f"grid: {name}: when: {other} does not stand before it, expected one of "
                f"{', '.join([*known, *fixed]) or 'the options above it, of which there are none'}"
            )
        if possible is not None and not possible.issuperset(domain.values):
            raise ValueError(
                f"grid: {name}: when: {other}: received {list(domain.values)}, expected of {sorted(map(str, possible))}"
            )
        found.append((str(other), domain.values))
    return tuple(found)


def _configuration(given: object, where: str) -> Configuration:
    values = _mapping(given, where, "a mapping from options to values")
    return {str(name): _value(str(name), value) for name, value in values.items()}


def _value(name: str, value: object) -> Value:
    try:
        return checked_value(name, value)
    except ValueError as error:
        raise ValueError(f"grid: {error}") from None


def _mapping(given: object, where: str, expected: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"grid: {where}: received {given!r}, expected {expected}")
    return given


def _list(given: object, where: str) -> list[Any]:
    if not isinstance(given, list):
        raise ValueError(f"grid: {where}: received {given!r}, expected a list")
    return given
