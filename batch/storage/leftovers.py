"""A store in, our own hidden files in it out whose writers were killed. No listing shows them, and they may hold faces.

Only a folder has such files: an S3 object is there whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from batch.storage.base import Storage
from batch.storage.keys import RESERVED, key_of_name
from batch.storage.local import LocalStorage
from batch.storage.temporary import is_dead


def dead_files(sink: Storage, *, remove: bool = False) -> list[str]:
    """Uris of the hidden files whose writers are surely dead, removed if asked. Safe while jobs write there."""
    return [sink.uri(key) for key, path in _hidden(sink) if is_dead(path, remove=remove)]


def remove_all_hidden(sink: Storage) -> int:
    """Deletes every hidden file, also of living writers; gives their number. Not while a job writes there."""
    keys = [key for key, _ in _hidden(sink)]
    for key in keys:
        sink.delete(key)
    return len(keys)


def _hidden(sink: Storage) -> Iterator[tuple[str, Path]]:
    """Our hidden files below the root, in no order; links are followed, as listings follow them."""
    if not isinstance(sink, LocalStorage):
        return
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(sink.root, followlinks=True):
        found = Path(place).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        for name in names:
            if name.startswith(RESERVED):
                path = Path(place, name)
                yield key_of_name(str(path.relative_to(sink.root))), path
