"""A real face and its landmarks in, a fake made of it alone out: trained on these, a detector needs no fakes.

After Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022, arXiv 2204.08376): two copies of
one picture, of which one is changed in colour and sharpness, are blended along a mask drawn from the landmarks' hull,
after the inner copy was moved and scaled a little and the mask was bent and softened. What is left is what all face
swaps share: a border, and statistics that differ across it. On the host, in the decoding threads: OpenCV alone.

Two things are not the paper's: the inner copy is laid on whole, never half transparent, and the border is narrower: a
network learns from such fakes sooner (`tests/benchmarks/accuracy.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from batch.model.landmarks import Found, Points, trusted
from batch.records import RgbImage

Floats = npt.NDArray[np.float32]

_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_NOSE = (1, 2, 98, 327, 129, 358, 48, 278)
_MOUTH = (61, 291, 0, 17, 37, 267, 84, 314, 40, 270, 91, 321)
# dlib's 68 points, of which the paper makes its hulls, end at the brows; the mesh goes on to the hair.
_KINDS = ("face", "below_brows", "features", "below_eyes")
_KIND_SHARES = (0.4, 0.3, 0.2, 0.1)
_TINTED = 0.3
# The mask is drawn and softened at half the size: it has no detail, and wide blurs are dear.
_COARSE = 2
# Where no face was found in a crop that a detector called one: an ellipse at the landmarks' mean place and size.
_ELLIPSE = (0.5, 0.5, 0.36, 0.42)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendOptions:
    """How far source and target may differ. Shares of the crop's side where nothing else is said."""

    brightness_levels: float = 20
    """Added to all channels, in both directions."""
    tint_levels: float = 20
    """Added to each channel by itself, in both directions, in three of ten, as in the paper's code: oftener, and the
    colour alone would tell."""
    contrast: float = 0.1
    """By a factor of 1 - contrast to 1 + contrast, about the picture's mean."""
    saturation: float = 0.2
    """By a factor of 1 - saturation to 1 + saturation."""
    shift: tuple[float, float] = (0.03, 0.015)
    """Of the inner copy across and down, in both directions."""
    scale: float = 0.05
    """Of the inner copy, by a factor of 1 - scale to 1 / (1 - scale)."""
    bend: float = 0.02
    """Of the mask's outline, at most so far."""
    softness: tuple[float, float] = (0.01, 0.03)
    """Sigma of the blur of the mask's border."""


DEFAULT_BLEND = BlendOptions()


def self_blend(
    face_rgb: RgbImage, found: Found, rng: np.random.Generator, options: BlendOptions = DEFAULT_BLEND
) -> RgbImage:
    """A fake of the same shape, uint8 (side, side, 3). 1.6 ms for 224 x 224 on one core."""
    side = face_rgb.shape[0]
    source, target = face_rgb, face_rgb
    if rng.random() < 0.5:
        source = _changed(face_rgb, rng, options)
    else:
        target = _changed(face_rgb, rng, options)
    move = _move(rng, options)
    # Mirrored at the border, so that no black edge is moved into the face.
    moved = _moved(source, move, cv2.BORDER_REFLECT)
    mask = _moved(_hull_mask(side // _COARSE, found, rng), move, cv2.BORDER_CONSTANT)
    soft = _softened(_bent(np.asarray(mask, np.float32), rng, options), rng, options)
    weights = np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(cv2.blendLinear(moved, target, weights, 1 - weights), np.uint8)


def hull(found: Found, kind: str) -> Points:
    """Corners of the convex outline of a part of the face, shape (n, 2), shares of the side.

    `face`: all of it; `below_brows`: jaw to brows; `features`: brows, eyes, nose, mouth; `below_eyes`: nose to jaw.
    """
    if not trusted(found):
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        x, y, width, height = _ELLIPSE
        return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], axis=1).astype(np.float32)
    points = found.points
    if kind == "features":
        points = points[[*_RIGHT_EYE, *_LEFT_EYE, *_BROWS, *_NOSE, *_MOUTH]]
    elif kind != "face":
        eyes = points[[*_RIGHT_EYE]].mean(axis=0), points[[*_LEFT_EYE]].mean(axis=0)
        across = (eyes[1] - eyes[0]) / max(float(np.linalg.norm(eyes[1] - eyes[0])), 1e-6)
        depth = points @ np.array([-across[1], across[0]], np.float32)
        limit = depth[[*_BROWS]].min() if kind == "below_brows" else depth[[*_RIGHT_EYE, *_LEFT_EYE]].max()
        points = points[depth >= limit]
    return np.asarray(cv2.convexHull(np.ascontiguousarray(points))[:, 0], np.float32)


