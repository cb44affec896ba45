"""A frame and a face box in, an encoded square crop out."""

from __future__ import annotations

import cv2
import numpy as np

from batch.faces.frame import DecodedFrame
from batch.faces.options import CropOptions
from batch.records import Box, RgbImage

# Paeth and run lengths: what a filter leaves of a video's face seldom repeats, so that searching for repetitions costs
# more than it finds. On 43 crops of 224 px, KB and CPU ms each: this 46.6 and 1.7; level 1 with all filters (what
# OpenCV does by default) 54.5 and 2.5; level 6 47.8 and 10.8; level 9 46.5 and 56; level 1 with Sub 63.1 and 1.6,
# with Up 55.4 and 1.5; no compression 151 and 1.2. The level has no effect on run lengths.
_PNG = [
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH),
]
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
_EXAMPLE_SIDE_PX, _EXAMPLE_QUALITY = 256, 70


def crop_window(face_px: Box, width_px: int, height_px: int, options: CropOptions) -> Box:
    """The window that is cut, in pixels of the frame.

    With `clip`, the face box with its margins, cut at the frame's edge. With `replicate`, a square around its
    centre, moved into the frame where it fits; it leaves the frame only where it is larger than the frame.
    """
    longer = max(face_px.width, face_px.height)
    extra = round(longer * options.margin)
    if options.border == "clip":
        return Box(
            left=max(0, face_px.left - extra),
            top=max(0, face_px.top - extra),
            right=min(width_px, face_px.right + extra),
            bottom=min(height_px, face_px.bottom + extra),
        )
    side = longer + 2 * extra
    left = _moved_in((face_px.left + face_px.right - side) // 2, side, width_px)
    top = _moved_in((face_px.top + face_px.bottom - side) // 2, side, height_px)
    return Box(left=left, top=top, right=left + side, bottom=top + side)


def _moved_in(start: int, side: int, limit: int) -> int:
    if side >= limit:
        return (limit - side) // 2
    return min(max(start, 0), limit - side)


def cut(frame: DecodedFrame, window: Box, options: CropOptions) -> RgbImage:
    """The window's pixels scaled to the crop size, uint8 (crop_size, crop_size, 3), RGB.

    What lies outside of the frame repeats the frame's edge. `replicate` shrinks by area and enlarges bicubically;
    `clip` scales bilinearly both ways, as the reference recipe does.
    """
    inside = Box(
        left=max(0, window.left),
        top=max(0, window.top),
        right=min(frame.width_px, window.right),
        bottom=min(frame.height_px, window.bottom),
    )
    pixels = frame.rgb_part(inside)
    if inside != window:
        edges = (inside.top - window.top, window.bottom - inside.bottom)
        sides = (inside.left - window.left, window.right - inside.right)
        pixels = np.asarray(cv2.copyMakeBorder(pixels, *edges, *sides, cv2.BORDER_REPLICATE), np.uint8)
    how = cv2.INTER_LINEAR
    if options.border == "replicate":
        how = cv2.INTER_AREA if window.width > options.crop_size else cv2.INTER_CUBIC
    side = options.crop_size
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=how), np.uint8)


def encode(crop_rgb: RgbImage, encoding: str) -> bytes:
    """PNG or JPEG bytes of an RGB picture."""
    crop_bgr = cv2.cvtColor(crop_rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(f".{encoding}", crop_bgr, _PNG if encoding == "png" else _JPEG)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {crop_rgb.shape} as {encoding}")
    return bytes(data)


def example_jpeg(frame: DecodedFrame, *, longest_px: int = _EXAMPLE_SIDE_PX) -> bytes:
    """The whole frame, its longer side at most so long, as a small JPEG."""
    scale = min(1.0, longest_px / max(frame.width_px, frame.height_px))
    size = (max(1, round(frame.width_px * scale)), max(1, round(frame.height_px * scale)))
    small = cv2.resize(frame.rgb(), size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _EXAMPLE_QUALITY])
    return bytes(data)
