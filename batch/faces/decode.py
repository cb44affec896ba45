"""A seekable file in, the wanted frames out: one packet decoded for a first frame, key frames sought for N.

The first frame takes the short way where the container allows it: the index is read without the packets, the first
key frame's packet is read by its position, and a fresh decoder is given that packet alone. The usual way decodes
several frames before the first comes out, and one more while it opens. Both give the same pixels.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import av

from batch.faces.clock import Clock
from batch.faces.frame import DecodedFrame
from batch.faces.spaced import shown_frames
from batch.records import MediaInfo, Reason

DecodePath = Literal["key_packet", "stream"]
MAX_FRAME_PX = 64 << 20
"""Width times height of the largest frame that is decoded: 8K has 33 million pixels."""

# Only containers that hold their own packets: a playlist inside a stranger's file must not make us open others.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"
_OPEN = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
_BUFFER_BYTES = 32 << 10
# FFmpeg reads through a gap of up to 32 KiB where it could seek, so hiding a small `mdat` would hide the index.
_SMALL_BYTES = 64 << 10
_MP4_BOXES = frozenset({b"ftyp", b"free", b"skip", b"wide", b"mdat", b"moov", b"moof", b"styp", b"sidx", b"uuid"})
_ODD_NUMBERS = (ValueError, ArithmeticError, LookupError)
# Numbers of frames are 32-bit in the tables; the rest is for the frames that follow one which claims more.
_LAST_INDEX = 2**31 - 1 - 10_000
_IDENTITY_MATRIX = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


class SeekableFile(Protocol):
    """What is read from: a binary file that seeks."""

    def read(self, n: int = -1, /) -> bytes:
        """At most n bytes; fewer only at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves and returns the position."""

    def tell(self) -> int:
        """The position."""


class MediaError(Exception):
    """The file cannot give the wanted frames. Carries the outcome's reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What the container says, how the frames were reached, and the frames, in order."""

    media: MediaInfo
    path: DecodePath
    frames: Iterator[DecodedFrame]


@contextmanager
def decode(file: SeekableFile, frames: int | Literal["first"], clock: Clock | None = None) -> Iterator[Decoded]:
    """Opens a video. Frames come lazily, one in memory at a time.

    Evenly spaced frames are those shown at the middles of N equal parts of the duration. The clock's stage `decode`
    gets what opening takes to decode the first frame.

    Raises:
        MediaError: for a file that gives no frame, here or while the frames are taken.
    """
    size_bytes = file.seek(0, 2)
    if size_bytes == 0:
        raise MediaError(Reason.EMPTY_FILE, "the file has 0 bytes")
    clock = clock or Clock()
    boxes = _top_level_boxes(file, size_bytes)
    quick = _first_by_packet(file, size_bytes, boxes, clock) if frames == "first" else None
    with _faults(size_bytes, boxes):
        if quick is not None:
            yield quick
            return
        file.seek(0)
        container = _open(file)
        try:
            stream = _video_stream(container)
            taken = _guarded(_first(stream, container) if frames == "first" else _even(stream, container, frames))
            # The upright size is known with the first frame alone: the rotation stands beside its pixels.
            with clock.stage("decode"):
                first = next(taken, None)
            if first is None:
                raise MediaError(Reason.TRUNCATED, "no frame could be decoded")
            media = _media(stream, container, first.width_px, first.height_px)
            yield Decoded(media=media, path="stream", frames=itertools.chain([first], taken))
        finally:
            container.close()


def _open(file: Any) -> Any:
    container = av.open(file, container_options=_OPEN, buffer_size=_BUFFER_BYTES, metadata_errors="replace")
    for stream in container.streams.video:
        if stream.codec_context is not None:  # None for a codec that FFmpeg cannot decode
            stream.codec_context.thread_count = 1
    return container


def _video_stream(container: Any) -> Any:
    # A cover picture of a sound file is a video stream to FFmpeg, of one frame that is attached.
    streams = [s for s in container.streams.video if not int(s.disposition) & int(s.disposition.attached_pic)]
    if not streams:
        raise MediaError(Reason.NO_VIDEO_STREAM, f"{len(container.streams)} streams, none of them video")
    stream = streams[0]
    if stream.codec_context is None or not stream.time_base:
        raise MediaError(Reason.UNREADABLE, "the video stream has no codec that can be decoded, or no clock")
    _check_size(int(stream.codec_context.width), int(stream.codec_context.height))
    return stream


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_FRAME_PX:
        raise MediaError(Reason.FRAME_TOO_LARGE, f"{width} x {height} pixels, limit {MAX_FRAME_PX} in all")


def _media(stream: Any, container: Any, width: int, height: int) -> MediaInfo:
    duration_s = None
    if stream.duration is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / 1e6
    return MediaInfo(
        # A damaged header tells negative times.
        duration_s=None if duration_s is None or duration_s < 0 else duration_s,
        fps=float(stream.average_rate) if stream.average_rate else None,
        codec=str(stream.codec_context.name),
        width_px=width,
        height_px=height,
    )


@contextmanager
def _faults(size_bytes: int, boxes: list[tuple[bytes, int, int]]) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:  # FFmpeg's too
        raise MediaError(Reason.OUT_OF_MEMORY, "the decoder got no more memory") from error
    except (av.error.FFmpegError, EOFError, UnicodeError) as error:
        cut = bool(boxes) and (boxes[-1][2] > size_bytes or b"moov" not in {kind for kind, _, _ in boxes})
        if cut and not any(kind == b"moof" for kind, _, _ in boxes):
            detail = f"the file ends before its content: {size_bytes} bytes"
            raise MediaError(Reason.TRUNCATED, detail) from error
        raise MediaError(Reason.UNREADABLE, _one_line(error)) from error


