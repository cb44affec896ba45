"""Frames for the benchmark of the detectors, and how boxes are compared: see `detectors.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from batch.faces.detect import Frame
from batch.faces.frame import DecodedFrame
from batch.records import Box, RgbImage
from tests.support.drawn_face import ArrayFrame

LATER = 48
CANVAS = (1280, 720)
GREY = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One frame of the corpus with what the reference recipe finds in it."""

    clip: str
    index: int
    frame: Frame
    real: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face that a person marked: its centre, and its side in pixels."""

    x: int
    y: int
    side: int


def frames_of(path: Path) -> Iterator[Sample]:
    """The first and the 49th frame, with both pictures converted already."""
    label = json.loads((path.parent / "metadata.json").read_text()).get(path.name, {}).get("label")
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in (0, LATER):
                decoded = DecodedFrame(frame, index=index, pts_s=0.0)
                decoded.luma(), decoded.rgb()
                yield Sample(clip=path.name, index=index, frame=decoded, real=label == "REAL")
            if index >= LATER:
                return


def compose(sample: Sample, box: Box, share: float, large: tuple[Sample, Box] | None) -> ArrayFrame:
    """The sample's face in the middle of the canvas or of its right half, at a share of the canvas's height."""
    width, height = CANVAS
    canvas = np.full((height, width, 3), GREY, np.uint8)
    if large is None:
        paste(canvas, sample.frame.rgb(), box, share * height)
    else:
        paste(canvas[:, width // 2 :], sample.frame.rgb(), box, share * height)
        paste(canvas[:, : width // 2], large[0].frame.rgb(), large[1], 0.4 * height)
    return ArrayFrame(canvas)


def paste(canvas: RgbImage, image: RgbImage, box: Box, side: float) -> None:
    """Puts an image on a canvas so that the box is `side` pixels wide and in the middle."""
    scale = side / box.width
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small: Any = cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)
    x = canvas.shape[1] // 2 - round((box.left + box.right) / 2 * scale)
    y = canvas.shape[0] // 2 - round((box.top + box.bottom) / 2 * scale)
    top, left = max(0, y), max(0, x)
    bottom, right = min(canvas.shape[0], y + small.shape[0]), min(canvas.shape[1], x + small.shape[1])
    canvas[top:bottom, left:right] = small[top - y : bottom - y, left - x : right - x]


def photo(path: Path) -> ArrayFrame:
    """An aligned photo on a grey canvas."""
    canvas = np.full((270, 480, 3), GREY, np.uint8)
    image: Any = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    canvas[55:215, 160:320] = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    return ArrayFrame(canvas)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927), which stays within 0 and 1 where few are missed."""
    z = 1.96
    share = hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    common = max(0, across) * max(0, down)
    return common / (one.width * one.height + other.width * other.height - common)


def holds(box: Box, face: Face) -> bool:
    """Whether a box holds a face's centre."""
    return box.left <= face.x < box.right and box.top <= face.y < box.bottom
