"""Nights of scoring over small drawn files: listing, tables, commits and summaries are real, the logits are made up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from batch.faces.decode import decode
from batch.faces.images import decode_image, is_image
from batch.faces.options import CropOptions, FaceOptions
from batch.model.aggregate import Aggregation
from batch.model.calibration import Calibration
from batch.model.thresholds import Thresholds
from batch.records import Box, FaceRow, MediaInfo, Reason, VideoResult
from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.listing import list_media
from batch.scoring.records import Item, Looked, ScoringOptions
from batch.scoring.summary import CommitSums, ScoreSummary, write_summary
from batch.scoring.tables import Recipe, unit_tables
from batch.scoring.units import cut_units
from batch.scoring.write import write_unit
from batch.storage.base import Storage
from tests.support.drawn_face import scene

WIDTH, HEIGHT, FRAMES = 480, 270, 5
LARGE, SMALL = (170, 130, 90), (370, 120, 40)
"""Centre and side of the two faces that are drawn."""
FACES = FaceOptions(frames=FRAMES, faces="all", crop=CropOptions(crop_size=64))
SCORING = ScoringOptions(faces=FACES)
SIDE = 64
Logits = Callable[[Item], Sequence[Sequence[float]]]
"""An item's logits by face and frame; the number of frames is the item's own."""


def still(path: Path, seed: int = 0) -> Path:
    """A picture of one person."""
    cv2.imwrite(str(path), scene(WIDTH, HEIGHT, [LARGE], seed)[..., ::-1])
    return path


def moving(path: Path, seed: int = 0, frames: int = 20) -> Path:
    """Two seconds of two people."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture = scene(WIDTH, HEIGHT, [LARGE, SMALL], seed)
        for number in range(frames):
            lit = np.clip(picture * (0.9 + 0.2 * number / frames), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lit, format="rgb24")))
        container.mux(stream.encode())
    return path


@cache
def frames_of(path: Path) -> tuple[tuple[int, float], ...]:
    """Numbers and times of the frames that are looked at."""
    with path.open("rb") as file, (decode_image if is_image(path.name) else decode)(file, FRAMES) as decoded:
        return tuple((frame.index, frame.pts_s) for frame in decoded.frames)


def items_of(sources: Sequence[Storage], **more: object) -> list[Item]:
    """Everything that lies in local INPUTs."""
    return [
        Item(
            input=number, key=each.key, size_bytes=each.size_bytes, etag=each.etag, modified_s=each.modified_s, **more
        )  # type: ignore[arg-type]
        for number, source in enumerate(sources)
        for each in list_media(source)
    ]  # fmt: skip


def score_night(
    sink: Storage, sources: Sequence[Storage], items: Sequence[Item], logits: Logits, *,
    run: int = 1, night: str = "2026-03-02", reasons: Mapping[str, Reason] | None = None, bundle: str = "b" * 16,
    thresholds: Thresholds | None = None, **changes: object,
) -> ScoreSummary:  # fmt: skip
    """Commits items as a run, and writes its summary. `reasons` are of those without a score, by key."""
    recipe = recipe_of(sources, run=run, night=night, bundle=bundle, thresholds=thresholds)
    for unit in cut_units(items, FRAMES, f"run {run}"):
        found = [_looked(sources, item, logits, reasons or {}) for item in unit.items]
        results = tuple(result for result, _ in found)
        values = np.array([value for _, row in found for value in row], np.float32)
        looked = Looked(results=results, crops=np.zeros((len(values), 1, 1, 3), np.uint8))
        write_unit(sink, unit, looked, unit_tables(unit, looked, values, recipe), recipe, {"predict": 0.1})
    return summarized(sink, sources, run=run, night=night, bundle=bundle, **changes)


def recipe_of(
    sources: Sequence[Storage], *, run: int, night: str, bundle: str, thresholds: Thresholds | None = None
) -> Recipe:
    """How a night's logits become rows: probabilities are the sigmoid of the logits."""
    return Recipe(
        run=run, night=night, bundle=bundle, options=SCORING.digest(), crops_options=FACES.digest(),
        calibration=Calibration(), aggregation=Aggregation(), thresholds=thresholds or Thresholds(),
        roots=tuple(source.root for source in sources), prefixes=tuple(source.uri("") for source in sources),
        keep_crops=False,
    )  # fmt: skip


def summarized(
    sink: Storage, sources: Sequence[Storage], *, run: int, night: str, bundle: str, **changes: object
) -> ScoreSummary:
    """Adds a run up, as the job does."""
    sums = CommitSums().add(read_commits(sink, commit_keys(sink, [run])))
    made = ScoreSummary(
        run=run, runs=(run,), night=night, started_at=f"{night}T02:00:00+00:00", ended_at=f"{night}T02:41:12+00:00",
        bundle=bundle, bundle_uri="s3://lab/bundle", options=SCORING.digest(), total=sums.total, inputs=sums.inputs,
        listed={source.root: sum(1 for _ in list_media(source)) for source in sources}, denied={}, filtered=0,
        pending=sums.total.items, left={}, vanished=0, units=sums.counts["units"],
        bytes_listed=sums.counts["bytes_listed"], bytes_read=0, requests=0, seconds={}, rates={},
    )  # fmt: skip
    summary = replace(made, **changes)  # type: ignore[arg-type]
    write_summary(sink, summary)
    return summary


def _looked(
    sources: Sequence[Storage], item: Item, logits: Logits, reasons: Mapping[str, Reason]
) -> tuple[VideoResult, list[float]]:
    reason = reasons.get(item.key)
    if reason is not None:
        return VideoResult(video=item.video, reason=reason, detail=f"told of {item.key}"), []
    frames = frames_of(Path(sources[item.input].root) / item.key)
    picture = is_image(item.key)
    media = MediaInfo(
        duration_s=None if picture else 2.0, fps=None if picture else 10.0, codec="jpeg" if picture else "h264",
        width_px=WIDTH, height_px=HEIGHT,
    )  # fmt: skip
    by_face = logits(item)
    faces, values = [], []
    for place, (index, pts_s) in enumerate(frames):
        for track, row in enumerate(by_face):
            faces.append(_face(item, media, index, pts_s, track))
            values.append(float(row[min(place, len(row) - 1)]))
    result = VideoResult(
        video=item.video, reason=Reason.KEPT, media=media, frames_seen=len(frames), faces=tuple(faces)
    )  # fmt: skip
    return result, values


def _face(item: Item, media: MediaInfo, index: int, pts_s: float, track: int) -> FaceRow:
    x, y, side = LARGE if track == 0 else SMALL
    half, out = side // 2, round(side * 0.65)
    return FaceRow(
        video=item.video, media=media, frame_index=index, pts_s=pts_s, track_id=track, image=b"",
        face_box_px=Box(left=x - half, top=y - half, right=x + half, bottom=y + half),
        crop_box_px=Box(left=x - out, top=y - out, right=x + out, bottom=y + out), detector="cascade", score=1.0,
    )  # fmt: skip
