"""OUTPUT in, tables out: reads the committed shards of a preprocessing output and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batch.schemas import FACES_VERSION, OUTCOMES_VERSION
from batch.shards.commit import Commit, DataFile
from batch.storage.base import DamagedError, Storage
from batch.storage.ranged import RangedFile


def outcome_tables(
    sink: Storage, commits: Iterable[Commit], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """One table a commit, in the order given, with the schema of `schemas.outcomes_schema` (or its columns)."""
    for commit in commits:
        yield _read(sink, commit.outcomes, OUTCOMES_VERSION, columns)


def face_tables(sink: Storage, commits: Iterable[Commit], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """One table a commit that has faces, with the schema of `schemas.faces_schema` (or its columns)."""
    for commit in commits:
        if commit.faces is not None:
            yield _read(sink, commit.faces, FACES_VERSION, columns)


def latest_outcomes(
    sink: Storage, commits: Iterable[Commit], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Outcome tables in which each video stands once, with the outcome of its highest generation.

    `columns` must name `video_key`. Holds the keys of retried units alone.
    """
    retried: dict[str, set[str]] = {}
    for commit in sorted(commits, key=lambda commit: -commit.generation):
        [table] = outcome_tables(sink, [commit], columns)
        if commit.generation:
            retried.setdefault(commit.unit, set())
        if commit.unit in retried:
            seen = retried[commit.unit]
            keys = table["video_key"].to_pylist()
            table = table.filter(pa.array([key not in seen for key in keys]))
            seen.update(keys)
        yield table


def _read(sink: Storage, file: DataFile, version: str, columns: Sequence[str] | None) -> pa.Table:
    """The whole file in one request, or of some columns what they take: crops are 99% of a shard."""
    try:
        if columns is None:
            table = pq.read_table(io.BytesIO(sink.read(file.key)))
        else:
            ranged = RangedFile(sink, file.key, file.size_bytes, None)
            # With pre-buffering, Arrow's own threads would read from the file at once.
            opened = pq.ParquetFile(pa.PythonFile(ranged, mode="r"), pre_buffer=False)
            table = opened.read(list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{sink.uri(file.key)}: {error}; see `fakesift verify`") from error
    found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode()
    if found != version:
        raise DamagedError(f"{sink.uri(file.key)}: schema {found or 'missing'}, expected {version}")
    return table
