"""What has been scored with what: read into a compact index at a run's start, written as one table at its end.

`ledger/<run>.json`, put if absent, names the parts of the table of a run that ended, and the runs whose commits it
holds: its own, and those of earlier runs that were killed. The commits of runs that no such file names are read
themselves. So the index is the truth whatever died, and a year of nights is a few hundred files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from batch.ahead import mapped_ahead
from batch.schemas import ITEMS_VERSION, LEDGER_VERSION, ledger_schema
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.digests import digest16
from batch.scoring.records import RETRIED
from batch.scoring.runs import run_numbers
from batch.shards.commit import DataFile, sha256
from batch.storage.base import DamagedError, Storage
from batch.storage.ranged import RangedFile

LEDGER = "ledger/"
ROWS_A_PART = 100_000
"""About 20 MB a part."""
_ROWS_A_GROUP = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFile:
    """The content of `ledger/<run>.json`."""

    run: int
    runs: tuple[int, ...]
    """The runs whose commits are in the parts."""
    parts: tuple[DataFile, ...]

    @property
    def key(self) -> str:
        """Where it lies under OUTPUT."""
        return f"{LEDGER}{self.run:06d}.json"

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1).encode()


def read_ledger_files(sink: Storage) -> list[LedgerFile]:
    """All of them, by run. Raises `DamagedError`."""
    found = []
    for item in sink.list(LEDGER):
        if not item.key.endswith(".json"):
            continue
        try:
            raw = json.loads(sink.read(item.key))
            parts = tuple(DataFile(**part) for part in raw["parts"])
            found.append(LedgerFile(run=raw["run"], runs=tuple(raw["runs"]), parts=parts))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"damaged ledger {sink.uri(item.key)}: {error}") from error
    return found


def open_runs(sink: Storage, files: Iterable[LedgerFile]) -> list[int]:
    """Runs that claimed OUTPUT and are in no ledger file: killed, or at work."""
    held = {run for file in files for run in file.runs}
    return [run for run in run_numbers(sink) if run not in held]


def ledger_tables(
    sink: Storage, files: Iterable[LedgerFile], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The written ledger, a row group at a time, oldest first."""
    for file in sorted(files, key=lambda file: file.run):
        for part in file.parts:
            yield from read_groups(sink, part, LEDGER_VERSION, columns)


def committed_rows(sink: Storage, runs: Iterable[int]) -> Iterator[pa.Table]:
    """The same for runs that are in no ledger file: made from their commits, a unit at a time, a few read ahead."""
    yield from mapped_ahead(lambda commit: rows_of(sink, commit), read_commits(sink, commit_keys(sink, runs)))


def rows_of(sink: Storage, commit: ScoreCommit) -> pa.Table:
    """A unit's rows of the ledger, schema `schemas.ledger_schema`."""
    columns = ["uri", "input", "etag", "reason", "probability", "band", "same_as", "attempt", "fingerprint"]
    rows = []
    for group in read_groups(sink, commit.items, ITEMS_VERSION, columns):
        for row in group.to_pylist():
            marked = bytes.fromhex(row["fingerprint"]) if row["fingerprint"] else None
            digests = _digests(row["uri"], row["etag"], commit)
            # What could not be looked at was not kept either.
            kept = {"crops_digest": None} if row["reason"] in RETRIED else {}
            rows.append({**row, **digests, **kept, "fingerprint": marked})
    shared = {
        **{"date": date.fromisoformat(commit.night), "run": commit.run, "unit": commit.unit},
        **{"bundle": commit.bundle, "options": commit.options},
    }
    return pa.Table.from_pylist([{**row, **shared} for row in rows], schema=ledger_schema())


def write_ledger(sink: Storage, run: int, runs: Sequence[int]) -> LedgerFile:
    """Puts the rows of these runs' commits into parts, then the file that names them.

    A part of `ROWS_A_PART` rows is in memory at a time.
    """
    parts: list[DataFile] = []
    held: list[pa.Table] = []
    rows = 0
    for table in committed_rows(sink, runs):
        held.append(table)
        rows += table.num_rows
        if rows >= ROWS_A_PART:
            parts.append(put_part(sink, run, len(parts), held))
            held, rows = [], 0
    if held:
        parts.append(put_part(sink, run, len(parts), held))
    file = LedgerFile(run=run, runs=tuple(runs), parts=tuple(parts))
    sink.put_if_absent(file.key, file.to_json())
    return file


def read_groups(
    sink: Storage, file: DataFile, version: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """A Parquet file of ours, a row group at a time.

    Raises:
        DamagedError: for one that cannot be what was written.
    """
    ranged = RangedFile(sink, file.key, file.size_bytes, None)
    try:
        opened = pq.ParquetFile(pa.PythonFile(ranged, mode="r"), pre_buffer=False)
        _check_version(sink, file, opened.schema_arrow, version)
        for number in range(opened.num_row_groups):
            yield opened.read_row_group(number, columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{sink.uri(file.key)}: {error}; see `fakesift verify`") from error


def read_whole(sink: Storage, file: DataFile, version: str) -> pa.Table:
    """A Parquet file of ours whose every byte is checked first.

    Raises:
        DamagedError: for one that is not what was written.
    """
    data = sink.read(file.key)
    if sha256(data) != file.sha256:
        raise DamagedError(f"{sink.uri(file.key)}: not the file that was committed; see `fakesift verify`")
    table = pq.read_table(io.BytesIO(data))
    _check_version(sink, file, table.schema, version)
    return table


def _check_version(sink: Storage, file: DataFile, schema: pa.Schema, version: str) -> None:
    found = (schema.metadata or {}).get(b"fakesift.schema", b"").decode()
    if found != version:
        raise DamagedError(f"{sink.uri(file.key)}: schema {found or 'missing'}, expected {version}")


def uri_digest(uri: str) -> bytes:
    """What an object is looked up by."""
    return digest16(uri)


def content_digest(uri: str, etag: str) -> bytes:
    """What one state of an object is looked up by."""
    return digest16(uri, etag)


def version_digest(content: bytes, bundle: str, options: str) -> bytes:
    """What a score is looked up by."""
    return digest16(content, bundle, options)


def crops_digest(content: bytes, crops_options: str) -> bytes:
    """What kept crops are looked up by."""
    return digest16("crops", content, crops_options)


def _digests(uri: str, etag: str, commit: ScoreCommit) -> dict[str, bytes | None]:
    content = content_digest(uri, etag)
    return {
        "uri_digest": uri_digest(uri),
        "content_digest": content,
        "version_digest": version_digest(content, commit.bundle, commit.options),
        "crops_digest": crops_digest(content, commit.crops_options) if commit.keeps_crops else None,
    }


def put_part(sink: Storage, run: int, number: int, tables: Sequence[pa.Table]) -> DataFile:
    """Puts a part of a run's table, named by its content."""
    out = io.BytesIO()
    table = pa.concat_tables(tables)
    digests = {"uri_digest", "content_digest", "version_digest", "crops_digest", "fingerprint"}
    plain = [name for name in table.column_names if name not in digests]
    pq.write_table(table, out, compression="zstd", row_group_size=_ROWS_A_GROUP, use_dictionary=plain)
    data = out.getvalue()
    made = sha256(data)
    key = f"{LEDGER}{run:06d}.{number:03d}-{made[:16]}.parquet"
    sink.put(key, data)
    return DataFile(key=key, sha256=made, size_bytes=len(data), rows=table.num_rows)
