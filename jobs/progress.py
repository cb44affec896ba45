"""How far a job is: a bar on a terminal, one log line every ten seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from jobs.console import say

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LOG_EVERY_S = 10.0
# The first tasks load their libraries: an end foretold from them would be far off.
_TOLD_FROM = 0.05
_SHOWN = {
    **{"kept": ("kept", "green"), "scored": ("scored", "green")},
    **{"set_aside": ("set aside", "yellow"), "fault": ("faults", "red")},
}


class Progress(Protocol):
    """Shows how far a job is."""

    def total(self, items: int) -> None:
        """Tells how many there are, once that is known."""

    def add(self, counts: Counter[str]) -> None:
        """Adds finished ones: `kept`, `scored`, `set_aside`, `fault` are shown; `before` is from an earlier run."""


@contextmanager
def progress(what: str = "videos") -> Iterator[Progress]:
    """Shows the progress of `what` on standard error."""
    if sys.stderr.isatty():
        with _bar(what) as bar:
            yield bar
    else:
        lines = _Lines(what)
        yield lines
        lines.say()


class _Tally:
    """Counts and the rate since the start."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total: int | None = None
        self._start = time.monotonic()

    @property
    def seen(self) -> int:
        """Finished ones, earlier runs included."""
        return self.counts.total()

    @property
    def done(self) -> int:
        """Finished in this run."""
        return self.seen - self.counts["before"]

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return max(1e-9, time.monotonic() - self._start)

    def left_s(self) -> float | None:
        """Seconds to the end at the present rate, once that means something."""
        if not self.total or not self.done or self.seen >= self.total or self.done < _TOLD_FROM * self.total:
            return None
        return (self.total - self.seen) * self.elapsed_s / self.done


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._tally = _Tally()
        self._said = time.monotonic()

    def total(self, items: int) -> None:
        self._tally.total = items

    def add(self, counts: Counter[str]) -> None:
        self._tally.counts += counts
        if time.monotonic() - self._said >= LOG_EVERY_S:
            self.say()

    def say(self) -> None:
        tally = self._tally
        if not tally.done:
            return
        self._said = time.monotonic()
        parts = [f"{tally.seen}/{tally.total or '?'} {self._what}", f"{tally.done / tally.elapsed_s:.1f}/s"]
        parts += [f"{tally.counts[name]} {text}" for name, (text, _) in _SHOWN.items() if tally.counts[name]]
        left_s = tally.left_s()
        say(", ".join([*parts, *([f"{clock(left_s)} left"] if left_s else [])]))


def clock(seconds: float) -> str:
    """As `1:02:03`."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(30), MofNCompleteColumn(), TextColumn("{task.description} {task.fields[told]}"))
    with RichProgress(*columns, console=Console(stderr=True)) as shown:
        yield _Bar(shown, what)


class _Bar:
    def __init__(self, shown: RichProgress, what: str) -> None:
        self._shown = shown
        self._task = shown.add_task(what, total=None, told="")
        self._tally = _Tally()

    def total(self, items: int) -> None:
        self._tally.total = items
        self._shown.update(self._task, total=items)

    def add(self, counts: Counter[str]) -> None:
        tally = self._tally
        tally.counts += counts
        told = [f"{tally.done / tally.elapsed_s:.1f}/s"]
        told += [f"[{hue}]{tally.counts[name]} {text}[/]" for name, (text, hue) in _SHOWN.items() if tally.counts[name]]
        left_s = tally.left_s()
        told += [f"{clock(left_s)} left"] if left_s else []
        self._shown.update(self._task, completed=tally.seen, told="  ".join(told))
