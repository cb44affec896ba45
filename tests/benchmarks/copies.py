"""Which copies of a picture are known again, by the split's search for near-duplicates and by `fakesift evaluate`.

    python tests/benchmarks/copies.py [--photographs 1500]     # 2 minutes on one core

Photographs of `../shared/utkface` are cropped, cropped again as a face that is found a little off, and changed as
platforms change pictures. The split takes hashes that are close, or close to the mirror image's, and confirms them on
pixels; `evaluate` has only the hashes that a bundle keeps, and looks for the picture a little moved and mirrored, too.
The last lines count the pairs of different files that either takes for copies; some photographs stand there twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.fingerprint import MOST_BITS  # noqa: E402
from batch.model.jpeg import recompress  # noqa: E402
from batch.model.near_duplicates import DuplicateOptions  # noqa: E402
from batch.model.perceptual_hash import (  # noqa: E402
    FIRST_BITS,
    Hashes,
    Looks,
    correlations,
    look,
    mirrored,
    mirrored_hashes,
    moved_hashes,
)
from batch.records import RgbImage  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "utkface"
SIDE = 180
"""Of a crop of the 200 pixels, so that a moved one shows what is there."""
Change = Callable[[RgbImage, float], RgbImage]


def cropped(photo: RgbImage, angle: float, moved: float = 0, scale: float = 1) -> RgbImage:
    """The middle, moved by a share of its side in some direction."""
    middle = np.array(photo.shape[:2]) / 2 + moved * SIDE * np.array([np.cos(angle), np.sin(angle)])
    corner = SIDE / 2 - middle / scale
    matrix = np.array([[1 / scale, 0, corner[0]], [0, 1 / scale, corner[1]]])
    return np.asarray(cv2.warpAffine(photo, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC), np.uint8)


def smaller(photo: RgbImage, angle: float) -> RgbImage:
    """A third of the size and back."""
    small = cv2.resize(cropped(photo, angle), (SIDE // 3, SIDE // 3), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


CHANGES: Mapping[str, Change] = {
    "as a JPEG of quality 20": lambda photo, angle: recompress(cropped(photo, angle), 20),
    "a third of the size": smaller,
    "brighter": lambda photo, angle: cv2.convertScaleAbs(cropped(photo, angle), alpha=0.8, beta=40),
    **{f"moved by {moved:.1%} of its side": partial(cropped, moved=moved)
       for moved in (0.005, 0.01, 0.015, 0.02, 0.03)},
    **{f"cropped {abs(scale - 1):.0%} {'tighter' if scale < 1 else 'wider'}": partial(cropped, scale=scale)
       for scale in (0.97, 0.98, 1.02, 1.03)},
    "moved by 1% and cropped 2% tighter": partial(cropped, moved=0.01, scale=0.98),
    "mirrored": lambda photo, angle: np.ascontiguousarray(cropped(photo, angle)[:, ::-1]),
    "mirrored and moved by 1%": lambda photo, angle: np.ascontiguousarray(cropped(photo, angle, 0.01)[:, ::-1]),
}  # fmt: skip


def looks_of(photos: list[RgbImage], angles: np.ndarray, change: Change) -> Looks:
    crops = [change(photo, angle) for photo, angle in zip(photos, angles, strict=True)]
    found = [look(np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)) for crop in crops]
    hashes, thumbs, textured = zip(*found, strict=True)
    return Looks(hashes=np.stack(hashes), thumbs=np.stack(thumbs), textured=np.array(textured))


def apart(left: Hashes, right: Hashes) -> tuple[np.ndarray, np.ndarray]:
    """Differing bits in all, and in the first word."""
    bits = np.bitwise_count(left ^ right)
    return bits.sum(axis=-1), bits[..., 0]


def close(left: Hashes, right: Hashes, most: int) -> np.ndarray:
    """What the search gives the rule to decide."""
    every, first = apart(left, right)
    return (every <= most) & (first <= FIRST_BITS)


def both_ways(looks: Looks) -> list[tuple[Hashes, np.ndarray]]:
    """Hashes and thumbs of the pictures, and of their mirror images."""
    every = np.arange(len(looks.hashes))
    return [(looks.hashes, looks.thumbs), (mirrored_hashes(looks.thumbs, every), mirrored(looks.thumbs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, rule = np.random.default_rng(given.seed), DuplicateOptions()
    paths = sorted(PHOTOS.glob("*.jpg"))
    chosen = np.sort(rng.choice(len(paths), min(given.photographs, len(paths)), replace=False))
    photos = [cv2.imread(str(paths[place]))[:, :, ::-1].copy() for place in chosen]
    angles = rng.uniform(0, 2 * np.pi, len(photos))
    known, every = looks_of(photos, angles, cropped), np.arange(len(photos))
    print(f"{f'{len(photos)} photographs, a copy that is':>40}  {'split':>8}  {'evaluate':>8}")
    for name, change in CHANGES.items():
        copies = looks_of(photos, angles, change)
        split = np.any(
            [
                close(hashes, known.hashes, rule.most_bits) & (correlations(thumbs, known.thumbs) >= rule.correlation)
                for hashes, thumbs in both_ways(copies)
            ],
            axis=0,
        )
        seen = np.any([close(hashes, known.hashes, MOST_BITS) for hashes in moved_hashes(copies.thumbs, every)], axis=0)
        print(f"{name:>40}  {split.mean():>8.1%}  {seen.mean():>8.1%}")
    pairs = len(photos) * (len(photos) - 1)
    alike = {"split": 0, "evaluate": 0}
    turned = both_ways(known)
    variants = list(moved_hashes(known.thumbs, every))
    for place in range(len(photos)):
        others = np.delete(np.arange(len(photos)), place)
        for hashes, thumbs in turned:
            near = others[close(hashes[place], known.hashes[others], rule.most_bits)]
            own = np.repeat(thumbs[place : place + 1], len(near), axis=0)
            alike["split"] += int((correlations(own, known.thumbs[near]) >= rule.correlation).sum())
        hits = [close(hashes[place], known.hashes[others], MOST_BITS) for hashes in variants]
        alike["evaluate"] += int(np.any(hits, axis=0).sum())
    for name, count in alike.items():
        print(f"{name}: {count} of {pairs:,} ordered pairs of different files taken for copies")


if __name__ == "__main__":
    main()
