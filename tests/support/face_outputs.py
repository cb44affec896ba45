"""Outputs of preprocessing with given clips and crops, made by the real writers: run file, shards, commits, plan."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np
import pyarrow as pa

from batch.faces.crop import encode
from batch.faces.options import CropOptions, FaceOptions, digest_of
from batch.model.records import FaceIndex
from batch.records import Box, FaceRow, MediaInfo, Reason, RgbImage, VideoRef, VideoResult, WorkUnit
from batch.schemas import face_index_schema
from batch.shards.build import build_unit
from batch.shards.runfile import RunFile, claim_output
from batch.shards.write import faces_table
from batch.storage.base import Storage

SIDE = 64
FACES = FaceOptions(crop=CropOptions(crop_size=SIDE))
_BOX = Box(left=0, top=0, right=100, bottom=100)
_DOT = np.zeros((1, 1, 3), np.uint8)
_MEDIA = MediaInfo(duration_s=10.0, fps=25.0, codec="h264", width_px=640, height_px=360)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip with one face in each of its frames."""

    key: str
    label: int | None
    source: str
    split: str | None = None
    crops: Sequence[RgbImage] = field(default_factory=list)
    """One a frame; a picture of its own if none is given."""


def picture(seed: int, side: int = SIDE) -> RgbImage:
    """Blotches of three sizes, the smaller the fainter, as in a photograph; other ones for each seed."""
    rng = np.random.default_rng(seed)
    made = np.full((side, side, 3), 128, np.float32)
    for cells, strength in ((7, 45), (15, 20), (31, 9)):
        coarse = rng.normal(0, strength, (cells, cells, 1)).astype(np.float32) + rng.normal(0, 4, 3).astype(np.float32)
        made += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(made, 0, 255), np.uint8)


def write_output(
    sink: Storage,
    clips: Sequence[Clip],
    *,
    root: str = "/in",
    options: FaceOptions = FACES,
    a_unit: int = 3,
    finished: bool = True,
) -> None:
    """Writes what `fakesift preprocess` would have written for these clips, `a_unit` of them a shard."""
    claim_output(sink, RunFile(kind="preprocess", input=root, shaping={"faces": asdict(options)}, versions={}))
    results = {_ref(clip): _result(clip, number) for number, clip in enumerate(clips)}
    videos = list(results)
    for start in range(0, len(videos), a_unit):
        unit = WorkUnit(id=f"u{start:05d}", videos=tuple(videos[start : start + a_unit]))
        assert build_unit(unit, results.__getitem__, root, sink, options.digest()).won
    if finished:
        sink.put("plan.json", b'{"listed": %d, "units": 0}' % len(videos))


def index_of(clips: Sequence[Clip], root: str = "/in") -> FaceIndex:
    """The index of such an output, without the output: for what looks at no crop."""
    names = face_index_schema().names
    results = [_result(clip, number) for number, clip in enumerate(clips)] if any(c.crops for c in clips) else []
    faces = faces_table(results or [_bare(clip) for clip in clips], root, FACES.digest())
    uris = [
        f"{uri}#{frame}.0"
        for uri, frame in zip(*(faces[n].to_pylist() for n in ("video_uri", "frame_index")), strict=True)
    ]
    places = {"face": uris, "shard": [0] * len(uris), "row": range(len(uris))}
    table = pa.table({name: places[name] if name in places else faces[name] for name in names}, face_index_schema())
    return FaceIndex(table=table, shards=(), face_options=FACES, digest=digest_of(uris))


def _bare(clip: Clip) -> VideoResult:
    return _result(replace(clip, crops=[_DOT]), 0)


def _ref(clip: Clip) -> VideoRef:
    part = clip.key.split("/", maxsplit=1)[0] if "/" in clip.key else ""
    return VideoRef(
        key=clip.key, size_bytes=1, etag="e", part=part, label=clip.label, source_id=clip.source, split=clip.split
    )


def _result(clip: Clip, number: int) -> VideoResult:
    video = _ref(clip)
    faces = faces_of_clip(clip, video, _MEDIA, number)
    return VideoResult(
        video=video, media=_MEDIA, reason=Reason.KEPT, faces_found=1, frames_seen=len(faces), faces=faces
    )


def faces_of_clip(clip: Clip, video: VideoRef, media: MediaInfo, number: int = 0) -> tuple[FaceRow, ...]:
    """One face a crop; without crops a picture that the number draws."""
    return tuple(
        FaceRow(
            video=video, media=media, frame_index=10 * frame, pts_s=frame * 0.4, track_id=0, image=encode(crop, "png"),
            face_box_px=_BOX, crop_box_px=_BOX, detector="hog", score=None,
        )
        for frame, crop in enumerate(clip.crops or [picture(number + 1_000_000)])
    )  # fmt: skip


def real(name: str, **more: object) -> Clip:
    """A real clip, its own source, as DFDC labels it: the source is named by the file's name."""
    return Clip(key=name, label=0, source=name.rsplit("/", 1)[-1], **more)  # type: ignore[arg-type]


def fake(name: str, original: str, **more: object) -> Clip:
    """A fake of the original."""
    return Clip(key=name, label=1, source=original, **more)  # type: ignore[arg-type]


def corpus(sources: int, fakes: int = 2, parts: int = 3) -> list[Clip]:
    """Originals over several parts, each with some fakes beside it."""
    clips: list[Clip] = []
    for number in range(sources):
        folder = f"part_{number % parts}"
        clips.append(real(f"{folder}/real{number:04d}.mp4"))
        clips += [fake(f"{folder}/fake{number:04d}_{nth}.mp4", f"real{number:04d}.mp4") for nth in range(fakes)]
    return clips
