"""OUTPUT in, tables out: reads the committed shards of a preprocessing output and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batch.schemas import FACES_VERSION, OUTCOMES_VERSION
from batch.shards.commit import Commit, DataFile
from batch.storage.base import Storage


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


def _read(sink: Storage, file: DataFile, version: str, columns: Sequence[str] | None) -> pa.Table:
    table = pq.read_table(io.BytesIO(sink.read(file.key)), columns=None if columns is None else list(columns))
    found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode()
    if found != version:
        raise ValueError(f"{sink.uri(file.key)}: schema {found or 'missing'}, expected {version}")
    return table
