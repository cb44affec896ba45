"""Crops of an index looked at and encoded on a Ray cluster: for near-duplicates, and for splits by people.

No command of its own: `fakesift train` calls it before it splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.ahead import mapped_ahead
from batch.model.encodings import ENCODINGS, Encodings, encode_shard, faces_to_encode
from batch.model.near_duplicates import gather_looks, look_at_shard
from batch.model.perceptual_hash import Looks
from batch.model.records import FaceIndex, Shard
from batch.storage.base import Storage
from jobs.fanout import fan_out


def look_at_faces(ray: Any, index: FaceIndex, workers: int | None = None) -> Looks:
    """What every crop of the index looks like, a shard a task; reads every crop once, and checks it on the way.

    Raises:
        ValueError: for a shard that is not the one that was committed, or a crop that is damaged or of another size.
        RuntimeError: where Ray gave up.
    """
    task = ray.remote(num_cpus=1, max_retries=5)(_look)
    items = list(enumerate(index.shards))
    return gather_looks(index, fan_out(ray, task, (index.face_options.crop.crop_size,), items, workers))


def encode_people(
    ray: Any, index: FaceIndex, sink: Storage, faces_a_track: int, workers: int | None = None
) -> Encodings:
    """Encodings of some real faces of every clip, a shard a task.

    Each task puts what it found under `encodings/` in `sink`, named by the shard's digest: whatever is there is not
    computed again, so a run that was killed goes on, and one on more data encodes the new shards alone.

    Raises:
        ValueError: for a shard or a stored file that is damaged.
        RuntimeError: where Ray gave up.
    """
    wanted = {_key(shard, faces_a_track): (shard, rows) for shard, rows in _chosen(index, faces_a_track)}
    there = {item.key for item in sink.list(f"{_folder()}/")}
    items = [(key, shard, *in_shard(index, rows)) for key, (shard, rows) in wanted.items() if key not in there]
    if items:
        task = ray.remote(num_cpus=1, max_retries=5)(_encode)
        for _ in fan_out(ray, task, (sink,), items, workers):
            pass
    return Encodings.merged(mapped_ahead(lambda key: _stored(sink, key), wanted))


def _folder() -> str:
    return ENCODINGS.removesuffix(".parquet")


def _key(shard: Shard, faces_a_track: int) -> str:
    return f"{_folder()}/{shard.sha256[:16]}-{faces_a_track}.parquet"


def _chosen(index: FaceIndex, faces_a_track: int) -> Iterator[tuple[Shard, npt.NDArray[np.int64]]]:
    """Shards that have real faces, with the places in the index of those to encode."""
    return by_shard(index, faces_to_encode(index, faces_a_track))


def by_shard(index: FaceIndex, rows: npt.NDArray[np.int64]) -> Iterator[tuple[Shard, npt.NDArray[np.int64]]]:
    """Every shard that holds some of these faces, with their places in the index."""
    shards = index.table["shard"].to_numpy()[rows]
    for number in np.unique(shards):
        yield index.shards[number], rows[shards == number]


def in_shard(index: FaceIndex, rows: npt.NDArray[np.int64]) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Names of the faces, and their rows in the shard."""
    table = index.table.select(["face", "row"]).take(pa.array(rows)).combine_chunks()
    return table["face"].combine_chunks(), table["row"].to_numpy().astype(np.int64)


def _look(side_px: int, item: tuple[int, Shard]) -> tuple[int, Looks]:
    number, shard = item
    return number, look_at_shard(shard, side_px)


def _encode(sink: Storage, item: tuple[str, Shard, pa.Array, npt.NDArray[np.int64]]) -> str:
    key, shard, faces, rows = item
    sink.put(key, Encodings(faces=faces, values=encode_shard(shard, rows)).to_parquet())
    return key


def _stored(sink: Storage, key: str) -> Encodings:
    try:
        return Encodings.from_parquet(sink.read(key))
    except ValueError as error:
        raise ValueError(f"{sink.uri(key)}: {error}") from error