def _guarded(frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    """Turns what impossible numbers in a file make of arithmetic, ours and PyAV's, into `MediaError`.

    Only while frames are taken: the same errors of whoever looks at them are bugs, and pass.
    """
    while True:
        try:
            frame = next(frames, None)
        except _ODD_NUMBERS as error:
            if isinstance(error, av.error.FFmpegError):
                raise
            raise MediaError(Reason.UNREADABLE, f"impossible numbers in the file: {_one_line(error)}") from error
        if frame is None:
            return
        yield frame


def _one_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__


# Taking frames -----------------------------------------------------------------------------------------------


def _wrap(frame: Any, stream: Any, least_index: int) -> DecodedFrame:
    _check_size(frame.width, frame.height)
    start = stream.start_time or 0
    pts_s = max(0.0, float((frame.pts - start) * stream.time_base)) if frame.pts is not None else 0.0
    rate = float(stream.average_rate or 0)
    return DecodedFrame(frame, index=max(least_index, min(_LAST_INDEX, round(pts_s * rate))), pts_s=pts_s)


def _first(stream: Any, container: Any) -> Iterator[DecodedFrame]:
    for frame in container.decode(stream):
        yield _wrap(frame, stream, 0)
        return


def _even(stream: Any, container: Any, count: int) -> Iterator[DecodedFrame]:
    """The frames shown at the middles of `count` equal parts, each once."""
    start = stream.start_time or 0
    duration = stream.duration or (
        int(container.duration / 1e6 / stream.time_base) if container.duration is not None else 0
    )
    if duration <= 0:
        raise MediaError(Reason.UNREADABLE, "the file does not tell its duration, so frames cannot be spaced")
    wanted = [start + duration * (2 * number + 1) // (2 * count) for number in range(count)]
    index = 0
    for target, shown in shown_frames(container, stream, wanted):
        if shown is None:
            raise MediaError(Reason.TRUNCATED, f"no frame at {float((target - start) * stream.time_base):.2f} s")
        frame = _wrap(shown, stream, index)
        index = frame.index + 1
        yield frame


# The short way to a first frame ------------------------------------------------------------------------------


def _top_level_boxes(file: SeekableFile, size_bytes: int) -> list[tuple[bytes, int, int]]:
    """(type, start, end) of an MP4's top-level boxes; empty for other containers. An end may lie past the file's."""
    boxes: list[tuple[bytes, int, int]] = []
    position = 0
    while position + 8 <= size_bytes and len(boxes) < 64:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8 or header[4:8] not in _MP4_BOXES:
            break
        size = int.from_bytes(header[:4], "big")
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:16], "big")
        end = size_bytes if size == 0 else position + max(size, 8)
        boxes.append((header[4:8], position, end))
        position = end
    return boxes


class _WithoutPackets:
    """The file as if its `mdat` were not stored: FFmpeg then reads the index and cannot probe by decoding."""

    def __init__(self, file: SeekableFile, size_bytes: int, mdat: tuple[int, int]) -> None:
        self._file = file
        self._start, self._end = mdat[0] + 16, mdat[1]
        self._position = 0
        self._size_bytes = size_bytes
        self.index = bytearray()

    def read(self, n: int = -1) -> bytes:
        if self._start <= self._position < self._end:
            return b""
        if self._position < self._start:
            n = min(n, self._start - self._position)
        self._file.seek(self._position)
        data = self._file.read(n)
        if self._position >= self._end or self._position + len(data) < self._start:
            self.index += data
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._size_bytes)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _first_by_packet(
    file: SeekableFile, size_bytes: int, boxes: list[tuple[bytes, int, int]], clock: Clock
) -> Decoded | None:
    """The first frame from its packet alone, or None where only the ordinary way is sure."""
    packets = [(start, end) for kind, start, end in boxes if kind == b"mdat"]
    kinds = {kind for kind, _, _ in boxes}
    if (
        len(packets) != 1
        or packets[0][1] - packets[0][0] < _SMALL_BYTES
        or b"moov" not in kinds
        or b"moof" in kinds
        or boxes[-1][2] > size_bytes
    ):
        return None
    reader = _WithoutPackets(file, size_bytes, packets[0])
    try:
        with _open(reader) as container:
            stream = _video_stream(container)
            entry = next(iter(stream.index_entries), None)
            if entry is None or not entry.is_keyframe or entry.is_discard or _turned(bytes(reader.index)):
                return None
            place, size = int(entry.pos), int(entry.size)
            file.seek(place)
            data = file.read(size)
            with clock.stage("decode"):
                frame = _decode_packet(stream.codec_context, data)
            if frame is None:
                return None
            media = _media(stream, container, frame.width, frame.height)
    except (av.error.FFmpegError, EOFError, MemoryError, *_ODD_NUMBERS):
        return None
    _check_size(frame.width, frame.height)
    return Decoded(media=media, path="key_packet", frames=iter([DecodedFrame(frame, index=0, pts_s=0.0)]))


def _decode_packet(described: Any, data: bytes) -> Any | None:
    context = av.CodecContext.create(described.codec.name, "r")
    context.extradata = described.extradata
    context.thread_count = 1
    context.width, context.height = described.width, described.height
    frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    return frames[0] if len(frames) == 1 and not frames[0].is_corrupt else None


def _turned(index: bytes) -> bool:
    """Whether a track header asks for rotation: that stands beside frames that the ordinary way gives, alone."""
    position = index.find(b"tkhd")
    while position >= 0:
        start = position + 8 + (48 if index[position + 4 : position + 5] == b"\x01" else 36)
        if index[start : start + 36] != _IDENTITY_MATRIX:
            return True
        position = index.find(b"tkhd", position + 4)
    return False
