"""Frames in, an H.264 mp4 file out: the same bytes for the same frames, settings, libraries and kind of processor."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw.pose import Frame

SAMPLE_RATE_HZ = 44_100
Samples = npt.NDArray[np.float32]
"""Sound, -1 to 1, shape (n,), one channel."""
_PLAIN = "yuv420p"
_TICKS_PER_S = 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a clip is written."""

    width: int
    height: int
    """Of the upright picture, as a player shows it."""
    fps: Fraction
    crf: int
    """x264's constant rate factor: 18 fine to 40 coarse."""
    pixel_format: str = _PLAIN
    rotation: int = 0
    """Degrees counter-clockwise by which a player turns the stored frame: 0, 90, 180 or 270."""
    interlaced: bool = False
    index_first: bool = False
    """Index before the data, as for streaming. Genuine DFDC files have it at the end."""


class ClipWriter:
    """Writes one file, frame by frame. Use it in a `with` block; the file is whole only after it."""

    def __init__(self, path: Path, encoding: Encoding, sound: Samples | None = None) -> None:
        options = {"movflags": "+faststart"} if encoding.index_first else {}
        self._encoding = encoding
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=encoding.fps, options=_x264(encoding))
        turned = encoding.rotation % 180 == 90
        self._stream.width = encoding.height if turned else encoding.width
        self._stream.height = encoding.width if turned else encoding.height
        self._stream.pix_fmt = encoding.pixel_format
        # More threads cut the picture up differently, and the bytes with it.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        if encoding.rotation:
            self._stream.set_display_rotation(encoding.rotation)
        if sound is not None:
            write_sound(self._container, sound)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the stream and the file; after an error what is there stays cut."""
        if error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, frame: Frame, time_s: float) -> None:
        """Appends an upright frame at its time."""
        stored = np.rot90(frame, -self._encoding.rotation // 90)
        picture = _picture(np.ascontiguousarray(stored), self._encoding.pixel_format)
        picture.pts = round(time_s * _TICKS_PER_S)
        picture.time_base = Fraction(1, _TICKS_PER_S)
        self._container.mux(self._stream.encode(picture))


def _x264(encoding: Encoding) -> dict[str, str]:
    # Superfast also leaves out x264's macroblock tree, which reads memory that it has not written wherever a row is
    # not a multiple of four macroblocks: with it, equal frames do not give equal bytes.
    options = {"preset": "superfast", "crf": str(encoding.crf)}
    if encoding.interlaced:
        options["flags"] = "+ildct+ilme"
        options["x264-params"] = "tff=1"
    return options


def _picture(frame: Frame, pixel_format: str) -> av.VideoFrame:
    """To the stored format. The plain one goes through OpenCV, which takes a third of the time."""
    if pixel_format == _PLAIN:
        planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8)
        return av.VideoFrame.from_ndarray(planes, format=_PLAIN)
    return av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format=pixel_format)


def write_sound(container: av.container.OutputContainer, sound: Samples) -> None:
    """Adds an AAC track with all of the sound."""
    stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=48_000)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def draw_voice(rng: np.random.Generator, pitch_hz: float, duration_s: float) -> Samples:
    """A hummed murmur: harmonics of a wavering pitch that swell with syllables, and room noise."""
    time = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wander = pitch_hz * (1 + 0.06 * np.sin(2 * np.pi * 0.9 * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(wander) / SAMPLE_RATE_HZ
    voiced = sum(np.sin(k * phase) / k for k in range(1, 9))
    swell = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 6)), 0, 1) ** 0.7
    return np.asarray(0.12 * voiced * swell + 0.004 * rng.standard_normal(time.size), np.float32)
