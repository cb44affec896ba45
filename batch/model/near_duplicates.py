"""An index of faces in, pairs of clips that show the same picture out: copies under other names, re-encoded, resized,
mirrored.

Every crop is read once, shard by shard, and becomes a hash of 32 bytes and a thumb of 32 x 32 grey pixels in a
temporary file. Close hashes are candidates; the thumbs' correlation decides.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from batch.ahead import mapped_ahead
from batch.model.groups import Pairs, group_faces
from batch.model.perceptual_hash import (
    THUMB_PX,
    WORDS,
    Hashes,
    Looks,
    close_between,
    close_pairs,
    correlations,
    look,
    mirrored,
    mirrored_hashes,
)
from batch.model.records import FaceIndex, Shard
from batch.records import RgbImage
from batch.shards.commit import sha256

_THREADS = 4  # hides the reading of a shard behind the decoding of others
_COMPARED_AT_ONCE = 1 << 14
_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateOptions:
    """When two crops are the same picture.

    Of 6,149 photographs of `utkface`, these values find 84 pairs and 2 mirrored ones; looked at, each shows one
    photograph twice. The best pair of two photographs correlates with 0.949. One photograph against itself, 1st
    percentile: JPEG of quality 20 0.998, at 80 pixels and back 0.999, brightened 0.980; moved by 1% of its side 0.976
    in the median.
    """

    most_bits: int = 48
    """Most differing bits of 256 in a candidate."""
    correlation: float = 0.97
    """Least normalised correlation of 32 x 32 grey pixels."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not 0 <= self.most_bits <= 128:
            raise ValueError(f"most bits: got {self.most_bits}, expected 0 to 128 of 256")
        if not 0.5 <= self.correlation <= 1:
            raise ValueError(f"correlation: got {self.correlation}, expected 0.5 to 1")


def look_at_shard(shard: Shard, side_px: int) -> Looks:
    """What a shard's crops look like, in their order. Memory: the shard.

    Raises:
        ValueError: naming the shard and the row, if it is not the file that was committed, a crop cannot be decoded,
            or is not `side_px` square.
        StorageError: if it cannot be read.
    """
    uri = shard.sink.uri(shard.key)
    images = read_columns(shard, ["image"])["image"]
    hashes = np.empty((shard.rows, WORDS), np.uint64)
    thumbs = np.empty((shard.rows, THUMB_PX * THUMB_PX), np.uint8)
    textured = np.empty(shard.rows, np.bool_)
    for row, image in enumerate(images):
        data = image["bytes"].as_py() or b""
        luma = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
        if luma is None or luma.shape != (side_px, side_px):
            got = "no picture" if luma is None else f"{luma.shape[1]} x {luma.shape[0]} pixels"
            raise ValueError(f"{uri}: row {row}: {got}, expected a crop of {side_px} x {side_px} as in run.json")
        hashes[row], thumbs[row], textured[row] = look(np.asarray(luma, np.uint8))
    return Looks(hashes=hashes, thumbs=thumbs, textured=textured)


def read_columns(shard: Shard, columns: list[str]) -> pa.Table:
    """Columns of a shard, read whole since crops are 99% of it; raises as `look_at_shard`."""
    data = shard.sink.read(shard.key)
    found = sha256(data)
    if found != shard.sha256:
        uri = shard.sink.uri(shard.key)
        raise ValueError(f"{uri}: sha256 {found}, expected {shard.sha256} as committed; see `fakesift verify`")
    return pq.read_table(io.BytesIO(data), columns=columns)


def decoded_crop(shard: Shard, row: int, data: bytes | None) -> RgbImage:
    """The picture in a row of a shard. Raises ValueError that names both if it is none."""
    crop = cv2.imdecode(np.frombuffer(data or b"\0", np.uint8), cv2.IMREAD_COLOR_RGB)
    if crop is None:
        raise ValueError(f"{shard.sink.uri(shard.key)}: row {row}: no picture, expected a crop")
    return np.asarray(crop, np.uint8)


def look_at_shards(index: FaceIndex) -> Iterator[tuple[int, Looks]]:
    """Every shard's number and looks, by a few threads of this process: 95,000 crops take about 2 CPU minutes."""
    side_px = index.face_options.crop.crop_size
    looks = mapped_ahead(
        lambda shard: look_at_shard(shard, side_px), index.shards, threads=_THREADS, ahead=2 * _THREADS
    )
    yield from enumerate(looks)


