"""Values in, one self-contained HTML page out: the template environment that all reports share.

Pages load nothing, run nothing and escape every text: names of files and messages of decoders come from strangers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A table of settings with its title."""

    title: str
    rows: tuple[tuple[str, str], ...]


def render(template: str, values: Mapping[str, object]) -> bytes:
    """The page as UTF-8. A name that the template uses and `values` lacks raises `jinja2.UndefinedError`."""
    # Names of local files may hold bytes that are no text: shown as escapes rather than refused.
    return _environment().get_template(template).render(values).encode("utf-8", "backslashreplace")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(count=count, share=share, size=size, duration=duration)
    return made


def count(value: int) -> str:
    """`1234567` as `1,234,567`."""
    return f"{value:,}"


def share(part: float, whole: float) -> str:
    """A percentage that is 0% or 100% only if it is exactly so; a dash where there is no whole."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


def size(size_bytes: float) -> str:
    """Bytes in decimal units: `470 GB`."""
    value, unit = float(size_bytes), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_SIZES[unit]}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8.4 ms`, `12.3 s`, `3 min 20 s`, `5 h 12 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def settings(title: str, values: Mapping[str, object]) -> tuple[Named, ...]:
    """Nested settings as one table a level: scalars under `title`, each mapping in it under its own name."""
    flat = tuple((name, _plain(value)) for name, value in values.items() if not isinstance(value, Mapping))
    tables = [Named(title=title, rows=flat)] if flat else []
    for name, value in values.items():
        if isinstance(value, Mapping):
            tables += settings(name, value)
    return tuple(tables)


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(item) for item in value) or "–"
    return str(value)
