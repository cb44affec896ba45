"""Folders for copies of faces and of weights on a machine's own disk, which outlive no process for long.

`tempfile` removes its folders when a process ends by itself. A killed one leaves them: so each holds a file under a
`flock`, which the kernel drops with the process, and whoever makes such a folder next removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PREFIX = "fakesift-scratch-"
_HELD = "held"
# Between the making of a folder and its lock lie microseconds.
_YOUNG_S = 60.0


class ScratchFolder:
    """A new empty folder at `path`, which `close` removes, as does the end of the process."""

    def __init__(self) -> None:
        """Removes what killed processes left, too."""
        sweep_scratch()
        self._outer = tempfile.TemporaryDirectory(prefix=_PREFIX)
        outer = Path(self._outer.name)
        self._held = (outer / _HELD).open("wb")
        with suppress(OSError):  # a file system without locks: `sweep_scratch` finds none either
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self.path = outer / "files"
        """The folder."""
        self.path.mkdir()

    def __enter__(self) -> Path:
        """The folder."""
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes it."""
        self.close()

    def close(self) -> None:
        """Removes it."""
        self._outer.cleanup()
        self._held.close()


def sweep_scratch() -> int:
    """Removes the folders of killed processes of this machine, and gives their number; others' are left alone."""
    return sum(_swept(folder) for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))


def _swept(folder: Path) -> bool:
    held = folder / _HELD
    try:
        if time.time() - held.stat().st_mtime < _YOUNG_S:
            return False
        with held.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # the lock of a living process, another user's folder, or gone meanwhile
        return False
    return True
