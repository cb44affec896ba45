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
    """A real and a fake a source, which have no picture in common."""
    found: list[Clip] = []
    for number in range(first, first + sources):
        found.append(real(f"p/real{number:04d}.mp4", crops=[picture(2 * number)]))
        found.append(fake(f"p/fake{number:04d}.mp4", f"real{number:04d}.mp4", crops=[reddened(2 * number + 1)]))
    return found


def write_learnable(sink: Storage, sources: int = SOURCES, first: int = 0) -> None:
    """An output of preprocessing that holds them."""
    write_output(sink, clips(sources, first), a_unit=8)
