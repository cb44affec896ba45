"""Kept crops in, what extraction would give out: a new bundle needs no second look at the videos."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from batch.records import Box, FaceRow, MediaInfo, Reason, VideoRef, VideoResult
from batch.schemas import FACES_VERSION, ITEMS_VERSION
from batch.scoring.commit import read_commits
from batch.scoring.ledger import read_groups
from batch.scoring.look import pixels
from batch.scoring.records import Looked, ScoreUnit
from batch.shards.commit import COMMITS
from batch.storage.base import MissingObjectError, Storage


def recall(sink: Storage, unit: ScoreUnit, crop_size: int) -> Looked | None:
    """The unit's items as the commit that kept their crops saw them; None if that is not there any more.

    Raises:
        DamagedError: for a shard that cannot be what was written.
    """
    start = time.perf_counter()
    commit = next(read_commits(sink, [f"{COMMITS}{unit.kept}.json"]), None)
    if commit is None:
        return None
    wanted = {item.key: item.video for item in unit.items}
    faces: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    try:
        items = {
            row["key"]: row for group in read_groups(sink, commit.items, ITEMS_VERSION) for row in group.to_pylist()
        }
        for group in read_groups(sink, commit.faces, FACES_VERSION) if commit.faces else ():
            for row in group.to_pylist():
                if row["video_key"] in wanted:
                    faces[row["video_key"]].append(row)
    except MissingObjectError:
        return None
    if not wanted.keys() <= items.keys():
        return None
    results = tuple(_result(wanted[item.key], items[item.key], faces[item.key]) for item in unit.items)
    encoded = [row["image"]["bytes"] for item in unit.items for row in faces[item.key]]
    return Looked(results=results, crops=pixels(encoded, crop_size), seconds={"recall": time.perf_counter() - start})


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
