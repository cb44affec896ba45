"""Drawn frames with faces that dlib and BlazeFace find, and a `Frame` over an array."""

from dataclasses import dataclass

import cv2
import numpy as np

from batch.records import LumaImage, RgbImage

_FINE = 4  # Everything is drawn four times as large and reduced, which gives the soft edges that detectors expect.


@dataclass
class ArrayFrame:
    """A frame that is already in memory; brightness as studio-range BT.601, as a video's Y plane has it."""

    pixels: RgbImage

    @property
    def width_px(self) -> int:
        return self.pixels.shape[1]

    @property
    def height_px(self) -> int:
        return self.pixels.shape[0]

    def rgb(self) -> RgbImage:
        return self.pixels

    def luma(self) -> LumaImage:
        grey = self.pixels @ np.array([0.299, 0.587, 0.114])
        return np.round(16 + grey * 219 / 255).astype(np.uint8)


def scene(width: int, height: int, faces: list[tuple[int, int, int]], seed: int = 0, light: float = 1.0) -> RgbImage:
    """A room with one head and shoulders for each (centre x, centre y, face side in pixels)."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(150, 105, height)[:, None, None] * np.array([0.9, 1.0, 1.05])
    pixels = np.broadcast_to(ramp, (height, width, 3)).astype(np.float32).copy()
    for x, y, side in faces:
        _paste(pixels, _person(random), x, y, side)
    pixels += random.normal(0, 2, pixels.shape)
    return np.clip(pixels * light, 0, 255).astype(np.uint8)


def _paste(pixels: np.ndarray, person: np.ndarray, x: int, y: int, side: int) -> None:
    """`person` is RGBA, 512 px for two and a half face sides, the face in its middle."""
    size = round(side * 2.5)
    small = cv2.resize(person, (size, size), interpolation=cv2.INTER_AREA)
    left, top = x - size // 2, y - size // 2
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, pixels.shape[1]), min(top + size, pixels.shape[0])
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:] / 255
    pixels[y0:y1, x0:x1] = pixels[y0:y1, x0:x1] * (1 - alpha) + part[..., :3] * alpha


def _person(random: np.random.Generator) -> np.ndarray:
    size = 512 * _FINE
    image, alpha = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    skin = np.array([205, 160, 135]) * random.uniform(0.65, 1.1)
    hair = np.array([60, 42, 30]) * random.uniform(0.4, 1.5)
    shirt = random.uniform(40, 170, 3)

    def oval(x: float, y: float, w: float, h: float, colour: np.ndarray, arc: tuple[int, int] = (0, 360)) -> None:
        for target, value in ((image, [float(c) for c in np.clip(colour, 0, 255)]), (alpha, 255)):
            centre, axes = (round(x * _FINE), round(y * _FINE)), (round(w * _FINE), round(h * _FINE))
            cv2.ellipse(target, centre, axes, 0, *arc, value, -1, cv2.LINE_AA)

    oval(256, 540, 200, 140, shirt)
    oval(256, 390, 50, 80, skin * 0.8)
    oval(256, 235, 118, 150, hair)
    oval(256, 262, 98, 128, skin)
    oval(256, 262, 70, 105, skin * 1.08)
    _features(oval, skin, hair, random)
    soft = cv2.resize(image, (512, 512), interpolation=cv2.INTER_AREA)
    shade = 1 - 0.25 * np.abs(np.linspace(-1.6, 1.6, 512))[None, :, None] ** 2 * (np.arange(512) < 400)[:, None, None]
    soft = cv2.GaussianBlur(np.clip(soft * shade, 0, 255).astype(np.float32), (0, 0), 2)
    mask = cv2.resize(alpha, (512, 512), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.dstack([soft, mask])


def _features(oval, skin: np.ndarray, hair: np.ndarray, random: np.random.Generator) -> None:
    apart = random.uniform(40, 46)
    for side in (-1, 1):
        x = 256 + side * apart
        oval(x, 242, 27, 15, skin * 0.72)
        oval(x, 244, 19, 9, np.array([235, 232, 228]))
        oval(x, 244, 9, 9, np.array([45, 35, 30]))
        oval(x, 238, 22, 6, skin * 0.6, (180, 360))
        oval(x, 219, 27, 7, hair * 0.8 + 10, (170, 370))
        oval(256 + side * 11, 303, 9, 5, skin * 0.5)
    oval(256, 275, 10, 30, skin * 1.15)
    oval(256, 296, 19, 11, skin * 1.02)
    oval(256, 333, 36, 12, np.array([165, 85, 80]))
    oval(256, 332, 30, 2, np.array([90, 40, 40]))
    oval(256, 352, 26, 5, skin * 0.85)
