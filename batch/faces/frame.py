"""A decoded frame: upright luma, upright RGB, and the RGB of a part, each converted only when asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from batch.records import Box, LumaImage, RgbImage

# What chroma interpolation needs around a part of a frame, in pixels, even.
_HALO_PX = 16
_PART_OF_FRAME = 0.5
_EIGHT_BIT_LUMA = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12"})
_CHROMA_SHIFT = {"yuv420p": 1, "yuv444p": 0}
"""Formats of which a part can be cut out: bits by which chroma is smaller than luma, both ways."""
_TAGGED = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
"""AVColorSpace numbers by the names that PyAV's scaler takes. Untagged video is read as BT.601, as FFmpeg and
OpenCV do, whatever its size."""


class DecodedFrame:
    """One frame of a video. All positions are pixels of the upright frame."""

    def __init__(self, frame: Any, *, index: int, pts_s: float) -> None:
        self.index = index
        """Number of the frame in presentation order, from the time stamp and the mean frame rate."""
        self.pts_s = pts_s
        """Seconds from the start of the stream."""
        self._frame = frame
        self._turns = (int(frame.rotation) // 90) % 4
        self._luma: LumaImage | None = None
        self._rgb: RgbImage | None = None

    @property
    def width_px(self) -> int:
        """Upright width."""
        return int(self._frame.height if self._turns % 2 else self._frame.width)

    @property
    def height_px(self) -> int:
        """Upright height."""
        return int(self._frame.width if self._turns % 2 else self._frame.height)

    def luma(self) -> LumaImage:
        """Brightness, uint8 (height, width). The Y plane as it is where it has 8 bits."""
        if self._luma is None:
            if self._frame.format.name in _EIGHT_BIT_LUMA:
                luma = _plane(self._frame, 0)
            else:
                luma = _packed(self._frame.reformat(format="gray", threads=1).to_ndarray())
            self._luma = self._upright(luma)
        return self._luma

    def rgb(self) -> RgbImage:
        """The whole frame, uint8 (height, width, 3)."""
        if self._rgb is None:
            self._rgb = self._upright(_to_rgb(self._frame))
        return self._rgb

    def rgb_part(self, box: Box) -> RgbImage:
        """The pixels of a box inside the frame, uint8 (box height, box width, 3), equal to a slice of `rgb`.

        Converts the part alone where that is less work.
        """
        small = box.width * box.height < _PART_OF_FRAME * self.width_px * self.height_px
        if self._rgb is not None or self._turns or self._frame.format.name not in _CHROMA_SHIFT or not small:
            return self.rgb()[box.top : box.bottom, box.left : box.right]
        left, top = max(0, (box.left - _HALO_PX) // 2 * 2), max(0, (box.top - _HALO_PX) // 2 * 2)
        right = min(self._frame.width // 2 * 2, (box.right + _HALO_PX + 1) // 2 * 2)
        bottom = min(self._frame.height // 2 * 2, (box.bottom + _HALO_PX + 1) // 2 * 2)
        if right < box.right or bottom < box.bottom:
            return self.rgb()[box.top : box.bottom, box.left : box.right]
        part = _to_rgb(_cut(self._frame, left, top, right, bottom))
        return part[box.top - top : box.bottom - top, box.left - left : box.right - left]

    def _upright(self, image: Any) -> Any:
        return np.ascontiguousarray(np.rot90(image, k=self._turns)) if self._turns else image


def _plane(frame: Any, number: int) -> LumaImage:
    plane = frame.planes[number]
    data = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(data[:, : plane.width])


def _to_rgb(frame: Any) -> RgbImage:
    """As OpenCV converts: by way of BGR and with bicubic chroma, which make a difference for 10-bit frames alone."""
    tagged = _TAGGED.get(int(frame.colorspace))
    order = "rgb24" if frame.format.name in _EIGHT_BIT_LUMA else "bgr24"
    converted = frame.reformat(format=order, src_colorspace=tagged, interpolation="BICUBIC", threads=1).to_ndarray()
    image: RgbImage = _packed(converted if order == "rgb24" else converted[:, :, ::-1])
    return image


def _packed(image: Any) -> Any:
    """The pixels without the padding of the rows.

    Dlib takes an array with padding for one without, and finds nothing in the sheared picture.
    """
    return np.ascontiguousarray(image)


def _cut(frame: Any, left: int, top: int, right: int, bottom: int) -> Any:
    import av

    part = av.VideoFrame(right - left, bottom - top, frame.format.name)
    chroma = _CHROMA_SHIFT[frame.format.name]
    for number, shift in ((0, 0), (1, chroma), (2, chroma)):
        source = _plane_view(frame.planes[number])
        target = part.planes[number]
        cut = source[top >> shift : bottom >> shift, left >> shift : right >> shift]
        padded = np.zeros((target.height, target.line_size), np.uint8)
        padded[: cut.shape[0], : cut.shape[1]] = cut
        target.update(padded.tobytes())
    part.colorspace = frame.colorspace
    part.color_range = frame.color_range
    return part


def _plane_view(plane: Any) -> LumaImage:
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
