"""Moving a drawn head: where it is at a moment, the drawing turned, and the drawing laid into a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw.portrait import Layer, Points, Portrait
from batch.corpus.draw.relief import ORIGIN_X, ORIGIN_Y

Frame = npt.NDArray[np.uint8]
"""Blue, green, red as uint8, shape (height, width, 3)."""
Affine = npt.NDArray[np.float64]
"""Shape (2, 3): x and y of the target from x, y and 1 of the source."""

_BLUR_BELOW = 0.4
"""Scale under which warping would skip pixels, so that the drawing is blurred before."""
MAX_TURN = 0.17
"""Radians. Further round, the height field would fold over itself at the outline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """A head at one moment."""

    x: float
    """Middle of the eye line in the frame, pixels."""
    y: float
    scale: float
    """Frame pixels a canvas pixel."""
    roll: float
    """Radians, as are yaw and pitch."""
    yaw: float
    pitch: float
    lid: float
    jaw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """How a head moves through a clip: slow swings, blinks, speech. Sways are in units of the head's scale."""

    x: float
    y: float
    scale: float
    swings: tuple[tuple[float, float, float], ...]
    """Amplitude, frequency in Hz and phase for x, y, roll, yaw and pitch."""
    turned: float
    """The yaw around which the head swings."""
    blinks_s: tuple[float, ...]
    talk_hz: float
    """0: the mouth stays shut."""

    def at(self, time_s: float) -> Pose:
        """The pose at a moment."""
        x, y, roll, yaw, pitch = (a * math.sin(math.tau * f * time_s + phase) for a, f, phase in self.swings)
        shut = max((math.exp(-(((time_s - b) / 0.07) ** 2)) for b in self.blinks_s), default=0.0)
        jaw = 0.0
        if self.talk_hz:
            phrase = 0.5 + 0.5 * math.sin(math.tau * 0.6 * time_s)
            jaw = phrase * abs(math.sin(math.pi * self.talk_hz * time_s)) * 0.9
        return Pose(
            x=self.x + x * self.scale,
            y=self.y + y * self.scale,
            scale=self.scale,
            roll=roll,
            yaw=min(max(self.turned + yaw, -MAX_TURN), MAX_TURN),
            pitch=min(max(pitch, -MAX_TURN), MAX_TURN),
            lid=1.0 - min(1.0, shut * 1.15),
            jaw=jaw,
        )


def draw_motion(rng: np.random.Generator, x: float, y: float, scale: float, duration_s: float) -> Motion:
    """A random motion around a place in the frame (pixels) at a scale (frame pixels a canvas pixel)."""
    reach = (14.0, 7.0, 0.05, 0.08, 0.05)
    swings = tuple(
        (float(r * rng.uniform(0.3, 1.0)), float(rng.uniform(0.15, 0.6)), float(rng.uniform(0, math.tau)))
        for r in reach
    )
    # No blink in the first half second: the first frame is the one that the reference recipe looks at.
    blinks = tuple(float(t) for t in np.arange(rng.uniform(0.6, 1.6), duration_s, rng.uniform(1.1, 2.5)))
    talk = float(rng.uniform(2.2, 4.5)) if rng.random() < 0.75 else 0.0
    turned = float(rng.normal(0, 0.05))
    return Motion(x=x, y=y, scale=scale, swings=swings, turned=turned, blinks_s=blinks, talk_hz=talk)


def turn(portrait: Portrait, layer: Layer, pose: Pose) -> Layer:
    """The drawing as seen a little from the side: every pixel moves in proportion to its depth."""
    height, width = portrait.relief.shape
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    from_x = columns - portrait.relief * np.float32(pose.yaw)
    from_y = rows - portrait.relief * np.float32(pose.pitch)
    return np.asarray(cv2.remap(layer, from_x, from_y, cv2.INTER_LINEAR), np.uint8)


def turned_landmarks(portrait: Portrait, pose: Pose) -> Points:
    """Where the landmarks are after `turn`, in pixels of the drawing."""
    height, width = portrait.relief.shape
    found = portrait.landmarks.copy()
    # `turn` says where a pixel comes from; where a point goes is its inverse, found by iteration (slopes are mild).
    for _ in range(6):
        columns = np.clip(np.rint(found[:, 0]).astype(int), 0, width - 1)
        rows = np.clip(np.rint(found[:, 1]).astype(int), 0, height - 1)
        lift = portrait.relief[rows, columns].astype(np.float64)
        found = portrait.landmarks + lift[:, None] * np.array([pose.yaw, pose.pitch])
    return found


def to_frame(portrait: Portrait, pose: Pose) -> Affine:
    """From pixels of the drawing to pixels of the frame."""
    scale = pose.scale * portrait.shrink
    cos, sin = scale * math.cos(pose.roll), scale * math.sin(pose.roll)
    x = ORIGIN_X / portrait.shrink - portrait.left
    y = ORIGIN_Y / portrait.shrink - portrait.top
    return np.array([[cos, -sin, pose.x - cos * x + sin * y], [sin, cos, pose.y - sin * x - cos * y]])


def moved(points: Points, affine: Affine) -> Points:
    """Points, shape (n, 2), under an affine map."""
    return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float64)


def bounds(points: Points, frame: Frame, margin: float = 1.0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the points within the frame; empty if they lie outside."""
    height, width = frame.shape[:2]
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    return left, top, max(left, min(width, math.ceil(high[0]))), max(top, min(height, math.ceil(high[1])))


def paste(frame: Frame, layer: Layer, affine: Affine) -> None:
    """Lays a drawing over the frame, in place."""
    height, width = layer.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    left, top, right, bottom = bounds(moved(corners, affine), frame)
    if left == right or top == bottom:
        return
    scale = math.hypot(affine[0, 0], affine[1, 0])
    if scale < _BLUR_BELOW:
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.35 / scale), np.uint8)
    shifted = affine - np.array([[0, 0, left], [0, 0, top]])
    placed = cv2.warpAffine(layer, shifted, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    through = cv2.cvtColor(cv2.bitwise_not(placed[..., 3]), cv2.COLOR_GRAY2BGR)
    behind = cv2.multiply(part, through, scale=1 / 255)
    frame[top:bottom, left:right] = cv2.add(behind, cv2.cvtColor(placed, cv2.COLOR_BGRA2BGR))
