"""Photographs of people in, a faces output of real and swapped faces out: the data of `accuracy.py`, made by seed.

    python tests/benchmarks/swaps.py [--faces 64] [--sheet swaps.png]     # a sheet to look at

The photographs are those of UTKFace (`../shared/utkface`, named `age_gender_race_date`). Two people of one gender and
race make a pair: four pictures, each photograph as it is and with the other's face. Splits that keep a pair together
therefore share no photograph, neither as target nor as donor. Pairs are drawn by chance; `--refined` pairs people who
are alike in age, pose, expression, colour and sharpness, and matches the swapped face in light and sharpness too.

The swap is `face_swap.py`'s. Real pictures then go through the same turn, scaling and JPEG as swapped ones, drawn from
the same distributions, so that what was done to the file tells nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.options import CropOptions, FaceOptions  # noqa: E402
from batch.model.jpeg import recompress  # noqa: E402
from batch.model.landmarks import LandmarkNet, trusted  # noqa: E402
from batch.records import RgbImage  # noqa: E402
from batch.storage.base import Storage  # noqa: E402
from tests.benchmarks.face_swap import CHEEKS, EYES, NOSE_TIP, Floats, Photo, detail, hull_mask, swap  # noqa: E402
from tests.support.face_outputs import Clip, write_output  # noqa: E402

Distances = npt.NDArray[np.float64]

PHOTOS = ROOT.parent / "shared" / "utkface"
FACES_A_PAIR = 4
SHARD_FACES = 64

_GENDERS = ("male", "female")
_RACES = ("white", "black", "asian", "indian", "other")
# Nose tip within the middle half between the ears: beyond that, triangles of the far cheek fold over.
_TURNED = 0.25
# Worst matches that are thrown away, of plain and of refined swaps: a mouth wide open is laid over one that is shut.
_LEFT_OUT = (0.0, 0.15)
# Lowest JPEG quality, of plain and of refined swaps; the highest is 95.
_JPEG = (85, 75)
# Correlation of two photographs at 32 x 32; of unlike ones the highest is 0.949.
_COPIES = 0.95
# The blurriest tenth: fine detail as a share of contrast, and levels.
_BLURRED, _LEAST_DETAIL = 0.05, 3.0


def read_photos(folder: Path, count: int, seed: int) -> list[Photo]:
    """About `count` photographs with one upright, frontal face in colour, in a seeded order.

    Raises ValueError for a folder with fewer.
    """
    names = sorted(path.name for path in folder.glob("*.jpg"))
    net = LandmarkNet()
    photos: list[Photo] = []
    for place in np.random.default_rng(seed).permutation(len(names)):
        if len(photos) == count:
            break
        rgb = cv2.imread(str(folder / names[place]), cv2.IMREAD_COLOR_RGB)
        parts = names[place].split("_")
        if rgb is None or len(parts) != 4 or rgb.shape[0] != rgb.shape[1]:
            continue
        found = net.find(np.asarray(rgb, np.uint8))
        group = f"{_GENDERS[int(parts[1])]}_{_RACES[int(parts[2])]}"
        photo = Photo(name=names[place], rgb=np.asarray(rgb, np.uint8), found=found, age=int(parts[0]), group=group)
        if _is_usable(photo):
            photos.append(photo)
    if len(photos) < count:
        raise ValueError(f"{folder}: found {len(photos)} usable photographs of {len(names)}, expected {count}")
    return photos


def pair_photos(photos: Sequence[Photo], seed: int, *, refined: bool = False) -> list[tuple[Photo, Photo]]:
    """Photographs of one gender and race two by two, by chance, copies of one picture apart.

    Refined: each with the most similar one that is still free, then the best 85% of the pairs.
    """
    pairs: list[tuple[float, Photo, Photo]] = []
    for group in sorted({photo.group for photo in photos}):
        members = [photo for photo in photos if photo.group == group]
        distances = _distances(members, np.random.default_rng([seed, len(members)]), refined=refined)
        for place in np.random.default_rng(seed).permutation(len(members)):
            other = int(np.argmin(distances[place]))
            if not np.isfinite(distances[place, other]):
                continue
            pairs.append((float(distances[place, other]), members[place], members[other]))
            for taken in (place, other):
                distances[taken], distances[:, taken] = np.inf, np.inf
    pairs.sort(key=lambda pair: (pair[0], pair[1].name))
    kept = [(first, second) for _, first, second in pairs[: round(len(pairs) * (1 - _LEFT_OUT[refined]))]]
    return [kept[place] for place in np.random.default_rng(seed).permutation(len(kept))]


def finished(image: RgbImage, side: int, rng: np.random.Generator, *, refined: bool = False) -> RgbImage:
    """What every picture goes through, real or not: a small turn and zoom onto (side, side), and JPEG."""
    from_side = image.shape[0]
    zoom = rng.uniform(1.0, 1.1)
    matrix = cv2.getRotationMatrix2D((from_side / 2, from_side / 2), rng.uniform(-4, 4), zoom * side / from_side)
    matrix[:, 2] += (side - from_side) / 2 + rng.uniform(-0.02, 0.02, 2) * side
    soft = cv2.GaussianBlur(image, (0, 0), 0.5 * from_side / side) if side < 0.8 * from_side else image
    turned = cv2.warpAffine(soft, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return recompress(np.asarray(turned, np.uint8), int(rng.integers(_JPEG[refined], 96)))


def make_clips(folder: Path, faces: int, sides: Sequence[int], seed: int, *, refined: bool = False) -> Iterator[Clip]:
    """At least `faces` faces, half of them swapped, four a pair, with a crop for each of `sides`.

    A clip's `source` is its pair, its part of the corpus the pair's gender and race.
    """
    wanted = -(-faces // FACES_A_PAIR)
    # Of each gender and race one person may stay alone.
    photos = read_photos(folder, round(2 * wanted / (1 - _LEFT_OUT[refined])) + 2 * len(_GENDERS) * len(_RACES), seed)
    for number, pair in enumerate(pair_photos(photos, seed, refined=refined)[:wanted]):
        source = f"pair{number:05d}"
        for which, (target, donor) in enumerate((pair, pair[::-1])):
            swapped = swap(target, donor, np.random.default_rng([seed, number, which]), refined=refined)
            for label, image in enumerate((target.rgb, swapped)):
                name = f"{target.group}/{source}_{which}_{'fake' if label else 'real'}.jpg"
                # One stream a picture and not a side: both sides show the same turn.
                streams = [np.random.default_rng([seed, number, which, label]) for _ in sides]
                crops = [finished(image, side, rng, refined=refined) for side, rng in zip(sides, streams, strict=True)]
                yield Clip(key=name, label=label, source=source, crops=crops)


def write_swaps(
    sinks: Mapping[int, Storage], faces: int, seed: int, folder: Path = PHOTOS, *, refined: bool = False
) -> None:
    """Writes what `fakesift preprocess` would have written, an output for each side of the crops.

    Memory: all crops, 150 KB each at 224 pixels.
    """
    clips = list(make_clips(folder, faces, list(sinks), seed, refined=refined))
    for place, (side, sink) in enumerate(sinks.items()):
        options = FaceOptions(crop=CropOptions(crop_size=side))
        of_side = [replace(clip, crops=[clip.crops[place]]) for clip in clips]
        write_output(sink, of_side, options=options, a_unit=SHARD_FACES)


def _distances(members: Sequence[Photo], rng: np.random.Generator, *, refined: bool) -> Distances:
    """How unlike two people are, shape (n, n), or any number where chance decides; infinite where one may not swap."""
    if refined:
        looks = np.stack([_look(photo) for photo in members])
        distances = cdist(looks, looks)
    else:
        distances = rng.random((len(members), len(members)))
    distances[_same_picture(members)] = np.inf
    return np.asarray(distances, np.float64)


def _same_picture(photos: Sequence[Photo]) -> npt.NDArray[np.bool_]:
    """Which are copies of one another, or the same: shape (n, n). The most alike are copies before all others."""
    thumbs = np.stack([cv2.resize(photo.rgb, (32, 32), interpolation=cv2.INTER_AREA).mean(axis=2) for photo in photos])
    return np.atleast_2d(np.corrcoef(thumbs.reshape(len(photos), -1))) > _COPIES


def _is_usable(photo: Photo) -> bool:
    if not trusted(photo.found) or photo.found.score < 0.9:
        return False
    points = photo.found.points
    left, right = points[CHEEKS[0]], points[CHEEKS[1]]
    across = right - left
    nose = float((points[NOSE_TIP] - left) @ across / max(float(across @ across), 1e-9))
    inside = points[:, 1].max() < 1 and points.min() > -0.02 and points.max() < 1.02
    grey = float(np.std(photo.rgb.astype(np.int16) - photo.rgb.mean(axis=2, keepdims=True)))
    return abs(nose - 0.5) < _TURNED and bool(inside) and grey > 2 and not _is_blurred(photo)


def _is_blurred(photo: Photo) -> bool:
    inside = hull_mask(photo) > 0
    luma = cv2.cvtColor(cv2.GaussianBlur(photo.rgb, (0, 0), 1.0), cv2.COLOR_RGB2GRAY)
    fine = float(cv2.Laplacian(luma, cv2.CV_32F)[inside].std() / max(float(luma[inside].std()), 1e-3))
    return fine < _BLURRED or detail(photo.rgb, inside) < _LEAST_DETAIL


def _look(photo: Photo) -> Floats:
    """What makes two people good to swap, as a point: shape with pose and expression, age, colour, sharpness."""
    points = photo.found.points - photo.found.points.mean(axis=0)
    across = points[EYES[1]] - points[EYES[0]]
    turn = np.arctan2(across[1], across[0])
    level = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
    shape = level / np.sqrt((level**2).mean()) / np.sqrt(level.size)
    inside = hull_mask(photo) > 0
    colour = cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2LAB)[inside].mean(axis=0)
    others = [photo.age / 60, *(colour / 150), 0.3 * np.log(detail(photo.rgb, inside) + 0.1)]
    return np.concatenate([8 * shape.ravel(), others]).astype(np.float32)


def main() -> None:
    """Writes an output into a temporary folder, and a sheet of the first faces: real, swapped, real, swapped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--side", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", default="swaps.png")
    parser.add_argument("--refined", action="store_true")
    given = parser.parse_args()
    clips = list(make_clips(PHOTOS, given.faces, [given.side], given.seed, refined=given.refined))
    from batch.model.augment import contact_sheet

    Path(given.sheet).write_bytes(contact_sheet(np.stack([clip.crops[0] for clip in clips]), tile_px=given.side))
    print(f"{len(clips)} faces: {given.sheet}")


if __name__ == "__main__":
    main()
