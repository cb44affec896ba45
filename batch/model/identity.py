"""Encodings of real faces in, pairs of clips that show one person out.

Fakes follow their original, since both are one source; and the person whose face was put in, where the corpus's
file names tell it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.model.encodings import Encodings, Values
from batch.model.groups import Pairs
from batch.model.records import FaceIndex

_COMPARED_AT_ONCE = 1 << 11
# FaceForensics++ and its kin: `<target>_<donor>`, original `<target>`; DeepFakeDetection: `<target>_<donor>__<scene>
# __<id>`, original `<target>__<scene>`; Celeb-DF: `id<target>_id<donor>_<scene>`, original `id<target>_<scene>`.
_NAMED = (
    re.compile(r"(?:.*[^0-9])?(?P<target>\d{3})_(?P<donor>\d{3})"),
    re.compile(r"(?:.*[^0-9])?(?P<target>\d{2})_(?P<donor>\d{2})__.+"),
    re.compile(r"id(?P<target>\d+)_id(?P<donor>\d+)_\d+"),
)
_ORIGINALS = (
    re.compile(r"(?P<stem>.*[^0-9]|)(?P<person>\d{3})"),
    re.compile(r"(?P<stem>.*[^0-9]|)(?P<person>\d{2})__.+"),
    re.compile(r"(?P<stem>)id(?P<person>\d+)_\d+"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityOptions:
    """How people are told apart.

    Measured on 1,389 photographs of `utkface`, each with a mirrored, turned, scaled, darker or brighter copy as a
    JPEG of quality 25 to 60, one encoding each (`tests/benchmarks/people.py`); purity is the share of faces in
    clusters that are of their cluster's most frequent photograph (some people have several photographs there, so it is
    a lower bound):

    | distance | purity | photographs apart from their copy | largest cluster |
    | --- | --- | --- | --- |
    | 0.35 | 0.988 | 0.3% | 0.1% |
    | **0.40** | **0.958** | **0.5%** | **0.6%** |
    | 0.45 | 0.874 | 0.8% | 4.3% |
    | 0.50 | 0.673 | 2.4% | 10.4% |
    | 0.60, as `face_recognition` compares two faces | 0.116 | 5.4% | 24.5% |

    On 23 real clips of FaceForensics++, DeepFakeDetection and talking heads (four frames each, labelled by their file
    names), 0.40 ties no two people (the closest are 0.44 apart), and two of the three pairs of clips of one actor.
    """

    faces_a_track: int = 4
    """Faces of each track of a real clip that are encoded; their mean stands for the track."""
    distance: float = 0.4
    """Two tracks closer than this (Euclidean) are an edge of the graph that is clustered."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not 1 <= self.faces_a_track <= 100:
            raise ValueError(f"faces a track: got {self.faces_a_track}, expected 1 to 100")
        if not 0.1 <= self.distance <= 0.8:
            raise ValueError(f"distance: got {self.distance}, expected 0.1 to 0.8 (one person: below 0.6, mostly)")


def same_people(index: FaceIndex, encodings: Encodings, options: IdentityOptions) -> Pairs:
    """Pairs of faces of one person: each clip of a person with the first one, and fakes with the people in their names.

    Raises:
        ValueError: if no face of the index has an encoding.
    """
    rows, values = encodings.rows(index)
    if not len(rows):
        raise ValueError("people: got no encoding of any face, expected those of real faces")
    tracks, means = track_means(index, rows, values)
    labels = cluster_people(means, options.distance)
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return np.concatenate([np.stack([tracks[first[place]], tracks], axis=1), named_pairs(index)])


def track_means(index: FaceIndex, rows: npt.NDArray[np.int64], values: Values) -> tuple[npt.NDArray[np.int64], Values]:
    """For each track of each clip, one of its places in the index, and the mean of its encodings."""
    table = index.table.select(["video_uri", "track_id"]).take(rows)
    uris = table["video_uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    keys = np.stack([uris, table["track_id"].to_numpy()], axis=1)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), values.shape[1]), np.float64)
    np.add.at(sums, place.ravel(), values)
    counts = np.bincount(place.ravel())
    return rows[first], np.asarray(sums / counts[:, None], np.float32)


def cluster_people(values: Values, distance: float) -> npt.NDArray[np.int64]:
    """A number of a person for each encoding, by Chinese whispers (Biemann 2006) as dlib has it; shape (n,).

    The edges come from blocks of a matrix product: dlib's own search takes 2 minutes for 19,000 encodings.
    """
    import dlib

    edges = [pair for block in _edges(values, distance) for pair in block.tolist()]
    return np.asarray(dlib.chinese_whispers(edges), np.int64)


def _edges(values: Values, distance: float) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs closer than `distance`, and each place with itself as dlib has it, in ascending order."""
    squares = np.einsum("ij,ij->i", values, values)
    for start in range(0, len(values), _COMPARED_AT_ONCE):
        some = slice(start, start + _COMPARED_AT_ONCE)
        apart = squares[some, None] + squares[None, start:] - 2 * values[some] @ values[start:].T
        near = np.argwhere(apart < distance**2) + start
        itself = np.repeat(np.arange(start, min(start + _COMPARED_AT_ONCE, len(values)))[:, None], 2, axis=1)
        pairs = np.concatenate([itself, near[near[:, 0] < near[:, 1]]])
        yield pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def named_pairs(index: FaceIndex) -> Pairs:
    """Fakes with a real clip of the donor, whose face they wear, and one of the target, where files' names tell.

    The target's matters where a fake's own original was set aside. Read from names as in FaceForensics++ (Roessler et
    al. 2019), DeepFakeDetection (Dufour and Gully 2019) and Celeb-DF (Li et al. 2020), and only where the target is
    the person of the fake's original. DFDC names no donors.
    """
    uris, sources = (index.table[name].to_pylist() for name in ("video_uri", "source_id"))
    people: dict[tuple[int, str, str], int] = {}
    labels = index.labels.tolist()
    for row, (uri, label) in enumerate(zip(uris, labels, strict=True)):
        for kind, original in enumerate(_ORIGINALS):
            found = original.fullmatch(_stem(uri)) if label == 0 else None
            if found:
                people.setdefault((kind, found["stem"], found["person"]), row)
    pairs = set()
    for row, (uri, source, label) in enumerate(zip(uris, sources, labels, strict=True)):
        for kind, (fake, original) in enumerate(zip(_NAMED, _ORIGINALS, strict=True)):
            named, target = fake.fullmatch(_stem(uri)), original.fullmatch(_stem(source))
            if label != 1 or not named or not target or named["target"] != target["person"]:
                continue
            for person in (named["donor"], named["target"]):
                if (kind, target["stem"], person) in people:
                    pairs.add((row, people[kind, target["stem"], person]))
    return np.asarray(sorted(pairs), np.int64).reshape(-1, 2)


def _stem(path: str) -> str:
    """The name of a file without its folder and its ending."""
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
