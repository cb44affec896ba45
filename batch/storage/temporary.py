"""Temporary files of local writers: made under a lock, and told from those whose writer was killed.

A writer holds a `flock` on its file until the file is renamed or removed, and the kernel drops the lock with the
writer's death. A lock says nothing about writers on another machine (file systems differ in whether they pass it on),
so a file's name carries the boot of the kernel that made it: of the same boot, whatever container, the lock decides;
of another one, the time since the last write does.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path

from batch.storage.keys import RESERVED

TEMPORARY = f"{RESERVED}tmp-"
# A file is written in seconds. A writer that stood still for an hour loses its file and ends with a clear error.
LONGEST_WRITE_S = 3600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def temporary_file(folder: Path, data: bytes) -> Iterator[Path]:
    """A synchronized file with the content in `folder`, under a lock; gone afterwards unless it was renamed."""
    path, file = _create(folder)
    try:
        with file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
            yield path
    finally:
        path.unlink(missing_ok=True)


def is_dead(path: Path, *, remove: bool = False) -> bool:
    """Whether the writer of a hidden file is surely dead; if so, `remove` deletes it. False where nobody can tell."""
    try:
        old = time.time() - path.stat().st_mtime > LONGEST_WRITE_S
        if not old and not path.name.startswith(f"{TEMPORARY}{_boot()}-"):
            return False
        with path.open("r+b") as file:
            if not old:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if remove:  # while the lock is held: see `_create`
                path.unlink()
    except OSError:  # also the lock of a living writer
        return False
    return True


def _create(folder: Path) -> tuple[Path, FileIO]:
    while True:
        path = folder / f"{TEMPORARY}{_boot()}-{uuid.uuid4().hex}"
        # Not `tempfile`: its files are readable by their owner alone, and would stay so.
        file = FileIO(path, "xb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # it was taken for a dead writer's before it was locked


@lru_cache(maxsize=1)
def _boot() -> str:
    """The boot of the running kernel; what no other process has where the system does not tell it."""
    return (_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(uuid.uuid4())).replace("-", "")
