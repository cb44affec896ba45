"""Face shards in, encoded crops by their place in the index out; keeps what it read as the options say."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch.model.plan import Rows
from batch.model.records import FaceIndex, Shard
from batch.records import RgbImage
from batch.shards.commit import sha256
from batch.storage.scratch import ScratchFolder

Crops = Mapping[int, bytes]
"""Encoded pictures (PNG or JPEG) by place in the face index."""


class CropSource(Protocol):
    """Where a reader takes crops from: encoded ones of shards (`CropStore`), or decoded ones (`DecodedFaces`)."""

    def load(self, rows: Rows, keep: Rows) -> Crops | Mapping[int, RgbImage]:
        """The crops at `rows`; those in `keep` (ascending) will be asked for again."""

    def forget(self, rows: Rows) -> None:
        """Lets go of the crops at `rows`."""

    def close(self) -> None:
        """Lets go of all that was kept."""


class DecodedFaces:
    """Crops that are in memory as pixels, such as blocks in Ray's object store, which processes of a node share."""

    def __init__(self, rows: Rows, blocks: Sequence[npt.NDArray[np.uint8]]) -> None:
        """`rows` ascending; the blocks, each of shape (n, side, side, 3) in RGB, hold their crops one after another."""
        self._rows, self._blocks = rows, blocks
        self._starts = np.cumsum([0, *map(len, blocks)])
        if self._starts[-1] != len(rows):
            raise ValueError(f"decoded faces: got {self._starts[-1]} crops, expected {len(rows)}, one a row")

    def holds(self, rows: Rows) -> bool:
        """Whether all of these are there."""
        return bool(np.isin(rows, self._rows).all())

    def load(self, rows: Rows, keep: Rows) -> Mapping[int, RgbImage]:
        """See `CropSource`. The arrays are views: nothing is copied."""
        places = np.searchsorted(self._rows, rows)
        blocks = np.searchsorted(self._starts, places, side="right") - 1
        each = zip(rows.tolist(), blocks.tolist(), (places - self._starts[blocks]).tolist(), strict=True)
        return {row: self._blocks[block][place] for row, block, place in each}

    def forget(self, rows: Rows) -> None:
        """Nothing: they are not this process's own."""

    def close(self) -> None:
        """Nothing either."""


class CropStore:
    """The crops of a face index. Safe to use from several threads.

    A shard is read whole, in one request: crops are 99% of it. What is kept in memory is bounded by `cache_mb`; `disk`
    keeps whole shards in a temporary folder, which `close` removes (as does the ordinary end of the process).
    """

    def __init__(self, index: FaceIndex, cache: Literal["memory", "disk", "none"], cache_mb: int) -> None:
        """Reads nothing yet."""
        self._index, self._cache, self._budget = index, cache, cache_mb * 1_000_000
        self._row_in_shard = index.table["row"].to_numpy()
        self._bounds = np.searchsorted(index.table["shard"].to_numpy(), np.arange(len(index.shards) + 1))
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._folder: ScratchFolder | None = None
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in index.shards]  # lanes that share a shard read it once

    def load(self, rows: Rows, keep: Rows) -> Crops:
        """The crops at `rows`. Of the shards read for them, the faces in `keep` (ascending) are kept in memory.

        Raises ValueError naming the shard if it is not the one that was committed, and `StorageError`.
        """
        found: dict[int, bytes] = {}
        shards = np.searchsorted(self._bounds, rows, side="right") - 1
        for shard in np.unique(shards):
            wanted = rows[shards == shard]
            with self._reading[shard]:
                crops = self._from_memory(wanted)
                found |= self._from_shard(int(shard), wanted, keep) if crops is None else crops
        return found

    def forget(self, rows: Rows) -> None:
        """Lets go of the crops at `rows`."""
        with self._lock:
            self._kept_bytes -= sum(len(self._kept.pop(row, b"")) for row in rows.tolist())

    def close(self) -> None:
        """Lets go of all that was kept. The store may be used again."""
        with self._lock:
            self._kept.clear()
            self._kept_bytes = 0
            if self._folder is not None:
                self._folder.close()
                self._folder = None

    def _from_memory(self, rows: Rows) -> dict[int, bytes] | None:
        """None unless all of them are kept."""
        kept = {row: self._kept.get(row) for row in rows.tolist()}
        found = {row: crop for row, crop in kept.items() if crop is not None}
        return found if len(found) == len(kept) else None

    def _from_shard(self, number: int, rows: Rows, keep: Rows) -> dict[int, bytes]:
        shard = self._index.shards[number]
        images = _images(shard, self._file(shard) if self._cache == "disk" else _read(shard))
        found = {row: _crop(shard, images, int(self._row_in_shard[row])) for row in rows.tolist()}
        first, last = np.searchsorted(keep, self._bounds[number : number + 2])
        self._keep({row: images[int(self._row_in_shard[row])].as_py() for row in keep[first:last].tolist()})
        return found

    def _keep(self, crops: dict[int, bytes | None]) -> None:
        """All of a shard or nothing of it: a part would spare no reading."""
        with self._lock:
            fresh = {row: crop for row, crop in crops.items() if crop is not None and row not in self._kept}
            size = sum(map(len, fresh.values()))
            if self._kept_bytes + size <= self._budget:
                self._kept_bytes += size
                self._kept |= fresh

    def _file(self, shard: Shard) -> bytes:
        """From the copy on disk, made if there is none yet."""
        with self._lock:
            if self._folder is None:
                self._folder = ScratchFolder()
            path = self._folder.path / f"{shard.sha256}.parquet"
        if path.exists():
            return path.read_bytes()
        data = _read(shard)
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(data)
        part.replace(path)
        return data


def _read(shard: Shard) -> bytes:
    """The object as it was committed."""
    data = shard.sink.read(shard.key)
    digest = sha256(data)
    if digest != shard.sha256:
        raise ValueError(
            f"{shard.sink.uri(shard.key)}: changed or damaged: got {len(data)} bytes with sha256 {digest}, "
            f"expected {shard.size_bytes} with {shard.sha256}"
        )
    return data


def _images(shard: Shard, data: bytes) -> pa.ChunkedArray:
    """The encoded pictures in the order of the shard."""
    table = pq.read_table(io.BytesIO(data), columns=["image"], use_threads=False)
    if table.num_rows != shard.rows or not table.num_rows:
        uri = shard.sink.uri(shard.key)
        raise ValueError(f"{uri}: got {table.num_rows} faces, expected {shard.rows or 'at least 1'}")
    return table["image"].combine_chunks().field("bytes")


def _crop(shard: Shard, images: pa.ChunkedArray, row: int) -> bytes:
    """One encoded picture."""
    crop: bytes | None = images[row].as_py()
    if not crop:
        raise ValueError(f"{shard.sink.uri(shard.key)}: row {row}: got no picture, expected a face crop")
    return crop
