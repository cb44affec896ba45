"""Items whose content was scored under another name in, their rows out: one pass over the tables, no second look."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch.ahead import mapped_ahead
from batch.records import Reason
from batch.schemas import ITEMS_VERSION, items_schema
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.digests import Digests, as_digests, find
from batch.scoring.ledger import LedgerFile, ledger_tables, read_groups
from batch.scoring.records import Item, ScoreUnit, tells_of_content
from batch.scoring.tables import Recipe, twin_row
from batch.scoring.units import make_unit
from batch.scoring.waiting import Verdict, Waiting
from batch.scoring.write import UnitReport, write_twins
from batch.storage.base import Storage

_ROWS_A_UNIT = 1000

Original = tuple[bytes, Verdict, dict[str, Any]]
"""A fingerprint, what it means for others with the same, and the row."""


class TwinWriter:
    """Gives twins the rows of what was scored, and says which of them must be looked at after all."""

    def __init__(self, sink: Storage, recipe: Recipe, in_time: Callable[[], bool] = lambda: True) -> None:
        """`in_time` is asked before each commit: what is not begun then is left."""
        self._sink, self._recipe, self._in_time = sink, recipe, in_time
        self._twins = Waiting()
        self.later = 0
        """Their originals were not looked at in this run, or took too long: another night's work."""
        self.apart = 0
        """Their originals met a fault, which need not be theirs: these are to be looked at, see `again`."""

    def write(self, twins: Waiting, files: Sequence[LedgerFile], runs: Iterable[int]) -> Iterator[UnitReport]:
        """Commits the twins' rows.

        Args:
            twins: who waits.
            files: the ledger of earlier runs.
            runs: runs that are not in it, this one among them.
        """
        if not twins or not self._in_time():
            return
        self._twins, wanted = twins, twins.marks()
        commits = read_commits(self._sink, self._commits(wanted, files, runs))
        for originals in mapped_ahead(lambda commit: self._originals(commit, wanted), commits):
            twins.settle(originals)
            if not self._in_time():
                return
        self.later, self.apart = twins.count(Verdict.LATER), twins.count(Verdict.APART)
        for _, of_input in itertools.groupby(twins.settled(Verdict.SHARED), key=lambda pair: pair[0].input):
            while pairs := list(itertools.islice(of_input, _ROWS_A_UNIT)):
                if not self._in_time():
                    return
                yield self._commit(pairs)

    def again(self) -> Iterator[Item]:
        """Those that are to be looked at, by INPUT."""
        return (item for item, _ in self._twins.settled(Verdict.APART))

    def _commits(self, wanted: Digests, files: Sequence[LedgerFile], runs: Iterable[int]) -> Iterator[str]:
        """Keys of the commits in which originals may stand: found in the ledger, and all of the runs."""
        named: dict[str, None] = {}
        for table in ledger_tables(self._sink, files, ["fingerprint", "run", "unit", "bundle", "options"]):
            mine = pc.and_(
                pc.equal(table["bundle"], self._recipe.bundle), pc.equal(table["options"], self._recipe.options)
            )
            hits = with_marks(table.filter(mine), wanted)
            for run, unit in zip(hits["run"].to_pylist(), hits["unit"].to_pylist(), strict=True):
                named[f"commits/{run:06d}/{unit}.json"] = None
        yield from named
        yield from commit_keys(self._sink, runs)

    def _originals(self, commit: ScoreCommit, wanted: Digests) -> list[Original]:
        if (commit.bundle, commit.options) != (self._recipe.bundle, self._recipe.options):
            return []
        return [
            (bytes.fromhex(row["fingerprint"]), _verdict(row["reason"]), row)
            for group in read_groups(self._sink, commit.items, ITEMS_VERSION)
            for row in with_marks(group, wanted).to_pylist()
        ]

    def _commit(self, pairs: Sequence[tuple[Item, dict[str, Any]]]) -> UnitReport:
        unit: ScoreUnit = make_unit([item for item, _ in pairs], f"twins of run {self._recipe.run}")
        rows = [twin_row(item, row, self._recipe) for item, row in pairs]
        return write_twins(self._sink, unit, pa.Table.from_pylist(rows, schema=items_schema()), self._recipe)


def _verdict(reason: str | None) -> Verdict:
    if tells_of_content(reason):
        return Verdict.SHARED
    return Verdict.LATER if reason == Reason.TIMEOUT else Verdict.APART


def with_marks(table: pa.Table, wanted: Digests) -> pa.Table:
    """Rows whose fingerprint, bytes or their hex digits, is one of the wanted. A hash set of them a call would cost
    more than the rows.
    """
    table = table.filter(table["fingerprint"].is_valid())
    marks = table["fingerprint"].to_pylist()
    digests = as_digests([bytes.fromhex(mark) if isinstance(mark, str) else mark for mark in marks])
    return table.filter(pa.array(find(wanted, digests) >= 0, pa.bool_()))
