"""Crops in, perceptual hashes and small pictures out; and the pairs of hashes that are close, without comparing all.

The hash is the one of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (chapter 3.2,
as in pHash): signs of the lowest coefficients of a discrete cosine transform against their median. Crops of faces
look alike where other pictures do not, so 64 bits do not tell two people apart: of 18.9 million pairs of different
photographs of `utkface`, 1,600 have at most 8 differing bits. With 256 bits (the lowest 16 x 16) no pair of two
photographs is closer than 44, while the same photograph as a JPEG of quality 20 is at most 10 away, at 80 pixels
and back 4, brightened 16, and moved by 1% of its side 32 in the median. The first 64 bits are the lowest 8 x 8 and
serve the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.ndimage import shift

from batch.records import LumaImage

WORDS = 4
THUMB_PX = 32
MOVED = 0.01
"""Of its side, how far `moved_hashes` moves a picture."""
FIRST_BITS = 8
"""Most differing bits of the first word in a pair that the search finds."""

Hashes = npt.NDArray[np.uint64]
"""256 bits a picture, shape (pictures, WORDS)."""

_LOWEST = 16
# Below this standard deviation in grey levels a crop is a flat area with noise: it says nothing of what it shows.
_FLAT = 4.0
_BANDS = 5  # 8 differing bits in 5 bands leave a band with at most one
_BAND_BITS = -(-64 // _BANDS)
_PAIRS_AT_ONCE = 1 << 21
_MOVED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What some pictures look like."""

    hashes: Hashes
    thumbs: npt.NDArray[np.uint8]
    """Brightness, shape (pictures, THUMB_PX ** 2)."""
    textured: npt.NDArray[np.bool_]
    """False for a flat picture, whose hash means nothing; shape (pictures,)."""


