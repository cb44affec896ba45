"""The few most suspicious items in, their faces as the model saw them and the frames around them out.

Tables hold no pictures. So these files alone are opened again, in decoding processes of their own as in extraction,
and the window that the tables name is cut from the frame that they name: no detector runs. It is the same decoder,
the same cut and the same encoding, hence the same pixels that were scored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from batch.faces.crop import cut, encode, example_jpeg
from batch.faces.decode import MediaError, decode
from batch.faces.frame import DecodedFrame
from batch.faces.images import decode_image, is_image
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import FaceOptions
from batch.records import FaceRow, MediaInfo, Reason, RgbImage, VideoRef, VideoResult
from batch.scoring.look import pixels
from batch.scoring.suspicious import FrameScore, Suspect
from batch.storage.base import Storage, StorageError
from batch.storage.ranged import RangedFile

FRAME_PX = 480
"""Longer side of the frames' pictures."""
_FILES_A_PROCESS = 6
"""A process takes a second or two to start, as long as a few files take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisitOptions:
    """What looking again may take."""

    processes: int = 2
    seconds: float = 180.0
    """No file is opened after so long: the page does without its picture."""

    def __post_init__(self) -> None:
        """Refuses what opens nothing."""
        if self.processes < 1 or self.seconds <= 0:
            raise ValueError(f"revisit: got {self.processes} processes for {self.seconds} s, expected more than none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A suspect's most suspicious face."""

    crop_rgb: RgbImage | None = None
    """As the model saw it, uint8 (side, side, 3)."""
    frame_jpeg: bytes | None = None
    """The frame, its longer side at most `FRAME_PX`."""
    problem: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFinder:
    """An `isolate.Extract` that cuts one known window from one known frame of each of a few known files."""

    sources: tuple[Storage, ...]
    """The INPUTs; a video's `part` holds the number of its own."""
    options: FaceOptions
    """Those that the items were scored with."""
    wanted: Mapping[tuple[str, str], FrameScore]
    """By part and key."""

    def __call__(self, video: VideoRef, upcoming: Sequence[VideoRef] = ()) -> VideoResult:
        """The face as the only one of `faces`, the frame as `example`; a fault where the file cannot be read."""
        file = RangedFile(self.sources[int(video.part)], video.key, video.size_bytes, video.etag)
        wanted = self.wanted[video.part, video.key]
        try:
            way = decode_image if is_image(video.key) else decode
            with way(file, self.options.frames) as decoded:
                for frame in decoded.frames:
                    if frame.index == wanted.frame_index:
                        return self._found(video, decoded.media, frame, wanted)
        except MediaError as error:
            return VideoResult(video=video, reason=error.reason, detail=str(file.error or error))
        except StorageError as error:
            return VideoResult(video=video, reason=Reason.STORAGE_ERROR, detail=str(error))
        detail = str(file.error or f"frame {wanted.frame_index} is not there any more")
        return VideoResult(video=video, reason=Reason.STORAGE_ERROR, detail=detail)

    def _found(self, video: VideoRef, media: MediaInfo, frame: DecodedFrame, wanted: FrameScore) -> VideoResult:
        crop_rgb = cut(frame, wanted.crop_box_px, self.options.crop)
        face = FaceRow(
            video=video, media=media, frame_index=frame.index, pts_s=frame.pts_s, track_id=0,
            image=encode(crop_rgb, self.options.crop.encoding), face_box_px=wanted.face_box_px,
            crop_box_px=wanted.crop_box_px, detector="", score=None,
        )  # fmt: skip
        example = example_jpeg(frame, longest_px=FRAME_PX)
        return VideoResult(video=video, reason=Reason.KEPT, media=media, faces=(face,), example=example)


def revisit(
    suspects: Sequence[Suspect],
    sources: Sequence[Storage],
    faces: FaceOptions,
    limits: LimitOptions,
    options: RevisitOptions | None = None,
) -> tuple[Seen, ...]:
    """The most suspicious face of each suspect, in their order. A file that cannot be read is no error.

    Args:
        suspects: of `suspicious.find`.
        sources: the INPUTs.
        faces: what the items were scored with.
        limits: of one file.
        options: of all of them.
    """
    used = options or RevisitOptions()
    numbers = {source.root: number for number, source in enumerate(sources)}
    places = [place for place, each in enumerate(suspects) if each.followed and each.input in numbers]
    refs = {place: _ref(suspects[place], numbers) for place in places}
    finder = FrameFinder(
        sources=tuple(sources),
        options=faces,
        wanted={(ref.part, ref.key): suspects[place].followed[0].top for place, ref in refs.items()},
    )
    end_s = time.monotonic() + used.seconds
    seen = [Seen(problem=_not_opened(each, numbers)) for each in suspects]
    workers = min(used.processes, -(-len(places) // _FILES_A_PROCESS))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        shares = [{place: refs[place] for place in places[number::workers]} for number in range(workers)]
        for found in pool.map(lambda share: _look(share, finder, limits, end_s), shares):
            for place, each in found.items():
                seen[place] = each
    return tuple(seen)


def _not_opened(suspect: Suspect, numbers: Mapping[str, int]) -> str:
    """Why a suspect is not opened at all."""
    if suspect.input not in numbers:
        return f"it was scored by a run that did not end, and this one does not look at {suspect.input}"
    return f"the frames of {suspect.same_as}, scored on an earlier night, are not there any more"


def _look(share: Mapping[int, VideoRef], finder: FrameFinder, limits: LimitOptions, end_s: float) -> dict[int, Seen]:
    """One decoding process's share."""
    isolated = IsolatedExtractor(finder, limits)
    try:
        found = {}
        for place, ref in share.items():
            if time.monotonic() > end_s:
                found[place] = Seen(problem="not opened again: time was up")
                continue
            try:
                found[place] = _seen(isolated(ref), finder.options.crop.crop_size)
            except RuntimeError as error:  # no decoding process could be started: scores stand without pictures
                found[place] = Seen(problem=f"could not be opened again: {error}")
        return found
    finally:
        isolated.close()


def _seen(result: VideoResult, crop_size: int) -> Seen:
    if result.reason is not Reason.KEPT:
        return Seen(problem=f"could not be opened again: {result.detail or result.reason}")
    return Seen(crop_rgb=pixels([result.faces[0].image], crop_size)[0], frame_jpeg=result.example)


def _ref(suspect: Suspect, numbers: Mapping[str, int]) -> VideoRef:
    return VideoRef(
        key=suspect.key, size_bytes=suspect.size_bytes, etag=suspect.etag, part=str(numbers[suspect.input]),
        label=None, source_id=suspect.key,
    )  # fmt: skip