def gather_looks(index: FaceIndex, looks: Iterable[tuple[int, Looks]]) -> Looks:
    """The looks of all shards, which may come in any order, in the order of the index.

    Thumbs lie in a temporary file (1 KB a face), which goes when the value does; in memory are 33 bytes a face.
    """
    faces = index.table.num_rows
    starts = np.searchsorted(index.table["shard"].to_numpy(), np.arange(len(index.shards)))
    hashes, textured = np.zeros((faces, WORDS), np.uint64), np.zeros(faces, np.bool_)
    with tempfile.TemporaryFile() as file:
        thumbs = np.memmap(file, np.uint8, "w+", shape=(faces, THUMB_PX * THUMB_PX))  # keeps the file itself open
    for number, found in looks:
        here = slice(int(starts[number]), int(starts[number]) + len(found.hashes))
        hashes[here], thumbs[here], textured[here] = found.hashes, found.thumbs, found.textured
    return Looks(hashes=hashes, thumbs=thumbs, textured=textured)


def find_duplicates(index: FaceIndex, looks: Looks, options: DuplicateOptions | None = None) -> Pairs:
    """Pairs of faces in different source groups that show the same picture: enough of them to tie all such groups.

    Faces of one group need no comparison, and groups that were tied are one from then on, so that a thousand copies
    of a clip cost no more than two of each.
    """
    options = options or DuplicateOptions()
    search = _Search(looks, group_faces(index).numbers, options)
    search.tie_equal()
    search.tie_close()
    return search.pairs


class _Search:
    """The pairs found so far, and the groups as they are tied by them."""

    def __init__(self, looks: Looks, groups: npt.NDArray[np.int64], options: DuplicateOptions) -> None:
        self._looks, self._options = looks, options
        self._groups = groups.copy()
        self.pairs: Pairs = np.zeros((0, 2), np.int64)

    def tie_equal(self) -> None:
        """Compares faces of equal hashes with their next few neighbours: copies come in large numbers."""
        rows = np.flatnonzero(self._looks.textured)
        hashes: Hashes = self._looks.hashes[rows]
        rows = rows[np.lexsort((rows, *hashes.T))]
        for step in range(1, _NEIGHBOURS + 1):
            pairs = np.stack([rows[:-step], rows[step:]], axis=1)
            equal = (self._looks.hashes[pairs[:, 0]] == self._looks.hashes[pairs[:, 1]]).all(axis=1)
            self._confirm(pairs[equal])

    def tie_close(self) -> None:
        """Compares one face of each hash and group with all others whose hash, or mirror image's, is close."""
        rows = np.flatnonzero(self._looks.textured)
        keys = np.column_stack([self._groups[rows].astype(np.uint64), self._looks.hashes[rows]])
        rows = rows[np.unique(keys, axis=0, return_index=True)[1]]
        labels = self._groups[rows]
        for pairs in close_pairs(self._looks.hashes[rows], labels, most_bits=self._options.most_bits):
            if self._confirm(rows[pairs]):
                labels[:] = self._groups[rows]
        mirrors = mirrored_hashes(self._looks.thumbs, rows)
        for pairs in close_between(self._looks.hashes[rows], mirrors, most_bits=self._options.most_bits):
            self._confirm(rows[pairs], mirror=True)

    def _confirm(self, pairs: Pairs, *, mirror: bool = False) -> bool:
        """Looks at candidates' pixels, the second one's mirrored if told, and ties their groups; whether any were."""
        pairs = pairs[self._groups[pairs[:, 0]] != self._groups[pairs[:, 1]]]
        tied = []
        for start in range(0, len(pairs), _COMPARED_AT_ONCE):
            some = pairs[start : start + _COMPARED_AT_ONCE]
            left, right = (self._looks.thumbs[some[:, side]] for side in (0, 1))
            alike = correlations(left, mirrored(right) if mirror else right)
            tied.append(some[alike >= self._options.correlation])
        found = np.concatenate(tied) if tied else pairs
        if not len(found):
            return False
        ends = self._groups[found]
        _, first = np.unique(np.sort(ends, axis=1), axis=0, return_index=True)
        self.pairs = np.concatenate([self.pairs, found[first]])
        size = int(self._groups.max()) + 1
        graph = coo_array((np.ones(len(first), np.int8), tuple(ends[first].T)), shape=(size, size))
        self._groups = connected_components(graph, directed=False)[1].astype(np.int64)[self._groups]
        return True
