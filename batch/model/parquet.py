"""A table in, the bytes of a Parquet file out: how training keeps its own tables."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq


def zstd_parquet(table: pa.Table) -> bytes:
    """The table as zstd Parquet; equal tables give equal bytes under one pyarrow version."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
