"""What is around a head: drawn rooms and streets, a camera that moves, light that changes, a noisy sensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw.light import Light
from batch.corpus.draw.pose import Frame

_MARGIN_PX = 24
"""Background beyond each edge of the frame, for the camera to move in."""
_COARSE_PX = 320
_LAMPS = ((1.0, 0.97, 0.92), (1.0, 0.92, 0.80), (0.94, 0.97, 1.0), (1.0, 1.0, 1.0))


def draw_light(rng: np.random.Generator) -> Light:
    """A random light: from where, how hard, how warm."""
    ambient = float(rng.uniform(0.24, 0.42))
    return Light(
        x=float(rng.uniform(-0.8, 0.8)),
        y=float(rng.uniform(-0.8, -0.15)),
        strength=float(rng.uniform(0.95, 1.2) - ambient),
        ambient=ambient,
        colour=_LAMPS[int(rng.integers(len(_LAMPS)))],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What the camera adds: shake and drift in pixels, light that swells, noise."""

    shake_px: float
    phase: float
    flicker: float
    """Share by which the exposure swings, slowly."""
    noise: float
    """Standard deviation of the sensor's noise in grey levels."""

    def offset(self, time_s: float) -> tuple[float, float]:
        """Where the frame looks, pixels from the middle of the background."""
        x = math.sin(2.1 * time_s + self.phase) + 0.4 * math.sin(7.3 * time_s + 2 * self.phase)
        y = math.sin(1.7 * time_s + 3 * self.phase) + 0.4 * math.sin(8.9 * time_s)
        return self.shake_px * x, self.shake_px * y

    def exposure(self, time_s: float) -> npt.NDArray[np.uint8]:
        """A table of 256 values: what every grey level becomes at a moment."""
        gain = 1 + self.flicker * math.sin(1.3 * time_s + self.phase)
        return np.asarray(np.clip(np.arange(256) * gain + 0.5, 0, 255), np.uint8)


def draw_camera(rng: np.random.Generator) -> Camera:
    """A random camera: half of them on a tripod."""
    handheld = rng.random() < 0.5
    return Camera(
        shake_px=float(rng.uniform(1.0, 5.0)) if handheld else 0.0,
        phase=float(rng.uniform(0, 6)),
        flicker=float(rng.uniform(0.0, 0.07)),
        noise=float(rng.uniform(1.0, 3.5)),
    )


