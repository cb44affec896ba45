"""Two photographs of people in, one of them with the other's face out: the classic swap by landmarks.

The donor is warped over the triangles of the target's landmarks, matched in colour, and laid in through a feathered
hull that ends within the face. A refined swap is matched in broad light and shadow and in sharpness besides.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.landmarks import Found  # noqa: E402
from batch.model.self_blended import hull  # noqa: E402
from batch.records import RgbImage  # noqa: E402

Floats = npt.NDArray[np.float32]

CHEEKS, EYES, NOSE_TIP = (234, 454), (33, 263), 1
"""Places of landmarks."""
_BROW, _TOP = 9, 10
_LIGHT_SIGMA = 0.09
"""Of the blur that leaves broad light and shadow, in shares of the side."""
_SIGMAS_PX = (0.0, 0.5, 0.8, 1.1, 1.5, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A person."""

    name: str
    rgb: RgbImage
    found: Found
    age: int
    group: str
    """Gender and race."""

    @property
    def points_px(self) -> Floats:
        """Landmarks, shape (468, 2)."""
        return np.asarray(self.found.points * self.rgb.shape[0], np.float32)


def swap(target: Photo, donor: Photo, rng: np.random.Generator, *, refined: bool = False) -> RgbImage:
    """The target with the donor's face, uint8 of the target's shape; `refined` matches light and sharpness too."""
    mask = _mask(target, rng)
    inside = mask > 0.5
    face = _in_colours_of(_warped(target, donor), target.rgb, inside)
    if refined:
        face = _as_sharp_as(_in_the_light_of(face, target.rgb, mask, rng), target.rgb, inside)
    weights = mask[..., None]
    return np.asarray(np.clip(face * weights + target.rgb * (1 - weights), 0, 255).round(), np.uint8)


def hull_mask(photo: Photo) -> Floats:
    """1 within the outline of the face up to the middle of the forehead, where hair may begin; shape (side, side)."""
    side, points = photo.rgb.shape[0], photo.points_px
    corners = hull(photo.found, "face") * side
    up = points[_TOP] - points[_BROW]
    limit = float(points[_BROW] @ up + 0.5 * up @ up)
    mask = np.zeros((side, side), np.float32)
    cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1.0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return np.where(columns * up[0] + rows * up[1] < limit, mask, 0).astype(np.float32)


def _mask(target: Photo, rng: np.random.Generator) -> Floats:
    """The hull, drawn in and feathered so that it ends before the face does; shape (side, side)."""
    width = float(np.linalg.norm(target.points_px[CHEEKS[0]] - target.points_px[CHEEKS[1]]))
    sigma = width * rng.uniform(0.02, 0.04)
    drawn_in = cv2.erode(
        hull_mask(target), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(2 * sigma) + 1,) * 2)
    )
    return np.asarray(cv2.GaussianBlur(drawn_in, (0, 0), sigma), np.float32)


def _warped(target: Photo, donor: Photo) -> Floats:
    """The donor's face in the target's shape, pose and expression: affine within each triangle of landmarks."""
    side = target.rgb.shape[0]
    triangles = Delaunay(target.points_px).simplices
    corners = target.points_px[triangles]
    matrices = np.linalg.pinv(np.pad(corners, [(0, 0), (0, 0), (0, 1)], constant_values=1))
    affine = np.concatenate([matrices @ donor.points_px[triangles], np.zeros((1, 3, 2))])
    which = np.full((side, side), len(triangles), np.int32)
    for number, corner in enumerate(np.round(corners).astype(np.int32)):
        cv2.fillConvexPoly(which, corner, number)
    rows, columns = np.mgrid[:side, :side]
    places = np.einsum("yxc,yxcd->yxd", np.stack([columns, rows, np.ones_like(rows)], axis=2), affine[which])
    across, down = np.moveaxis(places.astype(np.float32), 2, 0)
    return cv2.remap(donor.rgb, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).astype(np.float32)


def _in_colours_of(face: Floats, target: RgbImage, inside: npt.NDArray[np.bool_]) -> Floats:
    """Mean and deviation of each channel in L*a*b* (Reinhard et al., "Color Transfer between Images", 2001)."""
    own, wanted = (
        cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for rgb in (face, target)
    )
    mean, deviation = own[inside].mean(axis=0), own[inside].std(axis=0)
    factor = np.clip(wanted[inside].std(axis=0) / np.maximum(deviation, 1e-3), 0.7, 1.4)
    moved = (own - mean) * factor + wanted[inside].mean(axis=0)
    return np.asarray(255 * cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB), np.float32)


def _in_the_light_of(face: Floats, target: RgbImage, mask: Floats, rng: np.random.Generator) -> Floats:
    """Broad light and shadow of the target: its low frequencies within the hull, for the most part."""
    sigma = _LIGHT_SIGMA * target.shape[0]
    weights = mask[..., None]
    total = cv2.GaussianBlur(mask, (0, 0), sigma)[..., None] + 1e-3
    broad = [
        cv2.GaussianBlur(picture * weights, (0, 0), sigma) / total for picture in (target.astype(np.float32), face)
    ]
    return np.asarray(face + rng.uniform(0.6, 0.95) * (broad[0] - broad[1]), np.float32)


def _as_sharp_as(face: Floats, target: RgbImage, inside: npt.NDArray[np.bool_]) -> Floats:
    """Blurred until it has no more detail than what it replaces."""
    wanted = detail(target, inside)
    for sigma in _SIGMAS_PX:
        soft = cv2.GaussianBlur(face, (0, 0), sigma) if sigma else face
        if detail(soft, inside) <= 1.1 * wanted:
            return np.asarray(soft, np.float32)
    return np.asarray(soft, np.float32)


def detail(rgb: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> float:
    """Deviation of the Laplacian of the grey picture within the mask, in levels."""
    luma = cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(luma, cv2.CV_32F)[inside].std())
