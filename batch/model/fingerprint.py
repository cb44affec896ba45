"""What a model was trained on, as digests that a bundle keeps; and which faces of other data it has seen.

Group ids alone would miss the same clips under another prefix, under other names, or extracted with other options.
A fingerprint holds digests of source ids and clips' names, and perceptual hashes of the crops: no name and no
picture. It takes about 50 bytes a clip, and 32 bytes a crop for at most 100,000 of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.model.groups import Pairs, group_faces
from batch.model.parquet import zstd_parquet
from batch.model.perceptual_hash import WORDS, Hashes, Looks, close_between, moved_hashes
from batch.model.records import FaceIndex
from batch.schemas import FINGERPRINT_VERSION, fingerprint_schema

FINGERPRINT = "fingerprint.parquet"
"""Where it lies in a bundle."""
MOST_PICTURES = 100_000
MOST_BITS = 24
"""A picture is known if its hash, or one of `moved_hashes`, differs from a known one's by at most so many bits, since a
fingerprint has no pixels to confirm it by: see `tests/benchmarks/copies.py`."""

Digests = npt.NDArray[np.uint64]
"""Sorted, each once."""

_DEPTH = 4  # last components of a clip's address that are kept: more of them are the mount's or the bucket's
_SHOWN = 5
_KINDS = ("name", "ending", "picture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Digests of what a model was trained on."""

    names: Digests
    """Of source ids."""
    endings: Digests
    """Of the last components of source ids and of clips' addresses, from one on."""
    pictures: Hashes
    """Perceptual hashes of crops, each once, in order."""

    def to_parquet(self) -> bytes:
        """The file's content; equal fingerprints give equal bytes under one pyarrow version."""
        kinds, digests = [], []
        for kind, values in zip(_KINDS, (self.names, self.endings, self.pictures), strict=True):
            kinds += [kind] * len(values)
            digests += [value.tobytes() for value in values]
        return zstd_parquet(pa.table([kinds, digests], schema=fingerprint_schema()))

    @classmethod
    def from_parquet(cls, data: bytes) -> Fingerprint:
        """Reads the file. Raises `ValueError` if it is damaged or none of ours."""
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{FINGERPRINT}: damaged, expected a Parquet table: {error}") from error
        found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode(errors="replace")
        if found != FINGERPRINT_VERSION or not table.schema.equals(fingerprint_schema()):
            raise ValueError(f"{FINGERPRINT}: schema {found or 'missing'}, expected {FINGERPRINT_VERSION}")
        names, endings, pictures = (
            np.frombuffer(b"".join(table.filter(pc.equal(table["kind"], kind))["digest"].to_pylist()), np.uint64)
            for kind in _KINDS
        )
        return cls(names=names, endings=endings, pictures=pictures.reshape(-1, WORDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Which faces a model has seen, or something of their group."""

    rows: npt.NDArray[np.int64]
    """Places in the index of all faces of groups of which the model has seen something, ascending."""
    by_name: int
    """Faces whose source or clip has the name of one that was trained on."""
    by_picture: int
    """Faces whose crop looks like one that was trained on."""
    examples: tuple[str, ...]
    """Uris of a few clips."""

    def __str__(self) -> str:
        """For a message: how many faces, why, and which for example."""
        how = "belong to" if self.is_sure else "may belong to"
        doubt = "" if self.is_sure else "; data whose files are named alike look so, too"
        return (
            f"{len(self.rows)} faces {how} what the model was trained on ({self.by_name} by the name of their source "
            f"or clip, {self.by_picture} by their picture, the rest by their group), as in "
            f"{', '.join(self.examples) or 'none'}{doubt}"
        )

    @property
    def is_sure(self) -> bool:
        """Whether a picture is known: names alone may be those of other data."""
        return self.by_picture > 0


def fingerprint_of(index: FaceIndex, rows: npt.NDArray[np.int64], looks: Looks | None) -> Fingerprint:
    """The fingerprint of the faces at `rows`: those of training and validation, since thresholds come from the latter.

    Of more than `MOST_PICTURES` crops those with the lowest hashes are kept, which is a sample by content. Without
    `looks`, names alone tell.
    """
    sources, uris = (
        pc.unique(index.table[name].take(pa.array(rows))).to_pylist() for name in ("source_id", "video_uri")
    )
    pictures = np.zeros((0, WORDS), np.uint64)
    if looks is not None:
        pictures = np.unique(looks.hashes[rows[looks.textured[rows]]], axis=0)
        lowest = np.argsort([hashlib.blake2b(picture.tobytes()).digest() for picture in pictures])[:MOST_PICTURES]
        pictures = pictures[np.sort(lowest)]
    return Fingerprint(
        names=_digests(sources),
        endings=_digests(ending for path in (*sources, *uris) for ending in _endings(path)),
        pictures=pictures,
    )


def overlap(
    fingerprint: Fingerprint, index: FaceIndex, looks: Looks | None = None, duplicates: Pairs | None = None
) -> Overlap:
    """Which faces of an index a model has seen. `duplicates` (`near_duplicates.find_duplicates`) tie groups.

    A name is known if it is a known one's last components, or has a known one as its last components: so data are
    recognised whatever folder or bucket they lie in. Two corpora that name their clips alike (`real/0001.mp4`) are
    then taken for one: better a question too many. A picture is known if its hash is close: see `MOST_BITS`. The
    whole group of a known face is: other fakes of the original, for example.
    """
    named = _named(fingerprint, index)
    pictured = np.zeros(index.table.num_rows, np.bool_)
    if looks is not None:
        pictured[_pictured(fingerprint.pictures, looks)] = True
    groups = group_faces(index, pairs=duplicates).numbers
    rows = np.flatnonzero(np.isin(groups, groups[named | pictured]))
    uris = pc.unique(index.table["video_uri"].take(pa.array(np.flatnonzero(named | pictured)))).to_pylist()
    return Overlap(
        rows=rows.astype(np.int64),
        by_name=int(named.sum()),
        by_picture=int(pictured.sum()),
        examples=tuple(sorted(uris)[:_SHOWN]),
    )


def _named(fingerprint: Fingerprint, index: FaceIndex) -> npt.NDArray[np.bool_]:
    names, endings = (frozenset(digests.tolist()) for digests in (fingerprint.names, fingerprint.endings))

    def known_source(source: str) -> bool:
        return _digest(source) in endings or any(_digest(ending) in names for ending in _endings(source))

    def known_clip(uri: str) -> bool:  # it was the original of a fake that was trained on
        return any(_digest(ending) in names for ending in _endings(uri))

    known = np.zeros(index.table.num_rows, np.bool_)
    for column, is_known in (("source_id", known_source), ("video_uri", known_clip)):
        encoded = index.table[column].combine_chunks().dictionary_encode()
        answers = np.asarray([is_known(name) for name in encoded.dictionary.to_pylist()], np.bool_)
        known |= answers[encoded.indices.to_numpy()]
    return known


def _pictured(seen: Hashes, looks: Looks) -> npt.NDArray[np.int64]:
    """Places of pictures that look like one of those seen, as they are, or a little moved, or mirrored."""
    rows = np.flatnonzero(looks.textured)
    known = np.zeros(len(rows), np.bool_)
    for hashes in moved_hashes(looks.thumbs, rows):
        left = np.flatnonzero(~known)
        for pairs in close_between(hashes[left], seen, most_bits=MOST_BITS):
            known[left[pairs[:, 0]]] = True
    return rows[known]


def _endings(path: str) -> Iterator[str]:
    """The last component, the last two, and so on."""
    parts = path.rsplit("/", _DEPTH)[-_DEPTH:]
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def _digests(names: Iterable[str]) -> Digests:
    return np.asarray(sorted({_digest(name) for name in names}), np.uint64)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
