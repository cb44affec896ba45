"""Items in listing order in, the same newest first out, through a file: a night's limit must not cost memory."""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.scoring.records import Item

_PAGE = 1000


def newest_first(items: Iterable[Item]) -> Iterator[Item]:
    """All items by falling modification time; of equal ones in the order given.

    Holds a page in memory; the rest lies in a temporary SQLite file, 300 bytes an item, that goes with the iterator.
    """
    with tempfile.TemporaryDirectory(prefix="fakesift-") as folder:
        base = sqlite3.connect(Path(folder) / "items.sqlite")
        try:
            base.execute("create table items (modified_s real, data blob)")
            rows = ((item.modified_s, pickle.dumps(item, pickle.HIGHEST_PROTOCOL)) for item in items)
            base.executemany("insert into items values (?, ?)", rows)
            found = base.execute("select data from items order by modified_s desc, rowid")
            while page := found.fetchmany(_PAGE):
                for (data,) in page:
                    yield pickle.loads(data)  # noqa: S301  (written a moment ago, into a folder of our own)
        finally:
            base.close()
