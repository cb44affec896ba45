"""What one training run is made of, and how single options of it are changed by name."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin

from batch.faces.options import digest_of
from batch.model.fit.options import FitOptions
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions

Value = str | int | float | bool | None | tuple[int, ...]
"""What an option may be set to."""
Configuration = Mapping[str, Value]
"""Options by their names on `fakesift train`'s command line, with underscores."""

_KEPT = ("seed", "backend", "checkpoint_minutes", "checkpoint_steps", "cache", "cache_mb")
"""No grid may set these: `--seeds` gives seeds, a process holds one backend, the others shape no model."""
_OF_ALL = (*_KEPT, "split", "validation", "test", "workers", "slices", "prevalence")
"""Options of training that are those of all trials: what differed in their split could not be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options of one training run, without its split."""

    network: NetworkOptions
    data: DataOptions
    fit: FitOptions

    def changed(self, configuration: Configuration, seed: int | None = None) -> Recipe:
        """With these options set, and the seed of everything but the split.

        Raises:
            ValueError: for an unknown option, or a value that cannot be; the option is named.
        """
        values: dict[str, Any] = {name: checked_value(name, value) for name, value in configuration.items()}
        if seed is not None:
            values["seed"] = seed
        parts: dict[str, Any] = {}
        for name, part in (("network", self.network), ("data", self.data), ("fit", self.fit)):
            mine = {field.name: values[field.name] for field in fields(part) if field.name in values}
            parts[name] = replace(part, **mine)
        return Recipe(**parts)

    def value(self, name: str) -> Value:
        """Of an option."""
        for part in (self.network, self.data, self.fit):
            if any(field.name == name for field in fields(part)):
                found: Value = getattr(part, name)
                return found
        raise ValueError(f"unknown option {name!r}, expected one of {', '.join(option_types())}")

    def shown(self, name: str) -> Value:
        """Of an option; None where it has nothing to say, such as the momentum of adam."""
        heads, whole = self.network.pretrained and self.fit.head_epochs > 0, self.fit.epochs > 0
        silent = {
            "momentum": self.fit.optimizer != "sgd",
            "plateau_patience": self.fit.schedule != "plateau",
            "plateau_factor": self.fit.schedule != "plateau",
            "learning_rate": not whole,
            "unfreeze": not whole or not self.network.pretrained,
            "norms": not whole or not self.network.pretrained,
            "head_learning_rate": not heads,
            "head_epochs": not self.network.pretrained,
        }
        return None if silent.get(name, False) else self.value(name)

    def digest(self) -> str:
        """Ten hex digits of all that shapes the result but the seed."""
        flat = {f"{part}.{name}": value for part, values in asdict(self).items() for name, value in values.items()}
        return digest_of({name: value for name, value in flat.items() if name.split(".")[1] not in _KEPT})[:10]

    @property
    def is_frozen(self) -> bool:
        """Whether only a head is trained, on a backbone that never changes."""
        return self.network.pretrained and self.fit.epochs == 0

    @property
    def epochs(self) -> int:
        """Most epochs of both stages."""
        return self.fit.epochs + (self.fit.head_epochs if self.network.pretrained else 0)


@cache
def option_types() -> dict[str, Any]:
    """The options that a grid may set, with their types."""
    found: dict[str, Any] = {}
    for part in (NetworkOptions, DataOptions, FitOptions):
        found |= typing.get_type_hints(part)
    return {name: kind for name, kind in found.items() if name not in _KEPT}


def checked_value(name: str, value: object) -> Value:
    """The value in the option's own type: lists as tuples, `1e-3` (which YAML reads as a text) as a number.

    Raises:
        ValueError: for an unknown option, or a value of another type.
    """
    kinds = option_types()
    if name not in kinds:
        why = " (every trial has the same: see --seeds and the options of `fakesift tune`)" if name in _OF_ALL else ""
        raise ValueError(f"unknown option: received {name!r}{why}, expected one of {', '.join(kinds)}")
    return typing.cast("Value", as_type(name, kinds[name], value))


def as_type(name: str, kind: Any, value: object) -> object:
    """A value out of YAML as an annotation says. Raises ValueError, naming the option, for one that is not."""
    for each in _alternatives(kind):
        found = _as(each, value)
        if found is not _NOT_ONE:
            return found
    raise ValueError(f"bad {name}: received {value!r}, expected {_told(kind)}")


def is_number(name: str) -> bool:
    """Whether an option takes numbers, so that it may have a range."""
    return bool({int, float} & set(_alternatives(option_types()[name])))


def is_whole(name: str) -> bool:
    """Whether an option takes whole numbers alone."""
    kinds = set(_alternatives(option_types()[name]))
    return int in kinds and float not in kinds


_NOT_ONE = object()


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _as(kind: Any, value: object) -> object:
    """The value as one of this kind, or `_NOT_ONE`."""
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _NOT_ONE
    if get_origin(kind) is tuple:
        sizes = value if isinstance(value, (list, tuple)) else [value]
        whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
        return tuple(sizes) if whole else _NOT_ONE
    if kind is float:
        return _number(value)
    if isinstance(value, bool) is not (kind is bool):
        return _NOT_ONE
    return value if isinstance(value, kind) else _NOT_ONE


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _NOT_ONE
    try:
        return float(value)
    except ValueError:
        return _NOT_ONE


def _told(kind: Any) -> str:
    names = []
    for each in _alternatives(kind):
        if get_origin(each) is Literal:
            names += [repr(value) for value in get_args(each)]
        else:
            names.append(
                {int: "a whole number", float: "a number", str: "a text", types.NoneType: "null"}.get(each, "")
            )
    return " or ".join(name or "a list of whole numbers" for name in names)
