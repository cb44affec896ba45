"""Golden inputs: pictures without people, kept in a bundle with the logits that its model gave for them.

Who loads the bundle repeats them: an upgrade of a library, another processor or another backend that changes scores
is then seen before the first file is scored.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw.identity import draw_identity
from batch.corpus.draw.portrait import draw_portrait
from batch.corpus.draw.scene import draw_light

Precision = Literal["float32", "bfloat16", "float16"]
Runtime = Literal["keras", "openvino"]
"""What computes a network."""

FLOAT32_TOLERANCE = 1e-4
"""In logits, for logits of up to 1; of larger ones the same share. Backends add up in other orders."""
_FACES, _NOISES = 6, 2
_SEED = 20_190_910
# Left, top and side of the inner face on the portrait's canvas.
_LEFT, _TOP, _SIDE = 52, 138, 280


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Inputs and what the model said of them."""

    images: npt.NDArray[np.uint8]
    """Shape (n, side, side, 3), RGB."""
    logits: npt.NDArray[np.float32]
    """In float32 on the machine that saved the bundle, shape (n,)."""

    def to_bytes(self) -> bytes:
        """As `golden.npz`."""
        out = io.BytesIO()
        np.savez_compressed(out, images=self.images, logits=self.logits)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Golden:
        """Reads `golden.npz` without unpickling. Raises `ValueError` with `where` for what is none."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as held:
                images, logits = held["images"], held["logits"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{where}: damaged: {error}; expected arrays `images` and `logits`") from error
        if images.dtype != np.uint8 or images.ndim != 4 or logits.shape != images.shape[:1] or not len(images):
            raise ValueError(f"{where}: got images {images.dtype} {images.shape} and logits {logits.shape}")
        return cls(images=images, logits=np.asarray(logits, np.float32))


@lru_cache(maxsize=2)
def golden_images(side: int) -> npt.NDArray[np.uint8]:
    """Drawn faces under drawn light and two pictures of smooth noise, uint8 (8, side, side, 3), RGB.

    The same on every machine but for rounding in OpenCV: a bundle keeps the pictures themselves. Kept, since drawing
    takes seconds, and hence read-only.
    """
    rng = np.random.default_rng(_SEED)
    faces = [_drawn_face(rng, number, side) for number in range(_FACES)]
    images = np.stack([*faces, *(_noise(rng, side) for _ in range(_NOISES))])
    images.flags.writeable = False
    return images


def drift(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """The largest difference of logits, in units of the larger of 1 and the expected logit; NaN counts as infinite."""
    share = np.abs(got.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.max(np.where(np.isfinite(share), share, np.inf)))


def check_precision(precision: str) -> None:
    """Raises `ValueError` for an unknown one."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(get_args(Precision))}")


def _drawn_face(rng: np.random.Generator, number: int, side: int) -> npt.NDArray[np.uint8]:
    portrait = draw_portrait(draw_identity(_SEED, number, number / (_FACES - 1)), draw_light(rng), glasses=False)
    layer = portrait.express(float(rng.uniform(0.7, 1.0)), float(rng.uniform(0.0, 0.5))).astype(np.float32)
    place = (slice(_TOP, _TOP + _SIDE), slice(_LEFT, _LEFT + _SIDE))
    behind = cv2.resize(_noise(rng, 64)[..., ::-1], (_SIDE, _SIDE)).astype(np.float32)
    picture = layer[place][..., :3] + behind * (1 - layer[place][..., 3:] / 255)
    picture += rng.normal(0, 3, picture.shape)
    small = cv2.resize(np.clip(picture, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1])


def _noise(rng: np.random.Generator, side: int) -> npt.NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
