"""What every job shares towards the person who runs it: exit codes and one-line errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_CODES = """\
Exit codes: 0 the accounting closes (with faults within --max-faults); 1 failed; 2 wrong usage, bad input or missing
permission, found before any task started; 3 faults are left and --strict was given; 4 scores drift and --strict was
given (score alone, and before 3); 130 interrupted."""


class Exit(IntEnum):
    """Exit codes of all jobs."""

    OK = 0
    FAILED = 1
    USAGE = 2
    FAULTS = 3
    DRIFT = 4
    INTERRUPTED = 130


def say(line: str) -> None:
    """Prints a line on standard error, where all progress goes."""
    print(line, file=sys.stderr, flush=True)


def listing(counts: Mapping[str, int]) -> str:
    """`no_face 4, several_faces 6`."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


@contextmanager
def begun() -> Iterator[None]:
    """Around what follows the first task, or as a decorator: what was wrong input before is a failure from here on.

    Raises:
        RuntimeError: in place of `ValueError` and `AccessError`.
    """
    from batch.storage.base import AccessError

    try:
        yield
    except (ValueError, AccessError) as error:
        raise RuntimeError(f"stopped: {error}") from error


def guarded(run: Callable[[], Exit], name: str) -> int:
    """Runs a job; errors that a person can mend become one line and an exit code.

    `ValueError` and `AccessError` before the first task are wrong input (2). Jobs turn later ones into
    `RuntimeError`, which is a failure (1), by `begun` or `batch.storage.base.under_way`. A bug propagates with its
    traceback.
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


def parse(
    options: type[T], command: str, doc: str | None, argv: list[str] | None, more: str = "", default: T | None = None
) -> T:
    """A command's options from its arguments; wrong ones end the process with code 2.

    `doc` is the module's docstring, in which example commands stand on lines of their own. `default` has the values of
    what is not given.
    """
    import tyro

    lines = [f"\n$ {line}" if line.startswith("fakesift ") else line for line in (doc or "").splitlines()]
    return tyro.cli(
        options,
        args=argv,
        prog=f"fakesift {command}",
        description="\n".join([*lines, "", more]),
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def shown(metavar: str, default: str) -> Any:
    """How an option that may be left out stands in the help."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")
