"""Faces and an epoch in, what augmentation does to each of them out: plain numbers, drawn on the host.

Each face's numbers depend on the seed, the epoch and its place in the index alone, so that they are the same on one
worker and on eight, on TensorFlow and on JAX, in a run and in its resumed second half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Recipe = Literal["reference", "robust", "none"]
Floats = npt.NDArray[np.float64]

AFFINE = slice(0, 6)
"""a, b, c, d, e, f: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f), from the centre, in shares of the
side."""
COLOUR = slice(6, 18)
"""A 3 x 4 matrix by rows: new red, green, blue from the old ones and from 1, all in shares of 255."""
BLUR, SCALE, NOISE, NOISE_SEED = 18, 19, 20, 21
"""Gaussian sigma in shares of the side; factor of reduction (1: none); sigma in levels; whole number below 2^24."""
CUT = slice(22, 26)
"""Left, top, right, bottom of what is painted grey, in shares of the side."""
JPEG = 26
"""Quality, 1 to 100; 0: not compressed again. The host applies it."""
DRAWS = 27
"""Numbers a face."""

_LUMA = np.array([0.299, 0.587, 0.114])
_GREY = np.full((3, 3), 1 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """How far augmentation goes. A pair (p, most) or (p, least, most) is applied to a share p of the faces."""

    rotate_degrees: float
    """Up to so far in both directions."""
    shift: float
    """In both directions, a share of the side."""
    zoom: float
    """By a factor of exp(-zoom) to exp(zoom)."""
    brightness: float
    """Added, in both directions, a share of 255."""
    contrast: float
    """About mid-grey, by a factor of exp(-contrast) to exp(contrast)."""
    saturation: float
    """By a factor of exp(-saturation) to exp(saturation)."""
    hue_degrees: float
    """About the grey axis, in both directions."""
    blur: tuple[float, float, float] = (0, 0, 0)
    """Sigma in shares of the side: 0.005 is 1.1 pixels of 224."""
    scale: tuple[float, float, float] = (0, 1, 1)
    """Made smaller by this factor, and large again."""
    noise: tuple[float, float, float] = (0, 0, 0)
    """Sigma in levels of 255."""
    cut: tuple[float, float, float] = (0, 0, 0)
    """Sides of the rectangle, in shares of the picture's."""
    jpeg: tuple[float, float, float] = (0, 0, 0)
    """Quality."""


RANGES: dict[Recipe, Ranges] = {
    # The reference recipe says "random flips and transforms": the light end of what is usual.
    "reference": Ranges(
        rotate_degrees=10, shift=0.05, zoom=0.1, brightness=0.05, contrast=0.05, saturation=0.05, hue_degrees=0
    ),
    # What platforms do to a picture: scaled, filtered, compressed. Cut-out (DeVries and Taylor 2017, arXiv 1708.04552)
    # so that no single place decides.
    "robust": Ranges(
        rotate_degrees=12, shift=0.06, zoom=0.15, brightness=0.12, contrast=0.25, saturation=0.3, hue_degrees=8,
        blur=(0.25, 0.001, 0.009), scale=(0.35, 1.1, 3.5), noise=(0.3, 1, 9), cut=(0.2, 0.1, 0.4),
        jpeg=(0.5, 40, 95),
    ),
}  # fmt: skip


def identity(count: int) -> npt.NDArray[np.float32]:
    """Draws that leave every pixel as it is: shape (count, DRAWS)."""
    draws = np.zeros((count, DRAWS), np.float32)
    draws[:, AFFINE] = [1, 0, 0, 0, 1, 0]
    draws[:, COLOUR] = np.eye(3, 4).ravel()
    draws[:, SCALE] = 1
    return draws


