"""One media file in, its outcome and face crops out: read, decode, detect, crop.

Preprocessing, evaluation and scoring all crop with `extract_video`, so that a model meets the pixels that it was
trained on. A bad file is an outcome, never an exception; what propagates is a bug, or a store that refuses access.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from batch.faces.clock import Clock
from batch.faces.crop import crop_window, cut, encode, example_jpeg
from batch.faces.decode import MediaError, decode
from batch.faces.detect import Detector, make_detector
from batch.faces.frame import DecodedFrame
from batch.faces.images import decode_image, is_image
from batch.faces.options import FaceOptions
from batch.faces.prefetch import Turn, shared_prefetcher
from batch.faces.track import Tracker
from batch.records import Cost, Detection, FaceRow, MediaInfo, Reason, VideoRef, VideoResult
from batch.storage.base import AccessError, DeniedError, Storage, StorageError
from batch.storage.ranged import RangedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """`extract_video` with everything but the video given: small, and sent to processes as it is."""

    source: Storage
    options: FaceOptions
    pictures: bool = True

    def __call__(self, video: VideoRef, upcoming: Sequence[VideoRef] = ()) -> VideoResult:
        """Looks at one video; begins to fetch the upcoming ones if the store is remote."""
        turn = None
        if not self.source.is_local:
            first = self.options.frames == "first"
            turn = shared_prefetcher().take(self.source, video, upcoming, packet=first)
        return extract_video(self.source, video, self.options, pictures=self.pictures, turn=turn)

    def prepare(self) -> None:
        """Starts what is kept from video to video, so that no video's clock and memory pay for it."""
        if not self.source.is_local:
            shared_prefetcher()


def extract_each(
    videos: Iterable[VideoRef], extract: Callable[[VideoRef], VideoResult], *, is_readable: bool = False
) -> Iterator[VideoResult]:
    """Looks at videos of one store, in their order.

    One that may not be read is `storage_error` where another could be read, or `is_readable` says that others were:
    a single object may have a key or a rule of its own.

    Raises:
        AccessError: where the store refuses access; a DeniedError, at the end, where none of these could be read.
    """
    denied: DeniedError | None = None
    for video in videos:
        try:
            result = extract(video)
        except DeniedError as error:
            denied = denied or error
            result = VideoResult(video=video, reason=Reason.STORAGE_ERROR, detail=str(error))
        is_readable |= was_given(result)
        yield result
    if denied is not None and not is_readable:
        raise denied


def was_given(result: VideoResult) -> bool:
    """Whether the store gave anything of the video: an empty one tells nothing of permissions."""
    return result.cost.bytes_read > 0


def extract_video(
    source: Storage, video: VideoRef, options: FaceOptions, *, pictures: bool = True, turn: Turn | None = None
) -> VideoResult:
    """Looks at one video.

    `pictures=False` keeps no example frame of a set-aside video. `turn` is the video with what of it was fetched
    early.

    Raises:
        AccessError: where a remote store refuses credentials, or a DeniedError this one video. A single local file
            without permission is an outcome.
    """
    detector = make_detector(options.detect)
    file = turn.file if turn else RangedFile(source, video.key, video.size_bytes, video.etag)
    clock = Clock(lambda: file.waited_s)
    try:
        result = _look(file, video, options, detector, clock, pictures=pictures)
    except MediaError as error:
        result = VideoResult(video=video, reason=error.reason, detail=str(error))
    except StorageError as error:
        result = VideoResult(video=video, reason=Reason.STORAGE_ERROR, detail=str(error))
    if file.error is not None:
        # FFmpeg took the missing bytes for the file's end or for damage: the store is to blame, not the file.
        result = VideoResult(video=video, reason=Reason.STORAGE_ERROR, detail=str(file.error))
        if isinstance(file.error, AccessError) and not source.is_local:
            raise file.error
    clock.seconds["read"] += file.waited_s + (turn.waited_s if turn else 0)  # type: ignore[assignment]
    if turn:
        clock.seconds["hidden"] += turn.hidden_s  # type: ignore[assignment]
    cost = Cost(bytes_read=file.bytes_read, requests=file.requests, seconds=dict(clock.seconds))
    return replace(result, cost=cost)


