"""An index of faces in, the groups that no split may part out: clips of one source, with all that is tied to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from batch.model.records import FaceIndex
from batch.shards.purged import source_digest

Pairs = npt.NDArray[np.int64]
"""Places in the index of two faces that belong together, shape (pairs, 2)."""

_ID_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A group for each face of an index."""

    numbers: npt.NDArray[np.int64]
    """Of each face's group, 0 to `len(ids) - 1`, shape (faces,)."""
    ids: tuple[str, ...]
    """16 hex digits of each group: of its smallest source id, so that equal groups of two data sets have one id."""

    def of_faces(self) -> pa.Array:
        """The id of each face's group."""
        return pa.DictionaryArray.from_arrays(self.numbers, pa.array(self.ids, pa.string())).dictionary_decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestGroup:
    """The group with the most faces."""

    id: str
    faces: int
    share: float
    """Of all faces, 0 to 1."""
    sources: tuple[str, ...]
    """All its source ids, sorted."""


def group_faces(index: FaceIndex, *, parts: bool = False, pairs: Pairs | None = None) -> Groups:
    """Groups of faces: the connected components of everything that ties two sources together.

    Faces of one `source_id` are one group; so are a fake and its original where that is a fake itself (chains), and
    where another output names the same original by a longer or shorter path. `parts`: faces of one part of the
    corpus are tied as well. `pairs`: near-duplicates, or clips of one person.
    """
    codes, names = _coded(index.table["source_id"])
    edges = [*_chains(index.table, codes, names), *_by_video(index.table, codes)]
    if parts:
        edges.append(_star(_coded(index.table["part"])[0], codes))
    if pairs is not None and len(pairs):
        edges.append(codes[pairs])
    return _components(codes, names, edges)


def largest_group(index: FaceIndex, groups: Groups) -> LargestGroup:
    """The group with the most faces; of two as large, the one with the smaller id."""
    faces = np.bincount(groups.numbers, minlength=len(groups.ids))
    number = min(np.flatnonzero(faces == faces.max()), key=lambda group: groups.ids[group])
    sources = pc.unique(index.table["source_id"].filter(pa.array(groups.numbers == number))).to_pylist()
    return LargestGroup(
        id=groups.ids[number],
        faces=int(faces[number]),
        share=float(faces[number] / len(groups.numbers)),
        sources=tuple(sorted(sources)),
    )


def _coded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A code for each row, and the name that each code stands for."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices.to_numpy(), np.int64), encoded.dictionary.to_pylist()


def _by_video(table: pa.Table, codes: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """A corpus that was labelled twice may tell two sources of one video."""
    yield _star(_coded(table["video_uri"])[0], codes)


def _star(keys: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ties all codes that share a key to the first code of that key; shape (edges, 2)."""
    unique = np.unique(np.stack([keys, codes], axis=1), axis=0)
    _, first, place = np.unique(unique[:, 0], return_index=True, return_inverse=True)
    return np.stack([unique[first[place], 1], unique[:, 1]], axis=1)


def _chains(table: pa.Table, codes: npt.NDArray[np.int64], names: list[str]) -> Iterator[npt.NDArray[np.int64]]:
    """Ties a source that a clip names to the source of the clip that has this name.

    A source id is a file's name (DFDC) or a key under INPUT; either is the end of the uri of the clip that it means.
    Ids that stand for the clip itself are no references: equal file names in two folders are then two sources.
    """
    videos, uris = _coded(table["video_uri"])
    clips = np.unique(np.stack([videos, codes], axis=1), axis=0).tolist()
    named = {names[code]: code for video, code in clips if not ends_with(uris[video], names[code])}
    depths = sorted({name.count("/") + 1 for name in named})
    found = [
        (named[end], code)
        for video, code in clips
        for depth in depths
        if (end := "/".join(uris[video].rsplit("/", depth)[-depth:])) in named
    ]
    yield np.asarray(found, np.int64).reshape(-1, 2)


def ends_with(path: str, name: str) -> bool:
    """Whether `name` is the whole of a path or its last components."""
    return path == name or path.endswith(f"/{name}")


def _components(codes: npt.NDArray[np.int64], names: list[str], edges: list[npt.NDArray[np.int64]]) -> Groups:
    ends = np.concatenate([np.zeros((0, 2), np.int64), *(edge.reshape(-1, 2) for edge in edges)])
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    count, component = connected_components(graph, directed=False)
    smallest: list[str | None] = [None] * count
    for code in sorted(range(len(names)), key=names.__getitem__):
        number = component[code]
        if smallest[number] is None:
            smallest[number] = names[code]
    ids = tuple(source_digest(name or "")[:_ID_DIGITS] for name in smallest)
    return Groups(numbers=np.asarray(component, np.int64)[codes], ids=ids)
