"""The face grid: real faces beside fakes of the same source, read from as few shards as will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch.reports.bounded import Sample
from batch.reports.tally import LABELS, FaceRef
from batch.reports.thumbs import thumbnail
from batch.shards.commit import Commit
from batch.shards.read import face_tables
from batch.storage.base import Storage

ROWS, FAKES_PER_ROW, LOOSE_FACES = 12, 4, 24
THUMB_PX = 144
# A shard is up to 50 MB, and its pictures cannot be read one by one.
MAX_SHARDS = 16
_COLUMNS = ("video_key", "image", "face_width_px", "face_height_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face on the page."""

    label: str
    """`real`, `fake` or `unknown`."""
    key: str
    """Its video."""
    picture: str
    """A `data:` address."""
    width_px: int
    """Of the face in the original frame."""
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceGroup:
    """Faces of one source: the real one first, then its fakes."""

    source_id: str
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceGrid:
    """What the page shows of the faces."""

    pairs: tuple[FaceGroup, ...]
    """One group a source that has both labels."""
    loose: tuple[Face, ...]
    """Where no source has both: single faces of several sources."""


def face_grid(sink: Storage, commits: Sequence[Commit], sources: Sample[list[FaceRef]]) -> FaceGrid:
    """Chooses sources by their hash, so that the same output always shows the same faces, and reads their pictures."""
    plan = _plan_pairs(sources)
    if plan:
        faces = _read(sink, commits, [ref for _, refs in plan for ref in refs])
        return FaceGrid(pairs=_groups(plan, faces), loose=())
    refs = _plan_loose(sources)
    faces = _read(sink, commits, refs)
    loose = [faces[ref.key] for ref in sorted(refs, key=lambda ref: str(ref.label)) if ref.key in faces]
    return FaceGrid(pairs=(), loose=tuple(loose))


def _plan_pairs(sources: Sample[list[FaceRef]]) -> list[tuple[str, list[FaceRef]]]:
    """Sources with the videos to show, the real one first; together in at most MAX_SHARDS commits."""
    both = [(source, refs) for source, refs in sources.in_hash_order() if {ref.label for ref in refs} >= {0, 1}]
    # Sources whose real and fake lie in one shard first: the same pages for fewer reads.
    both.sort(key=lambda pair: _best_real(pair[1])[1] == 0)
    opened: set[int] = set()
    plan: list[tuple[str, list[FaceRef]]] = []
    for source, refs in both:
        chosen, needed = _choose(refs, opened)
        if len(chosen) > 1:
            plan.append((source, chosen))
            opened |= needed
        if len(plan) == ROWS:
            break
    return sorted(plan, key=lambda pair: pair[0])


def _best_real(refs: Sequence[FaceRef]) -> tuple[FaceRef, int]:
    """The real video that shares its commit with the most fakes, and how many."""
    fakes = [ref.commit for ref in refs if ref.label == 1]
    return max(((ref, fakes.count(ref.commit)) for ref in refs if ref.label == 0), key=lambda pair: pair[1])


def _choose(refs: Sequence[FaceRef], opened: Collection[int]) -> tuple[list[FaceRef], set[int]]:
    """A real video and its fakes as far as the bound on shards allows, and the commits that they are in."""
    real, _ = _best_real(refs)
    fakes = [ref for ref in refs if ref.label == 1]
    fakes.sort(key=lambda ref: (ref.commit != real.commit, ref.commit not in opened, ref.key))
    chosen, needed = [real], {real.commit}
    for fake in fakes:
        if len({*opened, *needed, fake.commit}) <= MAX_SHARDS and len(chosen) <= FAKES_PER_ROW:
            chosen.append(fake)
            needed.add(fake.commit)
    return chosen, needed


def _plan_loose(sources: Sample[list[FaceRef]]) -> list[FaceRef]:
    """One video a source, both labels and unknown ones as evenly as they come."""
    turns: Counter[int | None] = Counter()
    ranked: list[tuple[int, FaceRef]] = []
    for _, found in sources.in_hash_order():
        ranked.append((turns[found[0].label], found[0]))
        turns[found[0].label] += 1
    ranked.sort(key=lambda pair: pair[0])
    opened: set[int] = set()
    chosen: list[FaceRef] = []
    for _, ref in ranked:
        if len(chosen) < LOOSE_FACES and len(opened | {ref.commit}) <= MAX_SHARDS:
            chosen.append(ref)
            opened.add(ref.commit)
    return chosen


def _read(sink: Storage, commits: Sequence[Commit], refs: Iterable[FaceRef]) -> dict[str, Face]:
    """The first face of each video, by its key. One shard's pictures are in memory at a time."""
    faces: dict[str, Face] = {}
    ordered = sorted(refs, key=lambda ref: ref.commit)
    for index, group in groupby(ordered, key=lambda ref: ref.commit):
        labels = {ref.key: ref.label for ref in group}
        for table in face_tables(sink, [commits[index]], _COLUMNS):
            wanted = table.filter(pc.is_in(table["video_key"], value_set=pa.array(list(labels), pa.string())))
            for row in wanted.to_pylist():
                key = row["video_key"]
                if key not in faces:
                    faces[key] = _face(row, LABELS[labels[key]])
    return faces


def _face(row: Mapping[str, Any], label: str) -> Face:
    return Face(
        label=label,
        key=row["video_key"],
        picture=thumbnail(row["image"]["bytes"], THUMB_PX),
        width_px=row["face_width_px"],
        height_px=row["face_height_px"],
    )


def _groups(plan: Sequence[tuple[str, Sequence[FaceRef]]], faces: dict[str, Face]) -> tuple[FaceGroup, ...]:
    groups = (
        FaceGroup(source_id=source, faces=tuple(faces[ref.key] for ref in refs if ref.key in faces))
        for source, refs in plan
    )
    return tuple(group for group in groups if len(group.faces) > 1)
