"""Small clips of every kind, encoded on the spot. Colours are flat areas whose values survive compression."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RED, GREEN, BLUE = (200, 40, 40), (40, 180, 60), (40, 60, 200)


def picture(width: int = 320, height: int = 240, tick: int = 0, noise: int = 0) -> np.ndarray:
    """Top left red, top right green, bottom blue, with a white bar that moves with `tick`, and perhaps noise."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = RED
    frame[: height // 2, width // 2 :] = GREEN
    frame[height // 2 :] = BLUE
    left = (8 * tick) % (width - 8)
    frame[-16:, left : left + 8] = 255
    if noise:
        frame += np.random.default_rng(tick).integers(0, noise, frame.shape, np.uint8)
    return frame


def clip(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (320, 240),
    rate: int = 24,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    colorspace: str | None = None,
    container_options: dict[str, str] | None = None,
    noise: int = 0,
) -> Path:
    """Encodes `frames` pictures. `times` are presentation times in ticks of 1/600 s for a variable frame rate."""
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"crf": "12", **(options or {})}
        if colorspace == "bt709":
            stream.codec_context.colorspace = 1
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(*size, number, noise), format="rgb24")
            if colorspace == "bt709":
                frame = frame.reformat(format=pix_fmt, dst_colorspace="ITU709")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    """An mp4 with sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for _ in range(20):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(np.zeros(1024, np.float32).tobytes())
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