def draw(recipe: Recipe, seed: int, epoch: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What happens to the faces at `rows` of the index in one epoch: float32, shape (n, DRAWS)."""
    draws = identity(len(rows))
    if recipe == "none":
        return draws
    ranges = RANGES[recipe]
    values = iter(uniform(seed, epoch, rows, 32).T)
    draws[:, AFFINE] = _affine(ranges, *(next(values) for _ in range(5)))
    draws[:, COLOUR] = _colour(ranges, *(next(values) for _ in range(4)))
    for column, bounds, otherwise in (
        (BLUR, ranges.blur, 0),
        (SCALE, ranges.scale, 1),
        (NOISE, ranges.noise, 0),
        (JPEG, ranges.jpeg, 0),
    ):
        draws[:, column] = _sometimes(bounds, otherwise, next(values), next(values))
    draws[:, JPEG] = np.round(draws[:, JPEG])
    draws[:, NOISE_SEED] = np.floor(next(values) * 2**24)
    draws[:, CUT] = _cut(ranges.cut, *(next(values) for _ in range(5)))
    return draws


def uniform(seed: int, epoch: int, rows: npt.NDArray[np.int64], count: int) -> Floats:
    """Numbers in [0, 1), shape (n, count): each a hash of seed, epoch, row and its own column.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). A numpy generator a face takes 20 us to set up, this 1 us.
    """
    columns = np.arange(count, dtype=np.uint64)
    hashed = _mix(np.array([seed], np.uint64))
    for key in (np.array([epoch], np.uint64), rows.astype(np.uint64)[:, None], columns):
        hashed = _mix(hashed ^ _mix(key + np.uint64(0x9E3779B97F4A7C15)))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _both_ways(value: Floats, most: float) -> Floats:
    """From [0, 1) to [-most, most)."""
    return (2 * value - 1) * most


def _sometimes(bounds: tuple[float, float, float], otherwise: float, chance: Floats, value: Floats) -> Floats:
    """A number between the bounds for a share of the faces."""
    share, least, most = bounds
    return np.where(chance < share, least + value * (most - least), otherwise)


def _affine(ranges: Ranges, flip: Floats, angle: Floats, zoom: Floats, right: Floats, down: Floats) -> Floats:
    """From output to input: flip, turn, zoom, then shift."""
    turn = np.deg2rad(_both_ways(angle, ranges.rotate_degrees))
    scale = np.exp(_both_ways(zoom, ranges.zoom))
    mirror = np.where(flip < 0.5, -1.0, 1.0)
    cosine, sine = np.cos(turn) * scale, np.sin(turn) * scale
    across, along = _both_ways(right, ranges.shift), _both_ways(down, ranges.shift)
    return np.stack([mirror * cosine, -sine, across, mirror * sine, cosine, along], axis=1)


def _colour(ranges: Ranges, brightness: Floats, contrast: Floats, saturation: Floats, hue: Floats) -> Floats:
    """Hue and saturation, then contrast and brightness, as one matrix: shape (n, 12).

    After Haeberli, "Matrix operations for image processing", 1993.
    """
    turn = np.deg2rad(_both_ways(hue, ranges.hue_degrees))[:, None, None]
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    rotate = np.cos(turn) * np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * _GREY
    vivid = np.exp(_both_ways(saturation, ranges.saturation))[:, None, None]
    factor = np.exp(_both_ways(contrast, ranges.contrast))
    matrix = factor[:, None, None] * ((vivid * np.eye(3) + (1 - vivid) * _LUMA) @ rotate)
    offset = _both_ways(brightness, ranges.brightness) + 0.5 * (1 - factor)
    added = np.broadcast_to(offset[:, None, None], (len(offset), 3, 1))
    return np.concatenate([matrix, added], axis=2).reshape(-1, 12)


def _cut(
    bounds: tuple[float, float, float], chance: Floats, left: Floats, top: Floats, width: Floats, height: Floats
) -> Floats:
    """A rectangle within the picture, or an empty one."""
    sizes = [_sometimes(bounds, 0, chance, value) for value in (width, height)]
    corners = [corner * (1 - size) for corner, size in zip((left, top), sizes, strict=True)]
    ends = [corner + size for corner, size in zip(corners, sizes, strict=True)]
    empty = (chance >= bounds[0])[:, None]
    return np.where(empty, 0.0, np.stack([*corners, *ends], axis=1))
