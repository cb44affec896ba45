"""The head as a height field: a window of the canvas in, outline, depth and normals out.

The canvas is a fixed sheet that shows one head upright and from the front. Lengths are in units of half the head's
width; the origin is the middle of the eye line, y points down. Proportions follow the usual adult figures: pupils
63 mm apart, head 137 mm wide, eyes to chin 115 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw.identity import Identity

FloatMap = npt.NDArray[np.float32]
"""Values as float32, shape (height, width), or (height, width, 3) for colours."""

UNIT_PX = 108.0
"""Canvas pixels in one unit: the head is 216 px wide, as in a 720p talking head."""
CANVAS_HEIGHT, CANVAS_WIDTH = CANVAS = 512, 384
ORIGIN_X, ORIGIN_Y = 192.0, 226.0
CROWN_Y = -1.5
"""Eye line up to the crown, in units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of the canvas, and where each of its pixels is in head units."""

    left: int
    top: int
    x: FloatMap
    y: FloatMap

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas."""
        height, width = self.x.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def window(left: int = 0, top: int = 0, right: int = CANVAS_WIDTH, bottom: int = CANVAS_HEIGHT) -> Window:
    """The whole canvas, or a part of it in canvas pixels; right and bottom are exclusive."""
    x = (np.arange(left, right, dtype=np.float32) - np.float32(ORIGIN_X)) / np.float32(UNIT_PX)
    y = (np.arange(top, bottom, dtype=np.float32) - np.float32(ORIGIN_Y)) / np.float32(UNIT_PX)
    xs, ys = np.meshgrid(x, y)
    return Window(left=left, top=top, x=xs, y=ys)


def to_canvas(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points in head units, shape (n, 2), to canvas pixels."""
    return np.asarray(points * UNIT_PX + np.array([ORIGIN_X, ORIGIN_Y]), np.float64)


def soft(distance: npt.NDArray[np.floating[Any]], width: float = 0.014) -> FloatMap:
    """1 where `distance` is positive, 0 where negative, with an edge of about 1.5 canvas pixels by default."""
    t = np.clip(distance * np.float32(0.5 / width) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bump(win: Window, x: float, y: float, width: float, height: float) -> FloatMap:
    """A Gaussian hill of height 1 around a point."""
    # A product of two curves: an exponential a row and a column, not one a pixel.
    u, v = (win.x[0] - np.float32(x)) / np.float32(width), (win.y[:, 0] - np.float32(y)) / np.float32(height)
    across, along = np.exp(np.float32(-0.5) * u * u), np.exp(np.float32(-0.5) * v * v)
    return np.asarray(along[:, None] * across, np.float32)


def pair(win: Window, x: float, y: float, width: float, height: float) -> FloatMap:
    """The same hill left and right."""
    return bump(win, x, y, width, height) + bump(win, -x, y, width, height)


def grain(seed: int, size: tuple[int, int], cells: float) -> FloatMap:
    """Smooth noise with about unit variance, of a size (rows, columns); `cells` hills along the longer side."""
    rows, columns = size
    rng = np.random.default_rng(seed)
    scale = cells / max(rows, columns)
    small = rng.standard_normal((max(2, round(rows * scale)), max(2, round(columns * scale))), np.float32)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32)


def half_width(who: Identity, y: FloatMap) -> FloatMap:
    """Half the head's width at a height: a superellipse for the skull, a rounder or squarer one for the jaw."""
    up = np.clip((np.float32(0.1) - y) / np.float32(0.1 - CROWN_Y), 0, 1)
    down = np.clip((y - np.float32(0.1)) / np.float32(who.face_length - 0.1), 0, 1)
    skull = (1 - up**2.5) ** (1 / 2.2)
    jaw = (1 - down**who.jaw) ** (1 / 2.0)
    return np.asarray(np.where(y < 0.1, skull, jaw * (1 - 0.05 * down)), np.float32)


def head_mask(who: Identity, win: Window) -> FloatMap:
    """1 inside the head's outline (without ears), 0 outside, soft at the edge."""
    # Divided by the slope the difference is a distance, so that the edge is equally soft at crown and chin.
    width = half_width(who, win.y)
    steep = np.clip(np.abs(np.gradient(width, axis=0)) * UNIT_PX, 0, 6) if width.shape[0] > 1 else 0 * width
    inside = (win.y > CROWN_Y) & (win.y < who.face_length)
    return np.asarray(soft((width - np.abs(win.x)) / np.sqrt(1 + steep**2)) * inside, np.float32)


def depth(who: Identity, win: Window) -> FloatMap:
    """Height towards the camera in units: a rounded head with nose, sockets, brows, cheeks, lips and chin."""
    across = np.clip(np.abs(win.x) / np.maximum(half_width(who, win.y), 0.05), 0, 1)
    along = np.clip(np.abs(win.y - 0.05) / 1.75, 0, 1)
    head = np.sqrt(1 - across**2.5) * np.sqrt(1 - along**3.2) * np.float32(0.95)
    sockets = pair(win, who.eye_gap, 0.0, 0.2, 0.12) * -0.13 + pair(win, 0.2, 0.02, 0.07, 0.14) * -0.06
    brows = pair(win, 0.36, -who.brow_height, 0.28, 0.07) * 0.05 + bump(win, 0, -0.22, 0.12, 0.1) * 0.02
    balls = pair(win, who.eye_gap, 0.0, 0.14, 0.09) * 0.08
    cheeks = pair(win, 0.58, 0.38, 0.2, 0.16) * 0.05 - pair(win, 0.66, 0.9, 0.16, 0.3) * 0.04
    return np.asarray(head + _nose(who, win) + sockets + brows + balls + cheeks + _lower(who, win), np.float32)


def _nose(who: Identity, win: Window) -> FloatMap:
    base = who.nose_y
    t = np.clip((win.y + 0.2) / (base + 0.1), 0, 1)
    ridge_height = (0.08 * who.nose_bridge + 0.2 * t**1.4) * soft(base - 0.1 - win.y, 0.12) * soft(win.y + 0.3, 0.2)
    ridge = ridge_height * np.exp(-0.5 * (win.x / (0.07 + 0.04 * t)) ** 2)
    tip = bump(win, 0, base - 0.1, 0.1, 0.085) * 0.17
    wings = pair(win, who.nose_width * 0.7, base - 0.07, 0.065, 0.06) * 0.1
    return np.asarray(ridge + tip + wings, np.float32)


def _lower(who: Identity, win: Window) -> FloatMap:
    mouth, full = who.mouth_y, who.lip_fullness
    muzzle = bump(win, 0, mouth - 0.02, 0.36, 0.26) * 0.09
    lips = bump(win, 0, mouth - 0.055, 0.2, 0.04) * 0.035 * full
    lips = lips + bump(win, 0, mouth + 0.075, 0.18, 0.05) * 0.05 * full
    groove = bump(win, 0, mouth - 0.2, 0.035, 0.08) * -0.02
    under = bump(win, 0, mouth + 0.22, 0.2, 0.05) * -0.035
    chin = bump(win, 0, who.face_length - 0.2, 0.22, 0.14) * 0.07
    fold_x = 0.28 + 0.22 * np.clip((win.y - who.nose_y + 0.1) / 0.5, 0, 1)
    folds = np.exp(-0.5 * ((np.abs(win.x) - fold_x) / 0.03) ** 2) * soft(win.y - who.nose_y + 0.05, 0.12)
    folds = folds * soft(mouth + 0.12 - win.y, 0.12) * -(0.006 + 0.016 * who.age)
    return np.asarray(muzzle + lips + groove + under + chin + folds, np.float32)
