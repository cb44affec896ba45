"""Which files hold a text: as they are, or packed in a table or an archive."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def holding(files: Mapping[str, bytes], text: str) -> list[str]:
    """Names of the files that hold it."""
    wanted = text.encode()
    return [name for name, data in files.items() if any(wanted in part for part in _parts(name, data))]


def files_in(*folders: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def _parts(name: str, data: bytes) -> Iterator[bytes]:
    yield data
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        yield repr(table.schema.metadata).encode()
        # Pictures are what makes tables large.
        texts = [field.name for field in table.schema if not pa.types.is_binary(field.type)]
        yield repr(table.select(texts).to_pydict()).encode()
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield archive.read(member)
