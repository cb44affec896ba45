"""A scoring output in, everything that does not hold in it out: every file is read again.

Holds: each file that a commit names is there, has its digest, size, schema and rows; a commit's counts are those of its
rows; every item of a run stands in one commit; tracks are of scored items; the ledger has the rows of the runs that it
names, and no others; the summary is the last run's. What a run at work has not committed yet looks like an orphan.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batch.schemas import FACES_VERSION, ITEMS_VERSION, LEDGER_VERSION, TRACKS_VERSION
from batch.scoring.commit import ITEMS, TRACKS, ScoreCommit, commit_keys, read_commits
from batch.scoring.digests import DigestSet, digest16
from batch.scoring.ledger import LEDGER, LedgerFile, open_runs, read_ledger_files
from batch.scoring.runs import run_numbers
from batch.scoring.summary import read_history
from batch.shards.commit import FACES, DataFile, sha256
from batch.shards.findings import Findings, Kind
from batch.shards.runfile import read_run
from batch.shards.summary import SUMMARY
from batch.shards.verify import VerifyReport
from batch.storage.base import DamagedError, MissingObjectError, Storage


def verify_scores(sink: Storage, *, prune: bool = False) -> VerifyReport:
    """Checks an output; `prune` removes files that no commit names, where nothing else is wrong.

    Prune not while a run is at work. Holds a unit's tables and 16 bytes an item.

    Raises:
        ValueError: if it is no output of scoring.
    """
    read_run(sink, "score")
    check = _Check(sink)
    left: list[int] = []
    try:
        files = read_ledger_files(sink)
        for commit in read_commits(sink, commit_keys(sink, run_numbers(sink))):
            check.commit(commit)
        for file in files:
            check.ledger(file)
        check.summary(files)
        left = open_runs(sink, files)
    except DamagedError as error:
        check.findings.add(Kind.COMMIT_DAMAGED, sink.root, error, "what was written")
    pruned = check.orphans(prune=prune)
    return VerifyReport(
        output=sink.root,
        findings=tuple(check.findings.shown),
        counts={str(kind): count for kind, count in check.findings.counts.items()},
        pruned=tuple(pruned),
        closed=sink.exists(SUMMARY) and not left,
        units=check.units,
        videos=len(check.seen),
        faces=check.faces,
        files=check.files,
        bytes_read=check.bytes_read,
    )


class _Check:
    """What was read so far."""

    def __init__(self, sink: Storage) -> None:
        self.findings = Findings()
        self.seen = DigestSet()
        self.named: set[str] = set()
        self.rows_by_run: Counter[int] = Counter()
        self.units = self.faces = self.files = self.bytes_read = 0
        self._sink = sink

    def commit(self, commit: ScoreCommit) -> None:
        """A unit and its files."""
        self.units += 1
        self.faces += commit.crops
        uri = self._sink.uri(commit.key)
        items = self._table(commit.items, ITEMS_VERSION)
        tracks = self._table(commit.tracks, TRACKS_VERSION) if commit.tracks else None
        if commit.faces:
            self._table(commit.faces, FACES_VERSION)
        if items is None:
            return
        self.rows_by_run[commit.run] += items.num_rows
        rows = items.select(["uri", "etag", "bundle", "options", "attempt", "kind", "probability", "same_as", "tracks"])
        kinds: Counter[str] = Counter()
        scored: dict[str, int] = {}
        for row in rows.to_pylist():
            kinds[row["kind"]] += 1
            if not self.seen.add(
                digest16(*(str(row[name]) for name in ("uri", "etag", "bundle", "options", "attempt")))
            ):
                self.findings.add(Kind.VIDEO_TWICE, uri, row["uri"], "one row an item, bundle, options and attempt")
            if (row["kind"] == "scored") != (row["probability"] is not None):
                self.findings.add(Kind.OUTCOME, uri, f"{row['uri']} {row['kind']}", "a probability, or a reason")
            if row["kind"] == "scored" and row["same_as"] is None:
                scored[row["uri"]] = row["tracks"]
        self.findings.expect(Kind.COMMIT_COUNTS, uri, "kinds", dict(kinds), dict(commit.kinds))
        found = Counter(tracks["uri"].to_pylist()) if tracks is not None else Counter()
        self.findings.expect(Kind.FACE_COUNT, uri, "tracks by item", dict(found), scored)

    def ledger(self, file: LedgerFile) -> None:
        """A run's table of the ledger."""
        rows = 0
        for part in file.parts:
            table = self._table(part, LEDGER_VERSION)
            rows += table.num_rows if table is not None else 0
        expected = sum(self.rows_by_run[run] for run in file.runs)
        self.findings.expect(Kind.ROWS, self._sink.uri(file.key), "rows", rows, expected)

    def summary(self, files: Sequence[LedgerFile]) -> None:
        """The last run's."""
        history = read_history(self._sink, last=1)
        if not history or not self._sink.exists(SUMMARY):
            if files:
                self.findings.add(Kind.SUMMARY, self._sink.uri(SUMMARY), "none", "the last run's")
            return
        same = self._sink.read(SUMMARY) == history[0].to_json()
        self.findings.expect(Kind.SUMMARY, self._sink.uri(SUMMARY), "equal to the last of history", same, True)

    def orphans(self, *, prune: bool) -> list[str]:
        """Files that nothing names: found, or removed if all the rest holds."""
        present = (item.key for prefix in (ITEMS, TRACKS, FACES, LEDGER) for item in self._sink.list(prefix))
        orphans = [key for key in present if key not in self.named and key.endswith(".parquet")]
        if prune and not self.findings.counts:
            for key in orphans:
                self._sink.delete(key)
            return [self._sink.uri(key) for key in orphans]
        for key in orphans:
            self.findings.add(Kind.ORPHAN, self._sink.uri(key), "a file that no commit names", "none")
        return []

    def _table(self, file: DataFile, version: str) -> pa.Table | None:
        uri = self._sink.uri(file.key)
        self.named.add(file.key)
        try:
            data = self._sink.read(file.key)
        except MissingObjectError:
            self.findings.add(Kind.FILE_MISSING, uri, "nothing", f"{file.size_bytes} bytes")
            return None
        self.files += 1
        self.bytes_read += len(data)
        if sha256(data) != file.sha256:
            self.findings.add(Kind.FILE_DIGEST, uri, f"{len(data)} bytes, SHA-256 {sha256(data)}", file.sha256)
            return None
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            self.findings.add(Kind.FILE_UNREADABLE, uri, error, "Parquet")
            return None
        found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode()
        self.findings.expect(Kind.SCHEMA, uri, "schema", found, version)
        self.findings.expect(Kind.ROWS, uri, "rows", table.num_rows, file.rows)
        return table