def look(luma: LumaImage) -> tuple[Hashes, npt.NDArray[np.uint8], bool]:
    """Hash (WORDS,), thumb (THUMB_PX ** 2,) of a picture, and whether it has texture. 0.3 ms at 224 x 224."""
    thumb = cv2.resize(luma, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(thumb.astype(np.float32))[:_LOWEST, :_LOWEST]
    return _hashed(np.asarray(lowest)[None])[0], np.asarray(thumb, np.uint8).ravel(), bool(thumb.std() >= _FLAT)


def moved_hashes(thumbs: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> Iterator[Hashes]:
    """Hashes of the pictures at `rows` as they are, moved by `MOVED` of their side up, down and sideways, and mirrored.

    18 times shape (rows, WORDS). A copy whose face was found a little off is close to one of them. Computed from
    thumbs (pictures, THUMB_PX ** 2), some at a time: a move and the transform of an axis are one matrix.
    """
    axis = _lowest_of_axis()
    moves = [axis @ shift(np.eye(THUMB_PX), (by * THUMB_PX, 0), order=3, mode="nearest") for by in (0, -MOVED, MOVED)]
    for down in moves:
        for across in (*moves, *(move[:, ::-1] for move in moves)):
            yield _transformed(thumbs, rows, down, across)


def mirrored_hashes(thumbs: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> Hashes:
    """Hashes of the pictures at `rows` with left and right changed, from thumbs (pictures, THUMB_PX ** 2)."""
    axis = _lowest_of_axis()
    return _transformed(thumbs, rows, axis, axis[:, ::-1])


def mirrored(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Thumbs (pictures, THUMB_PX ** 2) with left and right changed."""
    return thumbs.reshape(-1, THUMB_PX, THUMB_PX)[:, :, ::-1].reshape(thumbs.shape)


def _lowest_of_axis() -> npt.NDArray[np.float64]:
    """The transform of one axis, shape (_LOWEST, THUMB_PX): `cv2.dct` is this on both."""
    return np.asarray(dct(np.eye(THUMB_PX), axis=0, norm="ortho")[:_LOWEST])


def _transformed(
    thumbs: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], down: npt.NDArray[Any], across: npt.NDArray[Any]
) -> Hashes:
    """With a matrix (_LOWEST, THUMB_PX) for each axis."""
    hashes = np.zeros((len(rows), WORDS), np.uint64)
    for start in range(0, len(rows), _MOVED_AT_ONCE):
        some = thumbs[rows[start : start + _MOVED_AT_ONCE]].reshape(-1, THUMB_PX, THUMB_PX)
        hashes[start : start + len(some)] = _hashed(down @ some @ across.T)
    return hashes


def _hashed(lowest: npt.NDArray[Any]) -> Hashes:
    """Of coefficients of shape (pictures, _LOWEST, _LOWEST)."""
    ordered = lowest.reshape(len(lowest), -1)[:, _corner_first()]
    bits = ordered > np.median(ordered[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False  # brightness
    return np.asarray(np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64))


def _corner_first() -> npt.NDArray[np.int64]:
    """The order of coefficients in which the lowest 8 x 8 come first."""
    row, column = np.divmod(np.arange(_LOWEST * _LOWEST), _LOWEST)
    return np.asarray(np.argsort(np.maximum(row, column) >= _LOWEST // 2, kind="stable"), np.int64)


def distances(left: Hashes, right: Hashes) -> npt.NDArray[np.int64]:
    """Differing bits, 0 to 256, of hashes of shape (n, WORDS); shape (n,)."""
    return np.asarray(np.bitwise_count(left ^ right).sum(axis=1), np.int64)


def correlations(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Normalised cross-correlation of thumbs, -1 to 1: neither brightness nor contrast matters; shape (n,)."""

    def normalised(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        values = thumbs.astype(np.float32)
        values -= values.mean(axis=1, keepdims=True)
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), np.float32)

    return np.asarray(np.einsum("ij,ij->i", normalised(left), normalised(right)), np.float32)


def close_pairs(hashes: Hashes, labels: npt.NDArray[np.int64], *, most_bits: int) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs of places with unlike labels, at most `FIRST_BITS` differing bits in the first word and `most_bits` in all.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index Hashing"):
    the first word is cut into five bands, of which one differs by at most one bit in every such pair; so only
    hashes in one bucket, or in two whose keys are one bit apart, are compared. A pair may come several times. The
    caller may change `labels` between two yields, to pass over what it has tied already. Memory: some 100 MB at
    most beside 100 bytes a hash.

    Yields:
        Shape (pairs, 2), never empty.
    """
    for keys, flips in _bands(hashes):
        order, sorted_keys, starts = _buckets(keys)
        places = np.arange(len(keys))
        for flip in flips:
            other = sorted_keys ^ flip
            first = starts[other] if flip else places + 1
            counts = np.where(sorted_keys <= other, starts[other + 1] - first, 0)
            for left, right in _ranges(first, counts):
                pairs = np.stack([order[left], order[right]], axis=1)
                pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
                near = pairs[_near(hashes[pairs[:, 0]], hashes[pairs[:, 1]], most_bits)]
                if len(near):
                    yield near


def close_between(left: Hashes, right: Hashes, *, most_bits: int) -> Iterator[npt.NDArray[np.int64]]:
    """The same for two sets: pairs of a place in the left one and a place in the right one, whatever the labels."""
    for (left_keys, flips), (right_keys, _) in zip(_bands(left), _bands(right), strict=True):
        order, _, starts = _buckets(right_keys)
        for flip in flips:
            first = starts[left_keys ^ flip]
            for one, other in _ranges(first, starts[(left_keys ^ flip) + 1] - first):
                pairs = np.stack([one, order[other]], axis=1)
                near = pairs[_near(left[pairs[:, 0]], right[pairs[:, 1]], most_bits)]
                if len(near):
                    yield near


def _bands(hashes: Hashes) -> Iterator[tuple[npt.NDArray[np.int64], tuple[int, ...]]]:
    """Of each band the keys, and what those of a pair may differ by."""
    for band in range(_BANDS):
        bits = np.arange(band, 64, _BANDS, dtype=np.uint64)  # spread, since low frequencies say more than high ones
        keys = np.zeros(len(hashes), np.int64)
        for place, bit in enumerate(bits):
            keys |= (((hashes[:, 0] >> bit) & np.uint64(1)) << np.uint64(place)).astype(np.int64)
        yield keys, (0, *(1 << place for place in range(len(bits))))


def _buckets(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """Places in the order of their keys, the keys in that order, and where each key's begin."""
    order = np.argsort(keys, kind="stable")
    return order, keys[order], np.searchsorted(keys[order], np.arange((1 << _BAND_BITS) + 1))


def _ranges(
    first: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Each place with the `counts` numbers from `first` on, some millions of pairs at a time."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        some = counts[begin:end]
        left = np.repeat(np.arange(begin, end), some)
        within = np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
        if len(left):
            yield left, np.repeat(first[begin:end], some) + within
        begin = end


def _near(left: Hashes, right: Hashes, most_bits: int) -> npt.NDArray[np.int64]:
    """Places of the pairs (n, WORDS) that are close."""
    close = np.flatnonzero(np.bitwise_count(left[:, 0] ^ right[:, 0]) <= FIRST_BITS)
    return close[distances(left[close], right[close]) <= most_bits]
