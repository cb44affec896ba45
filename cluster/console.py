"""What the commands of `cluster` share towards the person who runs them.

Small on purpose and of its own: `cluster` knows jobs by their command line alone, so it imports nothing of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Exit(IntEnum):
    """Exit codes of these commands; `submit` and `attach` give the job's own."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


def say(line: str) -> None:
    """Prints a line on standard error."""
    print(line, file=sys.stderr, flush=True)


def guarded(run: Callable[[], int], name: str) -> int:
    """Runs a command; errors that a person can mend become one line and an exit code.

    `ValueError` is wrong usage, found before anything was done (2); `RuntimeError`, `ConnectionError` and
    `TimeoutError` are failures (1). A bug propagates with its traceback.
    """
    try:
        return run()
    except ValueError as error:
        say(f"fakesift {name}: {error}")
        return Exit.USAGE
    except (RuntimeError, ConnectionError, TimeoutError) as error:
        say(f"fakesift {name}: {error}")
        return Exit.FAILED


def parse(options: Any, command: str, doc: str | None, argv: list[str] | None) -> Any:
    """A command's options from its arguments; wrong ones end the process with code 2.

    `options` is a dataclass, or a union of them for subcommands. `doc` is the module's docstring, in which example
    commands stand on lines of their own.
    """
    import tyro

    lines = [f"\n$ {line}" if line.startswith("fakesift ") else line for line in (doc or "").splitlines()]
    return tyro.cli(
        options,
        args=argv,
        prog=f"fakesift {command}",
        description="\n".join(lines),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def shown(metavar: str, default: str) -> Any:
    """How an option that may be left out stands in the help."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")
