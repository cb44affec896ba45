"""Items whose content was scored under another name in, their rows out: one pass over the tables, no second look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch.schemas import ITEMS_VERSION, items_schema
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.digests import is_certain, sampled
from batch.scoring.ledger import LedgerFile, ledger_tables, read_groups
from batch.scoring.records import RETRIED, Item, ScoreUnit
from batch.scoring.tables import Recipe, twin_row
from batch.scoring.units import make_unit
from batch.scoring.write import UnitReport, write_twins
from batch.storage.base import Storage

_ROWS_A_UNIT = 1000

Twins = Mapping[bytes, Sequence[Item]]
"""Items by fingerprint."""


class TwinWriter:
    """Gives twins the rows of what was scored, and says which of them must be looked at after all."""

    def __init__(self, sink: Storage, inputs: Sequence[Storage], recipe: Recipe) -> None:
        self._sink, self._inputs, self._recipe = sink, inputs, recipe
        self.left: list[Item] = []
        """Their originals were not scored in this run: another night's work."""
        self.unlike: list[Item] = []
        """Equal checksums and unlike content, or an original that is gone: these are to be scored."""

    def write(self, twins: Twins, files: Sequence[LedgerFile], runs: Iterable[int]) -> Iterator[UnitReport]:
        """Commits the twins' rows.

        Args:
            twins: who waits.
            files: the ledger of earlier runs.
            runs: runs that are not in it, this one among them.
        """
        if not twins:
            return
        found: dict[bytes, dict[str, Any]] = {}
        for commit in read_commits(self._sink, self._commits(twins, files, runs)):
            found.update(self._originals(commit, twins))
        held: dict[int, list[tuple[Item, dict[str, Any]]]] = {}
        for mark, items in twins.items():
            for item in items:
                if mark not in found:
                    self.left.append(item)
                elif not self._same(item, found[mark]):
                    self.unlike.append(item)
                else:
                    held.setdefault(item.input, []).append((item, twin_row(item, found[mark], self._recipe)))
        for pairs in held.values():
            for start in range(0, len(pairs), _ROWS_A_UNIT):
                yield self._commit(pairs[start : start + _ROWS_A_UNIT])

    def _commits(self, twins: Twins, files: Sequence[LedgerFile], runs: Iterable[int]) -> Iterator[str]:
        """Keys of the commits in which originals may stand: found in the ledger, and all of the runs."""
        wanted = pa.array(list(twins), pa.binary(16))
        named: dict[str, None] = {}
        for table in ledger_tables(self._sink, files, ["fingerprint", "run", "unit", "bundle", "options"]):
            mine = pc.and_(
                pc.equal(table["bundle"], self._recipe.bundle), pc.equal(table["options"], self._recipe.options)
            )
            hits = table.filter(pc.and_(mine, pc.is_in(table["fingerprint"], value_set=wanted)))
            for run, unit in zip(hits["run"].to_pylist(), hits["unit"].to_pylist(), strict=True):
                named[f"commits/{run:06d}/{unit}.json"] = None
        yield from named
        yield from commit_keys(self._sink, runs)

    def _originals(self, commit: ScoreCommit, twins: Twins) -> dict[bytes, dict[str, Any]]:
        if (commit.bundle, commit.options) != (self._recipe.bundle, self._recipe.options):
            return {}
        found = {}
        wanted = pa.array([mark.hex() for mark in twins])
        for group in read_groups(self._sink, commit.items, ITEMS_VERSION):
            for row in group.filter(pc.is_in(group["fingerprint"], value_set=wanted)).to_pylist():
                if row["reason"] not in RETRIED:
                    found[bytes.fromhex(row["fingerprint"])] = row
        return found

    def _same(self, item: Item, original: Mapping[str, Any]) -> bool:
        """Whether a match holds; one by the store's checksum is checked by reading a part of both."""
        source = self._inputs[item.input]
        if is_certain(source, item.etag):
            return True
        home = next((each for each in self._inputs if each.root == original["input"]), None)
        if home is None:
            return False
        mine = sampled(source, item.key, item.size_bytes, item.etag)
        return mine is not None and mine == sampled(home, original["key"], original["size_bytes"], original["etag"])

    def _commit(self, pairs: Sequence[tuple[Item, dict[str, Any]]]) -> UnitReport:
        unit: ScoreUnit = make_unit([item for item, _ in pairs], f"twins of run {self._recipe.run}")
        table = pa.Table.from_pylist([row for _, row in pairs], schema=items_schema())
        return write_twins(self._sink, unit, table, self._recipe)
