"""Outputs of scoring as a run would leave them, without a network: results are made up, files and commits are real."""

import os
import socket
from collections.abc import Iterable, Mapping
from datetime import date

import cv2
import numpy as np

from batch.model.aggregate import Aggregation
from batch.model.calibration import Calibration
from batch.model.thresholds import Thresholds
from batch.records import Box, FaceRow, MediaInfo, Reason, VideoResult
from batch.scoring.records import Item, Looked, ScoringOptions
from batch.scoring.runs import Claim, now
from batch.scoring.tables import Recipe, unit_tables
from batch.scoring.units import cut_units
from batch.scoring.write import UnitReport, write_unit
from batch.storage.base import Storage

SIDE = 8
PICTURE = cv2.imencode(".png", np.arange(3 * SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE, 3))[1].tobytes()


def recipe(source: Storage, run: int, options: ScoringOptions, **changes: object) -> Recipe:
    values: dict[str, object] = {
        **{"run": run, "night": "2026-03-02", "bundle": "b", "options": options.digest()},
        **{"crops_options": options.faces.digest(), "calibration": Calibration(), "aggregation": Aggregation()},
        **{"thresholds": Thresholds(), "roots": (source.root,), "prefixes": (source.uri(""),), "keep_crops": False},
    }
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def face(item: Item, frame: int, track: int) -> FaceRow:
    box = Box(left=10, top=10, right=90, bottom=90)
    return FaceRow(
        video=item.video, media=MEDIA, frame_index=frame, pts_s=frame / 10, track_id=track, image=PICTURE,
        face_box_px=box, crop_box_px=box, detector="cascade", score=1.0,
    )  # fmt: skip


MEDIA = MediaInfo(duration_s=2.0, fps=10.0, codec="h264", width_px=320, height_px=240)


def looked(items: Iterable[Item], reasons: Mapping[str, Reason], frames: int = 2) -> Looked:
    """Each item with one face in each frame, but for those with a reason."""
    results = []
    for item in items:
        reason = reasons.get(item.key, Reason.KEPT)
        faces = tuple(face(item, frame, 0) for frame in range(frames)) if reason is Reason.KEPT else ()
        media = None if reason.is_fault else MEDIA
        results.append(VideoResult(video=item.video, reason=reason, media=media, frames_seen=frames, faces=faces))
    count = sum(len(result.faces) for result in results)
    return Looked(results=tuple(results), crops=np.zeros((count, SIDE, SIDE, 3), np.uint8))


def record(
    sink: Storage,
    source: Storage,
    items: Iterable[Item],
    *,
    run: int,
    options: ScoringOptions,
    night: date = date(2026, 3, 2),
    reasons: Mapping[str, Reason] | None = None,
    logit: float = 0.0,
    **changes: object,
) -> list[UnitReport]:
    """Commits items as run `run`, all with the same logit but for those with a reason."""
    made = recipe(source, run, options, night=night.isoformat(), **changes)
    claim(sink, run, night=night, bundle=made.bundle, options=made.options)
    reports = []
    for unit in cut_units(items, 2, "test"):
        seen = looked(unit.items, reasons or {})
        tables = unit_tables(unit, seen, np.full(len(seen.crops), logit, np.float32), made)
        reports.append(write_unit(sink, unit, seen, tables, made, {}))
    return reports


def claim(sink: Storage, run: int, night: date = date(2026, 3, 2), **changes: object) -> Claim:
    values: dict[str, object] = {
        **{"run": run, "state": "ended", "night": night.isoformat(), "host": socket.gethostname(), "pid": os.getpid()},
        **{"started_at": now(), "beat_at": now(), "inputs": ("in",), "bundle": "b", "options": "o"},
    }
    made = Claim(**{**values, **changes})  # type: ignore[arg-type]
    sink.put(made.key, made.to_json())
    return made
