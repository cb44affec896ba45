"""What every job shares towards the person who runs it: exit codes, one-line errors, progress."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol

LOG_EVERY_S = 10.0

EXIT_CODES = """\
Exit codes: 0 the accounting closes (with faults within --max-faults); 1 failed; 2 wrong usage, bad input or missing
permission, found before any task started; 3 faults are left and --strict was given; 130 interrupted."""


class Exit(IntEnum):
    """Exit codes of all jobs."""

    OK = 0
    FAILED = 1
    USAGE = 2
    FAULTS = 3
    INTERRUPTED = 130


def say(line: str) -> None:
    """Prints a line on standard error, where all progress goes."""
    print(line, file=sys.stderr, flush=True)


def guarded(run: Callable[[], Exit], name: str) -> int:
    """Runs a job; errors that a person can mend become one line and an exit code.

    `ValueError` and `AccessError` before the first task are wrong input (2). Jobs turn later ones into
    `RuntimeError`, which is a failure (1). A bug propagates with its traceback.
    """
    from batch.storage.base import AccessError, StorageError

    try:
        return run()
    except (ValueError, AccessError) as error:
        say(f"fakesift {name}: {error}")
        return Exit.USAGE
    except (RuntimeError, StorageError, ConnectionError) as error:
        say(f"fakesift {name}: {error}")
        return Exit.FAILED


class Progress(Protocol):
    """Shows how far a job is."""

    def total(self, videos: int) -> None:
        """Tells how many videos there are, once that is known."""

    def add(self, counts: Counter[str]) -> None:
        """Adds finished videos: `kept`, `set_aside`, `fault`; `before` for videos of an earlier run."""


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on a terminal; one log line every ten seconds otherwise."""
    if sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        lines = _Lines()
        yield lines
        lines.last()


class _Lines:
    def __init__(self) -> None:
        self._start = self._said = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._total: int | None = None

    def total(self, videos: int) -> None:
        self._total = videos

    def add(self, counts: Counter[str]) -> None:
        self._counts += counts
        if time.monotonic() - self._said >= LOG_EVERY_S:
            self.last()

    def last(self) -> None:
        self._said = time.monotonic()
        elapsed_s = max(1e-9, self._said - self._start)
        seen = self._counts.total()
        done = seen - self._counts["before"]
        if not done:
            return
        left_s = (self._total - seen) * elapsed_s / done if self._total else None
        say(
            f"{seen}/{'?' if self._total is None else self._total} videos, {done / elapsed_s:.1f}/s, "
            f"{self._counts['kept']} kept, {self._counts['set_aside']} set aside, {self._counts['fault']} faults"
            + (f", {_clock(left_s)} left" if left_s else "")
        )


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    fields = (
        "[green]{task.fields[kept]} kept[/] [yellow]{task.fields[aside]} aside[/] [red]{task.fields[bad]} faults[/]"
    )
    columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[rate]}/s"), TextColumn(fields))
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        yield _Bar(shown)


class _Bar:
    def __init__(self, shown: object) -> None:
        from rich.progress import Progress as RichProgress

        assert isinstance(shown, RichProgress)
        self._shown = shown
        self._task = shown.add_task("videos", total=None, kept=0, aside=0, bad=0, rate="-")
        self._counts: Counter[str] = Counter()
        self._start = time.monotonic()

    def total(self, videos: int) -> None:
        self._shown.update(self._task, total=videos)

    def add(self, counts: Counter[str]) -> None:
        self._counts += counts
        done = self._counts.total()
        rate = f"{(done - self._counts['before']) / max(1e-9, time.monotonic() - self._start):.1f}"
        kept, aside, bad = (self._counts[name] for name in ("kept", "set_aside", "fault"))
        self._shown.update(self._task, completed=done, kept=kept, aside=aside, bad=bad, rate=rate)
