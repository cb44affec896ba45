"""An image file in, the wanted frames out: one of a still picture, evenly spaced ones of an animated one.

Pillow opens and decodes; the frames are those of `faces.frame`, so that detection and crops are the same code as for
videos. Pictures come upright (EXIF orientation), in 8-bit RGB, transparency over black. HEIC and HEIF are read where
the extra `heic` is installed, and are `unreadable` otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from batch.faces.decode import MAX_FRAME_PX, Decoded, MediaError, SeekableFile
from batch.faces.frame import DecodedFrame
from batch.records import MediaInfo, Reason, RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".heic", ".heif")
_HEIF = (".heic", ".heif")
# Only what the suffixes promise: Pillow knows 40 formats more, each with a parser that a stranger's file would reach.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "HEIF")
_CUT_SHORT = ("truncated", "broken data stream", "unexpected end", "not enough image data")


def is_image(key: str) -> bool:
    """Whether a key's suffix (any case) says that it is an image."""
    return key.lower().endswith(IMAGE_SUFFIXES)


@contextmanager
def decode_image(file: SeekableFile, frames: int | Literal["first"]) -> Iterator[Decoded]:
    """Opens an image. Frames come lazily, one in memory at a time.

    Of an animation the frames at the middles of N equal parts of their number are taken, of a HEIC file, whose pictures
    need have nothing in common, the one that it calls primary. A picture of more than `MAX_FRAME_PX` pixels is refused
    by its header, before its pixels are decoded.

    Raises:
        MediaError: for a file that gives no picture, here or while the frames are taken.
    """
    if file.seek(0, 2) == 0:
        raise MediaError(Reason.EMPTY_FILE, "the file has 0 bytes")
    file.seek(0)
    with _faults():
        picture = _open(file)
    try:
        with _faults():
            width, height = _upright_size(picture)
            is_heif = picture.format == "HEIF"
            numbers = [picture.tell()] if is_heif else _numbers(int(getattr(picture, "n_frames", 1)), frames)
        media = MediaInfo(
            duration_s=None, fps=None, codec=str(picture.format).lower(), width_px=width, height_px=height
        )
        yield Decoded(media=media, path="stream", frames=_guarded(_frames(picture, numbers)))
    finally:
        picture.close()


def _guarded(frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    """Turns errors into outcomes only while frames are taken: the same errors of whoever looks at them are bugs."""
    while True:
        with _faults():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _open(file: Any) -> Image:
    from PIL import Image

    _load_parsers()
    with warnings.catch_warnings():
        # Pillow warns of what is refused here by a smaller limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(file, formats=[name for name in _FORMATS if name != "HEIF" or _has_heif()])
    if picture.width * picture.height > MAX_FRAME_PX:
        raise MediaError(
            Reason.FRAME_TOO_LARGE, f"{picture.width} x {picture.height} pixels, limit {MAX_FRAME_PX} in all"
        )
    return picture


def _numbers(count: int, frames: int | Literal["first"]) -> list[int]:
    """Which frames are taken: rising, each once."""
    wanted = 1 if frames == "first" else frames
    if wanted == 1:
        return [0]
    return sorted({count * (2 * number + 1) // (2 * wanted) for number in range(wanted)})


def _frames(picture: Image, numbers: list[int]) -> Iterator[DecodedFrame]:
    import av

    shown_s = 0.0
    at = picture.tell()
    for number in numbers:
        for passed in range(at, number):
            picture.seek(passed)
            picture.load()  # the duration of a WebP's frame is known with its pixels alone
            shown_s += float(picture.info.get("duration", 0)) / 1000
        at = number
        picture.seek(number)
        # A frame of the decoder's own kind, so that everything after it is the code that videos take.
        frame = av.VideoFrame.from_ndarray(_pixels(picture), format="rgb24")
        yield DecodedFrame(frame, index=number, pts_s=shown_s)


def _pixels(picture: Image) -> RgbImage:
    """Upright RGB, uint8 (height, width, 3)."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
        grey = (np.asarray(upright, np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        upright = Image.fromarray(grey)
    if "A" in upright.getbands() or "transparency" in upright.info:
        over = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(over, upright.convert("RGBA"))
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"), np.uint8))


def _upright_size(picture: Image) -> tuple[int, int]:
    """Width and height after the turn that EXIF's orientation (tag 0x0112, 5 to 8: a quarter turn) asks for."""
    turned = picture.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    return (picture.height, picture.width) if turned else (picture.width, picture.height)


@cache
def _has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


@cache
def _load_parsers() -> None:
    """Pillow loads the rest of its parsers by itself only where no formats are named."""
    from PIL import Image

    Image.init()
    if _has_heif():
        importlib.import_module("pillow_heif").register_heif_opener(decode_threads=1)


@contextmanager
def _faults() -> Iterator[None]:
    """Pillow's errors for bad files as outcomes. Its parsers raise nearly every kind, hence the list."""
    from PIL import Image, ImageFile, UnidentifiedImageError

    # face_recognition sets this to True when it is imported: cut files would then end in grey without a word.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    except Image.DecompressionBombError as error:
        raise MediaError(Reason.FRAME_TOO_LARGE, _one_line(error)) from error
    except MemoryError as error:
        raise MediaError(Reason.OUT_OF_MEMORY, "the decoder got no more memory") from error
    except UnidentifiedImageError as error:
        hint = "" if _has_heif() else "; HEIC needs the package pillow-heif (pip install fakesift[heic])"
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES if _has_heif() or suffix not in _HEIF)
        raise MediaError(Reason.UNREADABLE, f"no image of a known kind ({known}){hint}") from error
    except (
        OSError, SyntaxError, ValueError, LookupError, ArithmeticError, TypeError, EOFError, RuntimeError
    ) as error:  # fmt: skip
        told = _one_line(error)
        cut = any(word in told.lower() for word in _CUT_SHORT)
        raise MediaError(Reason.TRUNCATED if cut else Reason.UNREADABLE, told) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