def _hull_mask(side: int, found: Found, rng: np.random.Generator) -> Floats:
    """1 inside a hull of random kind, 0 outside; shape (side, side)."""
    corners = hull(found, str(rng.choice(_KINDS, p=_KIND_SHARES)))
    mask = np.zeros((side, side), np.float32)
    cv2.fillConvexPoly(mask, np.round(corners * (side - 1)).astype(np.int32), 1.0)
    return mask


def _move(rng: np.random.Generator, options: BlendOptions) -> tuple[float, float, float]:
    """Shift across and down in shares of the side, and scale, of the inner copy."""
    across, down = (rng.uniform(-most, most) for most in options.shift)
    least = 1 - options.scale
    return across, down, rng.uniform(least, 1 / least)


def _moved(image: npt.NDArray[Any], move: tuple[float, float, float], border: int) -> npt.NDArray[Any]:
    """Scaled about its middle and shifted; a picture or a mask of any size."""
    across, down, scale = move
    side = image.shape[0]
    rest = (1 - scale) * (side - 1) / 2
    matrix = np.array([[scale, 0, rest + across * side], [0, scale, rest + down * side]])
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border))


def _changed(image: RgbImage, rng: np.random.Generator, options: BlendOptions) -> RgbImage:
    """Another colour, and another sharpness."""
    vivid = rng.uniform(1 - options.saturation, 1 + options.saturation)
    factor = rng.uniform(1 - options.contrast, 1 + options.contrast)
    tint = options.tint_levels if rng.random() < _TINTED else 0.0
    added = rng.uniform(-options.brightness_levels, options.brightness_levels) + rng.uniform(-tint, tint, 3)
    matrix = factor * (vivid * np.eye(3) + (1 - vivid) * np.array([0.299, 0.587, 0.114]))
    mean = np.array(cv2.mean(image)[:3])
    matrix = np.concatenate([matrix, ((1 - factor) * mean + added)[:, None]], axis=1)
    coloured = np.asarray(cv2.transform(image, matrix), np.uint8)
    return _coarser(coloured, rng) if rng.random() < 0.5 else _sharper(coloured, rng)


def _coarser(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Made 1.5 to 4 times smaller and large again: the resolution of the network that made the face."""
    side = image.shape[0]
    small = max(8, round(side / rng.uniform(1.5, 4)))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    enlarge = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(reduced, (side, side), interpolation=enlarge), np.uint8)


def _sharper(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Unsharp mask of a fifth to a half, as in the paper's code, or more."""
    amount = rng.uniform(0.2, 1.0)
    soft = cv2.GaussianBlur(image, (0, 0), image.shape[0] / 224)
    return np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), np.uint8)


def _bent(mask: Floats, rng: np.random.Generator, options: BlendOptions) -> Floats:
    """Elastic deformation (Simard et al. 2003): a coarse random field, made smooth by enlarging it."""
    side = mask.shape[0]
    most = options.bend * side
    coarse = rng.uniform(-most, most, (7, 7, 2)).astype(np.float32)
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    places = np.arange(side, dtype=np.float32)
    bent = cv2.remap(mask, field[..., 0] + places[None], field[..., 1] + places[:, None], cv2.INTER_LINEAR)
    return np.asarray(bent, np.float32)


def _softened(mask: Floats, rng: np.random.Generator, options: BlendOptions) -> Floats:
    """A soft border that lies inside of the hull, as in the paper: blurred, cut back to where it was 1, blurred."""
    side = mask.shape[0]
    first, second = rng.uniform(*options.softness, 2) * side
    eaten = (cv2.GaussianBlur(mask, (0, 0), first) > 0.75).astype(np.float32)
    soft = cv2.GaussianBlur(eaten, (0, 0), second)
    return np.asarray(soft / max(float(soft.max()), 1e-6), np.float32)