def _look(
    file: RangedFile,
    video: VideoRef,
    options: FaceOptions,
    detector: Detector,
    clock: Clock,
    *,
    pictures: bool,
) -> VideoResult:
    rows: list[FaceRow] = []
    tally = _Tally()
    tracker = Tracker()
    with ExitStack() as stack:
        with clock.stage("open"):
            way = decode_image(file, options.frames) if is_image(video.key) else decode(file, options.frames, clock)
            decoded = stack.enter_context(way)
        for frame, seen in _detections(decoded.frames, detector, clock):
            found = tally.add(frame, seen, options)
            with clock.stage("crop"):
                tracks = tracker.assign(found)
                rows += [
                    _crop(video, decoded.media, frame, face, track, options, detector.name, clock)
                    for face, track in zip(found, tracks, strict=True)
                ]
        reason = tally.reason(options)
        with clock.stage("crop"):
            aside = tally.fullest if pictures and reason is not Reason.KEPT else None
            example = None if aside is None else example_jpeg(aside)
    return VideoResult(
        video=video,
        reason=reason,
        detail=tally.detail(reason),
        media=decoded.media,
        decoded_by=decoded.path,
        faces_found=tally.most,
        frames_seen=tally.frames,
        faces=tuple(rows) if reason is Reason.KEPT else (),
        example=example,
    )


def _detections(
    frames: Iterator[DecodedFrame], detector: Detector, clock: Clock
) -> Iterator[tuple[DecodedFrame, list[Detection]]]:
    """Each frame with its faces; as many frames in memory as the detector takes at once."""
    while True:
        with clock.stage("decode"):
            batch = list(itertools.islice(frames, detector.batch_frames))
        if not batch:
            return
        with clock.stage("detect"):
            found = detector.detect_many(batch)
        yield from zip(batch, found, strict=True)


class _Tally:
    """What the frames of one video held so far, and what follows from it."""

    def __init__(self) -> None:
        self.frames = 0
        self.most = 0
        self.smallest_px: int | None = None
        self.fullest: DecodedFrame | None = None

    def add(self, frame: DecodedFrame, found: Sequence[Detection], options: FaceOptions) -> list[Detection]:
        """Counts a frame's faces; gives back those that are large enough."""
        least_px = options.detect.min_face * min(frame.width_px, frame.height_px)
        large = [face for face in found if min(face.box_px.width, face.box_px.height) >= least_px]
        for face in found:
            if face not in large:
                self.smallest_px = max(self.smallest_px or 0, face.box_px.width)
        if self.fullest is None or len(large) > self.most:
            self.fullest = frame
        self.most = max(self.most, len(large))
        self.frames += 1
        return large

    def reason(self, options: FaceOptions) -> Reason:
        """The outcome of a video whose frames could all be seen."""
        if self.most == 0:
            return Reason.NO_FACE if self.smallest_px is None else Reason.FACE_TOO_SMALL
        return Reason.SEVERAL_FACES if self.most > 1 and options.faces == "one" else Reason.KEPT

    def detail(self, reason: Reason) -> str:
        """One line for a person."""
        frames = "the frame" if self.frames == 1 else f"{self.frames} frames"
        if reason is Reason.NO_FACE:
            return f"no face in {frames}"
        if reason is Reason.SEVERAL_FACES:
            return f"{self.most} faces in one frame"
        return f"largest face {self.smallest_px} px wide" if reason is Reason.FACE_TOO_SMALL else ""


def _crop(
    video: VideoRef,
    media: MediaInfo,
    frame: DecodedFrame,
    face: Detection,
    track: int,
    options: FaceOptions,
    detector: str,
    clock: Clock,
) -> FaceRow:
    window = crop_window(face.box_px, frame.width_px, frame.height_px, options.crop)
    crop_rgb = cut(frame, window, options.crop)
    with clock.stage("encode"):
        image = encode(crop_rgb, options.crop.encoding)
    return FaceRow(
        video=video,
        media=media,
        frame_index=frame.index,
        pts_s=frame.pts_s,
        track_id=track,
        image=image,
        face_box_px=face.box_px,
        crop_box_px=window,
        detector=detector,
        score=face.score,
    )
