"""Faces that a small network learns to tell apart within a few epochs: fakes are reddish copies of their originals."""

import numpy as np

from batch.storage.base import Storage
from tests.support.face_outputs import Clip, fake, picture, real, write_output

SOURCES = 40


def reddened(seed: int) -> np.ndarray:
    made = picture(seed).astype(np.int16)
    made[..., 0] += 70
    return np.clip(made, 0, 255).astype(np.uint8)


def clips(sources: int = SOURCES, first: int = 0) -> list[Clip]:
    """A real and a fake a source, which have no picture in common; two sources a part, and splits in the labels."""
    found: list[Clip] = []
    for number in range(first, first + sources):
        part = f"p{(number - first) % max(1, sources // 2):02d}"
        split = ("train", "train", "train", "val", "test")[number % 5]
        found.append(real(f"{part}/real{number:04d}.mp4", split=split, crops=[picture(2 * number)]))
        original = f"real{number:04d}.mp4"
        found.append(fake(f"{part}/fake{number:04d}.mp4", original, split=split, crops=[reddened(2 * number + 1)]))
    return found


def write_learnable(sink: Storage, sources: int = SOURCES, first: int = 0) -> None:
    """An output of preprocessing that holds them."""
    write_output(sink, clips(sources, first), a_unit=8)
