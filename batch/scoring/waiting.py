"""Items that wait for another's outcome, and the outcomes that were found for them: in a file, not in memory.

A bucket that was copied to a new prefix is a million of them in one night.
"""

from __future__ import annotations

import pickle
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from batch.scoring.digests import Digests, as_digests
from batch.scoring.records import Item

_PAGE = 1000
_TABLES = """
create table items (number integer primary key, input integer, mark blob, data blob);
create table originals (mark blob primary key, verdict integer, data blob) without rowid;
"""


class Verdict(IntEnum):
    """What an original's outcome means for its twins. Of several originals the highest decides, of equal the last."""

    LATER = 0
    """It is tried again on another night, and so are they."""
    APART = 1
    """They are to be looked at themselves."""
    SHARED = 2
    """They have it too."""


class Waiting:
    """Items by fingerprint, in a temporary SQLite file, 400 bytes each, that goes with this object."""

    def __init__(self) -> None:
        """Opens nothing: most nights have none."""
        self._base: sqlite3.Connection | None = None
        self._count = 0

    def __len__(self) -> int:
        """How many items."""
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """All of them in the order in which they came."""
        return (item for item, _ in self._joined("left join originals on false", "number"))

    def add(self, item: Item) -> None:
        """Takes one in; it has a fingerprint."""
        if item.fingerprint is None:
            raise ValueError(f"twin: got {item.key} without a fingerprint, expected one with it")
        row = (item.input, item.fingerprint, _packed(item))
        self._open().execute("insert into items (input, mark, data) values (?, ?, ?)", row)
        self._count += 1

    def marks(self) -> Digests:
        """The fingerprints, sorted, each once: 16 bytes each."""
        if not self._count:
            return as_digests([])
        found = self._open().execute("select distinct mark from items")
        pages = iter(lambda: found.fetchmany(_PAGE), [])
        return np.unique(np.concatenate([as_digests([mark for (mark,) in page]) for page in pages]))

    def settle(self, originals: Iterable[tuple[bytes, Verdict, Mapping[str, Any]]]) -> None:
        """Takes in outcomes: fingerprint, verdict and the original's row."""
        self._open().executemany(
            "insert into originals values (?, ?, ?) on conflict (mark) do update set verdict = excluded.verdict, "
            "data = excluded.data where excluded.verdict >= originals.verdict",
            ((mark, int(verdict), _packed(dict(row))) for mark, verdict, row in originals),
        )

    def count(self, verdict: Verdict) -> int:
        """How many items have it; those without an original have `LATER`."""
        if not self._count:
            return 0
        query = "select count(*) from items left join originals using (mark) where coalesce(verdict, 0) = ?"
        (found,) = self._open().execute(query, (int(verdict),)).fetchone()
        return int(found)

    def settled(self, verdict: Verdict) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Items that have it, each with its original's row, by INPUT. A page is in memory."""
        return self._joined(f"join originals using (mark) where verdict = {int(verdict)}", "input, number")

    def _joined(self, join: str, order: str) -> Iterator[tuple[Item, dict[str, Any]]]:
        if not self._count:
            return
        query = f"select items.data, originals.data from items {join} order by {order}"  # noqa: S608  (our own words)
        found = self._open().execute(query)
        while page := found.fetchmany(_PAGE):
            for item, row in page:
                yield _unpacked(item), _unpacked(row) if row is not None else {}

    def _open(self) -> sqlite3.Connection:
        if self._base is None:
            folder = Path(tempfile.mkdtemp(prefix="fakesift-"))
            self._base = sqlite3.connect(folder / "twins.sqlite", check_same_thread=False)
            weakref.finalize(self, _drop, self._base, folder)
            self._base.executescript(_TABLES)
        return self._base


def _drop(base: sqlite3.Connection, folder: Path) -> None:
    """In whatever thread collects garbage."""
    base.close()
    shutil.rmtree(folder, ignore_errors=True)


def _packed(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _unpacked(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  (written by this process, into a folder of its own)
