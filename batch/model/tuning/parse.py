"""A YAML document in, a grid out: checked wholly before any trial starts, every error with its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batch.model.tuning.grid import KINDS, Axis, Domain, Grid, Kind, Row
from batch.model.tuning.recipe import Configuration, Value, checked_value, is_number, is_whole, option_types


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
    unknown = [key for key in given if key not in (*KINDS, "when")]
    kinds = [kind for kind in KINDS if kind in given]
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
