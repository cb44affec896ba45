"""Kept crops in, what extraction would give out: a new bundle needs no second look at the videos."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.records import Box, FaceRow, MediaInfo, Reason, VideoRef, VideoResult
from batch.schemas import FACES_VERSION, ITEMS_VERSION
from batch.scoring.commit import read_commits
from batch.scoring.ledger import read_whole
from batch.scoring.look import pixels
from batch.scoring.records import Looked, ScoreUnit
from batch.shards.commit import COMMITS
from batch.storage.base import DamagedError, MissingObjectError, Storage

_LOG = logging.getLogger(__name__)


def recall(sink: Storage, unit: ScoreUnit, crop_size: int) -> Looked | None:
    """The unit's items as the commit that kept their crops saw them, under their own names or as equal content.

    None if that is not there any more, or is damaged: then the items themselves are looked at.
    """
    start = time.perf_counter()
    try:
        found = _recalled(sink, unit, crop_size)
    except (MissingObjectError, DamagedError) as error:
        _LOG.warning("kept crops of %s are not used: %s", unit.kept, error)
        return None
    if found is None:
        return None
    results, crops = found
    return Looked(results=results, crops=crops, seconds={"recall": time.perf_counter() - start}, recalled=True)


def _recalled(
    sink: Storage, unit: ScoreUnit, crop_size: int
) -> tuple[tuple[VideoResult, ...], npt.NDArray[np.uint8]] | None:
    commit = next(read_commits(sink, [f"{COMMITS}{unit.kept}.json"]), None)
    if commit is None:
        return None
    rows = read_whole(sink, commit.items, ITEMS_VERSION).to_pylist()
    by_content = {row["fingerprint"]: row for row in rows if row["fingerprint"] is not None}
    by_name = {(row["key"], row["etag"]): row for row in rows}
    picked: list[Mapping[str, Any]] = []
    for item in unit.items:
        mark = item.fingerprint.hex() if item.fingerprint else ""
        row = by_content.get(mark) or by_name.get((item.key, item.etag))
        if row is None:
            return None
        picked.append(row)
    faces: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    if commit.faces is not None:
        table = read_whole(sink, commit.faces, FACES_VERSION)
        names = pa.array(sorted({row["key"] for row in picked}))
        for face in table.filter(pc.is_in(table["video_key"], value_set=names)).to_pylist():
            faces[face["video_key"]].append(face)
    results = tuple(_result(item.video, row, faces[row["key"]]) for item, row in zip(unit.items, picked, strict=True))
    encoded = [face["image"]["bytes"] for row in picked for face in faces[row["key"]]]
    return results, pixels(encoded, crop_size)


def _result(video: VideoRef, item: Mapping[str, Any], faces: list[Mapping[str, Any]]) -> VideoResult:
    media = None
    if item["codec"] is not None:
        media = MediaInfo(
            duration_s=item["duration_s"], fps=item["fps"], codec=item["codec"], width_px=item["width_px"],
            height_px=item["height_px"],
        )  # fmt: skip
    return VideoResult(
        video=video,
        reason=Reason.KEPT if item["reason"] is None else Reason(item["reason"]),
        detail=item["detail"],
        media=media,
        frames_seen=item["frames_seen"],
        faces=tuple(_face(video, media, row) for row in faces) if media else (),
    )


def _face(video: VideoRef, media: MediaInfo, row: Mapping[str, Any]) -> FaceRow:
    return FaceRow(
        video=video,
        media=media,
        frame_index=row["frame_index"],
        pts_s=row["pts_s"],
        track_id=row["track_id"],
        image=b"",
        face_box_px=Box(**row["face_box_px"]),
        crop_box_px=Box(**row["crop_box_px"]),
        detector=row["detector"],
        score=row["detector_score"],
    )