class Sensor:
    """Noise for every frame of a clip, cut from one sheet at changing places: drawing it anew costs ten times more."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, sigma: float) -> None:
        self._rng = rng
        self._shape = (height, width)
        sheet = np.empty((height + 32, width + 32, 3), np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
        cv2.randn(sheet, np.full(3, 128.0), np.array([sigma, sigma * 0.8, sigma * 1.1]))
        self._sheet = sheet.astype(np.uint8)

    def expose(self, frame: Frame) -> Frame:
        """The frame with fresh noise."""
        top, left = (int(v) for v in self._rng.integers(0, 32, 2))
        height, width = self._shape
        noise = self._sheet[top : top + height, left : left + width]
        return np.asarray(cv2.addWeighted(frame, 1.0, noise, 1.0, -128.0), np.uint8)


class Background:
    """A drawn place, larger than the frame, that a camera looks at."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self._shape = (height, width)
        full = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
        # It is out of focus, so it is drawn coarsely and enlarged.
        coarse = min(1.0, _COARSE_PX / full[0])
        size = (round(full[0] * coarse), round(full[1] * coarse))
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        sheet = cv2.GaussianBlur(kind(rng, *size), (0, 0), size[0] / float(rng.uniform(70, 220)))
        lit = np.clip(sheet * _falloff(rng, *size), 0, 255).astype(np.uint8)
        self._sheet = np.asarray(cv2.resize(lit, full[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)

    def view(self, x: float, y: float) -> Frame:
        """A fresh frame of it, looking at an offset in pixels from the middle."""
        height, width = self._shape
        left, top = _MARGIN_PX + x, _MARGIN_PX + y
        if x == y == 0:
            return self._sheet[_MARGIN_PX : _MARGIN_PX + height, _MARGIN_PX : _MARGIN_PX + width].copy()
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
        return np.asarray(cv2.warpAffine(self._sheet, shift, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def _falloff(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Light that leaves a room's corners darker, shape (height, width, 1)."""
    x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.1, 0.6) * height
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    away = ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2
    return np.asarray((1.08 - 0.45 * away)[..., None], np.float32)


def _colour(rng: np.random.Generator, low: float, high: float, spread: float = 18.0) -> tuple[float, float, float]:
    level = rng.uniform(low, high)
    blue, green, red = (float(np.clip(level + rng.normal(0, spread), 8, 247)) for _ in range(3))
    return blue, green, red


def _wall(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A wall with plaster, perhaps a picture frame and a strip of another colour."""
    sheet = np.full((height, width, 3), _colour(rng, 90, 210), np.uint8)
    plaster = cv2.resize(rng.normal(0, 4, (24, 40)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    sheet = np.clip(sheet + plaster[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        x, y = int(rng.uniform(0.02, 0.75) * width), int(rng.uniform(0.05, 0.3) * height)
        across, down = int(rng.uniform(0.12, 0.25) * width), int(rng.uniform(0.2, 0.4) * height)
        cv2.rectangle(sheet, (x, y), (x + across, y + down), _colour(rng, 30, 90), -1)
        rim = max(2, height // 60)
        cv2.rectangle(sheet, (x + rim, y + rim), (x + across - rim, y + down - rim), _colour(rng, 80, 200, 28), -1)
    if rng.random() < 0.5:
        sheet[int(height * rng.uniform(0.7, 0.9)) :] = _colour(rng, 60, 140)
    return np.asarray(sheet, np.uint8)


def _shelf(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Book spines on boards."""
    sheet = np.full((height, width, 3), _colour(rng, 40, 80), np.uint8)
    boards = int(rng.integers(3, 6))
    for board in range(boards):
        bottom, room = (board + 1) * height // boards, height // boards
        x = 0
        while x < width:
            thick, tall = int(width * rng.uniform(0.012, 0.04)) + 2, int(room * rng.uniform(0.55, 0.88))
            if rng.random() < 0.92:
                cv2.rectangle(sheet, (x, bottom - tall), (x + thick - 2, bottom), _colour(rng, 40, 170, 26), -1)
            x += thick
        cv2.rectangle(sheet, (0, bottom - max(2, room // 16)), (width, bottom), _colour(rng, 60, 110, 8), -1)
    return sheet


def _window(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A bright window with bars or blinds in a darker wall."""
    sheet = np.full((height, width, 3), _colour(rng, 70, 150), np.uint8)
    left, right = int(rng.uniform(-0.1, 0.2) * width), int(rng.uniform(0.55, 0.9) * width)
    top, bottom = int(rng.uniform(-0.1, 0.1) * height), int(rng.uniform(0.6, 0.85) * height)
    sky = np.linspace(1.0, 0.75, max(1, bottom - max(top, 0)))[:, None, None] * np.array([245.0, 232.0, 222.0])
    sheet[max(top, 0) : bottom, max(left, 0) : right] = sky.astype(np.uint8)
    bar = max(3, width // 90)
    for share in (0.0, 0.5, 1.0):
        x = int(left + (right - left) * share)
        cv2.rectangle(sheet, (x - bar, top), (x + bar, bottom), (215, 220, 222), -1)
    if rng.random() < 0.5:
        for y in range(max(top, 0), bottom, max(8, height // 36)):
            cv2.rectangle(sheet, (left, y), (right, y + max(2, height // 110)), (190, 196, 200), -1)
    return sheet


def _street(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Far lights and leaves out of focus over a ground."""
    sheet = np.zeros((height, width, 3), np.uint8)
    upper, lower = np.array(_colour(rng, 120, 220)), np.array(_colour(rng, 60, 120))
    sheet[:] = (upper + (lower - upper) * np.linspace(0, 1, height)[:, None, None]).astype(np.uint8)
    green = np.array([70.0, 120.0, 80.0]) * rng.uniform(0.6, 1.2)
    for _ in range(int(rng.integers(60, 140))):
        centre = int(rng.uniform(0, width)), int(rng.uniform(0, 0.75) * height)
        radius = int(height * rng.uniform(0.02, 0.09))
        tone = green * rng.uniform(0.5, 1.5) if rng.random() < 0.75 else np.array(_colour(rng, 150, 235, 25))
        blob = sheet.copy()
        cv2.circle(blob, centre, radius, [float(v) for v in np.clip(tone, 0, 255)], -1, cv2.LINE_AA)
        cv2.addWeighted(blob, 0.45, sheet, 0.55, 0, dst=sheet)
    return sheet


def _tiles(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Bricks or tiles, each of a slightly different shade."""
    mortar, tone = _colour(rng, 110, 190, 6), np.array(_colour(rng, 80, 170, 30))
    sheet = np.full((height, width, 3), mortar, np.uint8)
    tall = max(10, int(height * rng.uniform(0.04, 0.1)))
    wide, gap = int(tall * rng.uniform(1.0, 2.6)), max(1, tall // 14)
    for row, y in enumerate(range(0, height, tall)):
        for x in range(-(row % 2) * wide // 2, width, wide):
            shade = [float(v) for v in np.clip(tone * rng.uniform(0.86, 1.12), 0, 255)]
            cv2.rectangle(sheet, (x, y), (x + wide - gap - 1, y + tall - gap - 1), shade, -1)
    return sheet


_KINDS: tuple[Callable[[np.random.Generator, int, int], npt.NDArray[np.uint8]], ...] = (
    _wall,
    _wall,
    _shelf,
    _window,
    _street,
    _tiles,
)
