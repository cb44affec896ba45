"""What errors are sliced by beside part and size: how strongly each clip was compressed, and groups that a table gives.

In: an index of faces. Out: by the slices' name, a value for each face of the index; None is left out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch.model.records import FaceIndex
from batch.shards.commit import read_commits
from batch.shards.read import outcome_tables
from batch.storage.base import MissingObjectError, Storage

Slices = Mapping[str, Sequence[str | None]]
"""Values of all faces of an index, in its order, by the slices' name."""

PART, FACE_SIZE, FRAME_HEIGHT, CLIP_QUALITY = "part", "face size", "frame height", "clip quality"
BUILT_IN = (PART, FACE_SIZE, FRAME_HEIGHT, CLIP_QUALITY)
"""Names of the slices that there are without a table."""
# A camera's H.264 takes 0.1 to 0.2 bits a pixel; what a platform made of it 0.02 to 0.1; a JPEG picture 0.5 and more.
_EDGES_BITS = (0.025, 0.05, 0.1, 0.2, 0.5)
_SIZES = ["video_uri", "size_bytes", "width_px", "height_px", "duration_s", "fps"]
_MOST_VALUES = 100
_SHOWN = 3


def of_rows(slices: Slices, rows: npt.NDArray[np.int64]) -> Slices:
    """The values of these faces, in their order."""
    return {kind: [values[row] for row in rows.tolist()] for kind, values in slices.items()}


def clip_quality(index: FaceIndex) -> list[str | None]:
    """The bin of each face's clip by its file's bits for a pixel of a frame; None where its length is not known.

    Reads the tables of outcomes of the index's outputs: some bytes a clip. The file's sound counts as well.

    Raises:
        StorageError: where a table cannot be read.
    """
    bins: dict[str, str | None] = {}
    for sink in dict.fromkeys(shard.sink for shard in index.shards):
        for table in outcome_tables(sink, read_commits(sink), _SIZES):
            for uri, *sizes in zip(*(table[name].to_pylist() for name in _SIZES), strict=True):
                bins[uri] = _quality(*sizes) or bins.get(uri)
    return [bins.get(uri) for uri in index.table["video_uri"].to_pylist()]


def _quality(
    size_bytes: int, width_px: int | None, height_px: int | None, duration_s: float | None, fps: float | None
) -> str | None:
    if not width_px or not height_px:
        return None
    if duration_s is None and fps is None:
        frames = 1.0  # a picture
    elif duration_s and fps:
        frames = max(1.0, duration_s * fps)
    else:
        return None
    place = int(np.digitize(8 * size_bytes / (width_px * height_px * frames), _EDGES_BITS))
    edges = ["0", *(f"{edge:g}" for edge in _EDGES_BITS)]
    return f"{edges[place]} " + (f"to {edges[place + 1]}" if place < len(_EDGES_BITS) else "and more") + " bits a pixel"


def read_slices(storage: Storage, name: str, index: FaceIndex) -> Slices:
    """Groups of clips from a CSV or Parquet table: a column `uri`, and a column a way to group them.

    `uri` is a clip's whole address or its last components, such as its key under INPUT. Clips that are not in the
    table, and empty cells, are in no group.

    Raises:
        ValueError: for no table, one without these columns or with a clip twice, a column that is named as one of
            `BUILT_IN` or has more than 100 different values (a number is no group), and a table that names no clip
            of the data.
        StorageError: where it cannot be read.
    """
    where = storage.uri(name)
    rows: dict[str, dict[str, str | None]] = {}
    try:
        data = storage.read(name)
    except MissingObjectError:
        raise ValueError(f"{where}: missing, expected a CSV or Parquet table with a column uri") from None
    for record in _records(data, where):
        uri = str(record.pop("uri", None) or "").strip("/")
        if not uri or not record or None in record:
            raise ValueError(f"{where}: row {len(rows) + 1}: expected a uri and one value for each further column")
        if uri in rows:
            raise ValueError(f"{where}: {uri} stands twice, expected a row a clip")
        rows[uri] = {kind: _group(value) for kind, value in record.items()}
    uris = index.table["video_uri"].to_pylist()
    found = {uri: next((rows[end] for end in _endings(uri) if end in rows), None) for uri in dict.fromkeys(uris)}
    if not any(found.values()):
        clips = ", ".join(list(found)[:_SHOWN])
        raise ValueError(
            f"{where}: names no clip of the data, which has {clips}; expected such addresses or their ends"
        )
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    if taken := [kind for kind in kinds if kind in BUILT_IN]:
        raise ValueError(
            f"{where}: column {taken[0]} is named as a slice that is always made, expected other names than "
            f"{', '.join(BUILT_IN)}"
        )
    slices = {kind: [(found[uri] or {}).get(kind) for uri in uris] for kind in kinds}
    for kind, values in slices.items():
        different = len(set(values) - {None})
        if different > _MOST_VALUES:
            raise ValueError(f"{where}: column {kind} has {different} values, expected {_MOST_VALUES} groups at most")
    return slices


def _group(value: object) -> str | None:
    """A cell's group; None for an empty cell: nothing, blanks, or not a number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def _records(data: bytes, where: str) -> list[dict[str, object]]:
    try:
        if where.lower().endswith(".parquet"):
            records: list[dict[str, object]] = pq.read_table(io.BytesIO(data)).to_pylist()
        else:
            records = [dict(row) for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig")))]
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where}: damaged, expected a CSV or Parquet table: {error}") from error
    if not records:
        raise ValueError(f"{where}: no rows, expected one a clip")
    return records


def _endings(uri: str) -> Iterator[str]:
    """The whole address, then ever shorter ends of it."""
    yield uri
    while "/" in uri:
        uri = uri.split("/", 1)[1]
        yield uri
