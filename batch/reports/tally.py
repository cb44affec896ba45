"""The committed tables of a preprocessing output in, what its report shows of them out, in one pass each.

Memory does not grow with the corpus: counts have a limit of keys, sizes and durations are counted into fixed bins,
and the files that are named on the page are a sample of fixed size. One commit's table is held at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.records import Reason
from batch.reports.bounded import Distribution, Sample, Tally
from batch.shards.commit import Commit
from batch.shards.read import face_tables, outcome_tables
from batch.storage.base import Storage

LABELS = {0: "real", 1: "fake", None: "unknown"}
MAX_PARTS = 64
SHOWN_PER_REASON = 8
_SOURCES, _FACES_PER_SOURCE = 4096, 12
_MAX_FACE_PX, _MAX_TENTHS_S = 8192, 36_000

_COLUMNS = (
    "video_key", "video_uri", "part", "source_id", "label", "outcome", "detail", "faces",
    "width_px", "height_px", "duration_s", "fps", "codec",
)  # fmt: skip
_SIZE_COLUMNS = ("label", "crop_box_px", "face_width_px", "face_height_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unkept:
    """A video that gave no face, as the page names it."""

    uri: str
    key: str
    detail: str
    example: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRef:
    """Where a kept video's face crops lie."""

    commit: int
    """Index into the commits."""
    key: str
    label: int | None


@dataclass(slots=True, kw_only=True)
class Outcomes:
    """What the outcome tables hold. Filled by `tally_outcomes`."""

    reasons: Counter[str] = field(default_factory=Counter)
    videos: Counter[str] = field(default_factory=Counter)
    """Listed videos by label."""
    kept: Counter[str] = field(default_factory=Counter)
    """Kept videos by label."""
    parts: Tally[tuple[str, str]] = field(default_factory=lambda: Tally(MAX_PARTS * len(LABELS)))
    """Face rows by part and label."""
    frame_sizes: Tally[tuple[int, int]] = field(default_factory=lambda: Tally(4096))
    codecs: Tally[str] = field(default_factory=lambda: Tally(64))
    frame_rates: Tally[float] = field(default_factory=lambda: Tally(1024))
    durations_s: Distribution = field(default_factory=lambda: Distribution(0.1, _MAX_TENTHS_S))
    unkept: defaultdict[str, Sample[Unkept]] = field(
        default_factory=lambda: defaultdict(lambda: Sample(SHOWN_PER_REASON))
    )
    """A sample of the videos that gave no face, by reason."""
    sources: Sample[list[FaceRef]] = field(default_factory=lambda: Sample(_SOURCES))
    """A sample of source ids, each with the first of its kept videos of either label."""


@dataclass(slots=True, kw_only=True)
class FaceSizes:
    """How large faces are in the original frames. Filled by `tally_faces`."""

    by_label: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution(1, _MAX_FACE_PX) for name in LABELS.values()}
    )
    """Longer side of the face's box in pixels."""
    enlarged: int = 0
    """Crops cut from a window smaller than the crop."""
    reduced: int = 0
    same: int = 0

    @property
    def all_faces(self) -> Distribution:
        """The labels added up."""
        merged = Distribution(1, _MAX_FACE_PX)
        for distribution in self.by_label.values():
            merged.counts += distribution.counts
        return merged


def tally_outcomes(sink: Storage, commits: Sequence[Commit], *, pictures: bool) -> Outcomes:
    """Reads every outcome table once; example frames are read only where `pictures` is true."""
    result = Outcomes()
    columns = (*_COLUMNS, "example") if pictures else _COLUMNS
    for index, table in _latest(sink, commits, columns):
        _count_outcomes(result, table)
        _sample_unkept(result, table)
        _sample_sources(result, table, index)
    return result


