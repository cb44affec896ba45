"""A fake from a real: another identity's inner face is laid over the frame's own.

The classical recipe of landmark-based face swaps: fit an affine map between the two sets of landmarks, warp, match the
colours by mean and standard deviation in CIELAB (Reinhard et al., "Color Transfer between Images", 2001), blend along
the feathered convex hull. Like a real one it passes through a small picture of fixed size and is enlarged again,
so the pasted skin is a little softer and cleaner than the skin around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from batch.corpus.draw.portrait import HULL_POINTS, Layer, Points
from batch.corpus.draw.pose import Affine, Frame, bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapStyle:
    """How well one fake is made."""

    face_px: float
    """Width of the small picture that the pasted face passes through."""
    feather: float
    """Softness of the edge, as a share of the face's width."""
    shrink: float
    """How far the hull is drawn in towards its middle, 0 to 1."""
    match: float
    """How much of the colour difference is taken away, 0 to 1."""


def draw_style(rng: np.random.Generator) -> SwapStyle:
    """A random quality."""
    return SwapStyle(
        face_px=float(rng.uniform(56, 104)),
        feather=float(rng.uniform(0.025, 0.07)),
        shrink=float(rng.uniform(0.0, 0.1)),
        match=float(rng.uniform(0.8, 1.0)),
    )


def swap_face(frame: Frame, marks: Points, donor: Layer, donor_marks: Points, style: SwapStyle) -> Frame:
    """The frame with the donor's inner face over the face whose landmarks are `marks`.

    Both sets of landmarks have shape (n, 2), in pixels of their own picture. Pixels outside the hull and its feather
    stay as they are; a hull outside the frame changes nothing.
    """
    middle = marks[:HULL_POINTS].mean(axis=0)
    hull = middle + (marks[:HULL_POINTS] - middle) * (1 - style.shrink)
    width = float(np.ptp(hull[:, 0]))
    feather = max(1.0, style.feather * width)
    left, top, right, bottom = bounds(hull, frame, margin=3 * feather)
    if right - left < 4 or bottom - top < 4:
        return frame.copy()
    part = frame[top:bottom, left:right]
    # All but the last step is done on the small picture, which is also what makes the fake soft.
    share = min(1.0, style.face_px / width)
    size = max(4, round(part.shape[1] * share)), max(4, round(part.shape[0] * share))
    to_small = np.array([[size[0] / part.shape[1]], [size[1] / part.shape[0]]])
    corner = np.array([left, top])
    affine = _fit(donor_marks, (marks - corner) * to_small[:, 0])
    colours = cv2.cvtColor(donor, cv2.COLOR_BGRA2BGR)
    face = cv2.warpAffine(colours, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = _mask((hull - corner) * to_small[:, 0], size, max(0.7, feather * share))
    around = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    face = _enlarged(_match(np.asarray(face, np.uint8), np.asarray(around, np.uint8), mask, style.match), part)
    weight = _enlarged(mask, part).astype(np.float32) * np.float32(1 / 255)
    swapped = frame.copy()
    swapped[top:bottom, left:right] = cv2.blendLinear(face, part, weight, 1 - weight)
    return swapped


def _enlarged(small: Layer, part: Frame) -> Layer:
    size = (part.shape[1], part.shape[0])
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _fit(source: Points, target: Points) -> Affine:
    """The affine map that brings `source` nearest to `target`, by least squares."""
    columns = np.hstack([source, np.ones((len(source), 1))])
    solution, *_ = np.linalg.lstsq(columns, target, rcond=None)
    return np.asarray(solution.T, np.float64)


def _mask(hull: Points, size: tuple[int, int], feather: float) -> Layer:
    """255 inside the convex hull, 0 outside, soft at the edge; shape (height, width) of a size (width, height)."""
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(hull.astype(np.float32)).astype(np.int32), 255, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), np.uint8)


def _match(face: Frame, part: Frame, mask: Layer, strength: float) -> Frame:
    """The face with the mean and spread that the frame has under the mask, in CIELAB."""
    inside = np.asarray((mask > 127) * np.uint8(255), np.uint8)
    lab, wanted = cv2.cvtColor(face, cv2.COLOR_BGR2LAB), cv2.cvtColor(part, cv2.COLOR_BGR2LAB)
    mean, spread = cv2.meanStdDev(lab, mask=inside)
    wanted_mean, wanted_spread = cv2.meanStdDev(wanted, mask=inside)
    gain = np.clip(wanted_spread / np.maximum(spread, 1.0), 0.6, 1.6)
    values = np.arange(256.0)
    matched = (values - mean) * gain + wanted_mean
    table = np.clip(values + (matched - values) * strength + 0.5, 0, 255).astype(np.uint8)
    recoloured = cv2.LUT(lab, np.ascontiguousarray(table.T[None]))
    return np.asarray(cv2.cvtColor(recoloured, cv2.COLOR_LAB2BGR), np.uint8)