def tally_faces(sink: Storage, commits: Sequence[Commit], crop_size: int | None) -> FaceSizes:
    """Reads the sizes of every face; no picture. Without a crop size nothing counts as enlarged or reduced."""
    result = FaceSizes()
    for table in face_tables(sink, commits, _SIZE_COLUMNS):
        side = np.maximum(_floats(table["face_width_px"]), _floats(table["face_height_px"]))
        labels = np.asarray(pc.fill_null(table["label"], -1))
        for value, name in LABELS.items():
            result.by_label[name].add(side[labels == (-1 if value is None else value)])
        if crop_size is not None:
            window = _longer_side(table["crop_box_px"])
            result.enlarged += int((window < crop_size).sum())
            result.reduced += int((window > crop_size).sum())
            result.same += int((window == crop_size).sum())
    return result


def _latest(sink: Storage, commits: Sequence[Commit], columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Every video's row of its highest generation, with the index of its commit, unit by unit."""
    order = sorted(range(len(commits)), key=lambda index: (commits[index].unit, -commits[index].generation))
    for _, indices in groupby(order, key=lambda index: commits[index].unit):
        generations = list(indices)
        seen = pa.array([], pa.string())
        tables = outcome_tables(sink, (commits[index] for index in generations), columns)
        for index, table in zip(generations, tables, strict=True):
            rows = table.filter(pc.invert(pc.is_in(table["video_key"], value_set=seen)))
            yield index, rows
            if len(generations) > 1:
                seen = pa.concat_arrays([seen, rows["video_key"].combine_chunks()])


def _count_outcomes(result: Outcomes, table: pa.Table) -> None:
    for row in _grouped(table, "outcome", "label"):
        name = LABELS[row["label"]]
        result.reasons[row["outcome"]] += row["count"]
        result.videos[name] += row["count"]
        result.kept[name] += row["count"] if row["outcome"] == Reason.KEPT else 0
    faces = table.group_by(["part", "label"]).aggregate([("faces", "sum")]).to_pylist()
    for row in faces:
        if row["faces_sum"]:
            result.parts.add((row["part"], LABELS[row["label"]]), row["faces_sum"])
    for row in _grouped(table, "width_px", "height_px"):
        if row["width_px"] and row["height_px"]:
            result.frame_sizes.add((row["width_px"], row["height_px"]), row["count"])
    for row in _grouped(table, "codec"):
        if row["codec"]:
            result.codecs.add(row["codec"], row["count"])
    for row in _grouped(table, "fps"):
        if row["fps"]:
            result.frame_rates.add(round(row["fps"], 2), row["count"])
    result.durations_s.add(_floats(table["duration_s"]))


def _sample_unkept(result: Outcomes, table: pa.Table) -> None:
    unkept = table.filter(pc.not_equal(table["outcome"], str(Reason.KEPT)))
    for row in unkept.to_pylist():
        example = (row.get("example") or {}).get("bytes")
        found = Unkept(uri=row["video_uri"], key=row["video_key"], detail=row["detail"], example=example)
        result.unkept[row["outcome"]].offer(row["video_key"], found)


def _sample_sources(result: Outcomes, table: pa.Table, commit: int) -> None:
    kept = table.select(["source_id", "video_key", "label", "faces"]).filter(pc.greater(table["faces"], 0))
    for row in kept.to_pylist():
        source = row["source_id"]
        if not result.sources.wants(source):
            continue
        refs = result.sources.get(source)
        if refs is None:
            result.sources.offer(source, refs := [])
        if sum(ref.label == row["label"] for ref in refs) < _FACES_PER_SOURCE:
            refs.append(FaceRef(commit=commit, key=row["video_key"], label=row["label"]))


def _grouped(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    counted = table.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()
    return [{**row, "count": row["count_all"]} for row in counted]


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A numeric column as float64, null as NaN."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)


def _longer_side(boxes: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    sides = {name: _floats(pc.struct_field(boxes, name)) for name in ("left", "top", "right", "bottom")}
    return np.asarray(np.maximum(sides["right"] - sides["left"], sides["bottom"] - sides["top"]))
