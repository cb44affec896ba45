"""Photographs of people in, a faces output of real and swapped faces out: the data of `accuracy.py`, made by seed.

    python tests/benchmarks/swaps.py [--faces 64] [--sheet swaps.png]     # a sheet to look at

The photographs are those of UTKFace (`../shared/utkface`, named `age_gender_race_date`). Two people of one gender and
race, alike in age, pose, expression, colour and sharpness, make a pair: four pictures, each of them as he is and with
the other's face. Whatever splits keep a pair together therefore share no photograph, neither as target nor as donor.

The swap is the classic one by landmarks: the donor is warped over the triangles of the target's landmarks, matched in
colour, light and sharpness, and laid in through a feathered hull. Real pictures then go through the same turn, scaling
and JPEG as swapped ones, drawn from the same distributions, so that what was done to the file tells nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.options import CropOptions, FaceOptions  # noqa: E402
from batch.model.jpeg import recompress  # noqa: E402
from batch.model.landmarks import Found, LandmarkNet, trusted  # noqa: E402
from batch.model.self_blended import hull  # noqa: E402
from batch.records import RgbImage  # noqa: E402
from batch.storage.base import Storage  # noqa: E402
from tests.support.face_outputs import Clip, write_output  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "utkface"
FACES_A_PAIR = 4
SHARD_FACES = 64

Floats = npt.NDArray[np.float32]

_GENDERS = ("male", "female")
_RACES = ("white", "black", "asian", "indian", "other")
_JAW, _NOSE_TIP, _EYES, _BROW, _TOP = (234, 454), 1, (33, 263), 9, 10
# Nose tip within the middle half between the ears: beyond that, triangles of the far cheek fold over.
_TURNED = 0.25
# Worst matches that are thrown away: a mouth wide open is laid over one that is shut.
_LEFT_OUT = 0.15
# The blurriest tenth: fine detail as a share of contrast, and levels.
_BLURRED, _LEAST_DETAIL = 0.05, 3.0
_LIGHT_SIGMA = 0.09
_SHARPEST_SIGMA_PX = 3.0


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


def read_photos(folder: Path, count: int, seed: int) -> list[Photo]:
    """About `count` photographs with one upright, frontal face in colour, in a seeded order.

    Raises ValueError for a folder with fewer.
    """
    names = sorted(path.name for path in folder.glob("*.jpg"))
    net, photos = LandmarkNet(), []
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


def pair_photos(photos: Sequence[Photo], seed: int) -> list[tuple[Photo, Photo]]:
    """Each photograph with the most similar one of its group that is still free, then the best 85% of the pairs."""
    pairs: list[tuple[float, Photo, Photo]] = []
    for group in sorted({photo.group for photo in photos}):
        members = [photo for photo in photos if photo.group == group]
        looks = np.stack([_look(photo) for photo in members])
        distances = cdist(looks, looks)
        np.fill_diagonal(distances, np.inf)
        for place in np.random.default_rng(seed).permutation(len(members)):
            other = int(np.argmin(distances[place]))
            if not np.isfinite(distances[place, other]):
                continue
            pairs.append((float(distances[place, other]), members[place], members[other]))
            for taken in (place, other):
                distances[taken], distances[:, taken] = np.inf, np.inf
    pairs.sort(key=lambda pair: (pair[0], pair[1].name))
    kept = [(first, second) for _, first, second in pairs[: round(len(pairs) * (1 - _LEFT_OUT))]]
    return [kept[place] for place in np.random.default_rng(seed).permutation(len(kept))]


def swap(target: Photo, donor: Photo, rng: np.random.Generator) -> RgbImage:
    """The target with the donor's face, uint8 of the target's shape."""
    mask = _mask(target, rng)
    warped = _warped(target, donor)
    inside = mask > 0.5
    lit = _in_the_light_of(_in_colours_of(warped, target.rgb, inside), target.rgb, mask, rng)
    face = _as_sharp_as(lit, target.rgb, inside)
    weights = mask[..., None]
    return np.asarray(np.clip(face * weights + target.rgb * (1 - weights), 0, 255).round(), np.uint8)


def finished(image: RgbImage, side: int, rng: np.random.Generator) -> RgbImage:
    """What every picture goes through, real or not: a small turn and zoom onto (side, side), and JPEG."""
    from_side = image.shape[0]
    zoom = rng.uniform(1.0, 1.1)
    matrix = cv2.getRotationMatrix2D((from_side / 2, from_side / 2), rng.uniform(-4, 4), zoom * side / from_side)
    matrix[:, 2] += (side - from_side) / 2 + rng.uniform(-0.02, 0.02, 2) * side
    soft = cv2.GaussianBlur(image, (0, 0), 0.5 * from_side / side) if side < 0.8 * from_side else image
    turned = cv2.warpAffine(soft, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return recompress(np.asarray(turned, np.uint8), int(rng.integers(75, 96)))


def make_clips(folder: Path, faces: int, sides: Sequence[int], seed: int) -> Iterator[Clip]:
    """At least `faces` faces, half of them swapped, four a pair, with a crop for each of `sides`.

    A clip's `source` is its pair, its part of the corpus the pair's gender and race.
    """
    wanted = -(-faces // FACES_A_PAIR)
    # Of each gender and race one person may stay alone.
    photos = read_photos(folder, round(2 * wanted / (1 - _LEFT_OUT)) + 2 * len(_GENDERS) * len(_RACES), seed)
    for number, pair in enumerate(pair_photos(photos, seed)[:wanted]):
        source = f"pair{number:05d}"
        for which, (target, donor) in enumerate((pair, pair[::-1])):
            swapped = swap(target, donor, np.random.default_rng([seed, number, which]))
            for label, image in enumerate((target.rgb, swapped)):
                name = f"{target.group}/{source}_{which}_{'fake' if label else 'real'}.jpg"
                # One stream a picture and not a side: both sides show the same turn.
                streams = [np.random.default_rng([seed, number, which, label]) for _ in sides]
                crops = [finished(image, side, rng) for side, rng in zip(sides, streams, strict=True)]
                yield Clip(key=name, label=label, source=source, crops=crops)


def write_swaps(sinks: Mapping[int, Storage], faces: int, seed: int, folder: Path = PHOTOS) -> None:
    """Writes what `fakesift preprocess` would have written, an output for each side of the crops.

    Memory: all crops, 150 KB each at 224 pixels.
    """
    clips = list(make_clips(folder, faces, list(sinks), seed))
    for place, (side, sink) in enumerate(sinks.items()):
        options = FaceOptions(crop=CropOptions(crop_size=side))
        of_side = [replace(clip, crops=[clip.crops[place]]) for clip in clips]
        write_output(sink, of_side, options=options, a_unit=SHARD_FACES)


def _is_usable(photo: Photo) -> bool:
    if not trusted(photo.found) or photo.found.score < 0.9:
        return False
    points = photo.found.points
    left, right = points[_JAW[0]], points[_JAW[1]]
    across = right - left
    nose = float((points[_NOSE_TIP] - left) @ across / max(float(across @ across), 1e-9))
    inside = points[:, 1].max() < 1 and points.min() > -0.02 and points.max() < 1.02
    grey = float(np.std(photo.rgb.astype(np.int16) - photo.rgb.mean(axis=2, keepdims=True)))
    return abs(nose - 0.5) < _TURNED and bool(inside) and grey > 2 and not _is_blurred(photo)


def _is_blurred(photo: Photo) -> bool:
    inside = _hull_mask(photo) > 0
    luma = cv2.cvtColor(cv2.GaussianBlur(photo.rgb, (0, 0), 1.0), cv2.COLOR_RGB2GRAY)
    fine = float(cv2.Laplacian(luma, cv2.CV_32F)[inside].std() / max(float(luma[inside].std()), 1e-3))
    return fine < _BLURRED or _detail(photo.rgb, inside) < _LEAST_DETAIL


def _look(photo: Photo) -> Floats:
    """What makes two people good to swap, as a point: shape with pose and expression, age, colour, sharpness."""
    points = photo.found.points - photo.found.points.mean(axis=0)
    across = points[_EYES[1]] - points[_EYES[0]]
    turn = np.arctan2(across[1], across[0])
    level = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
    shape = level / np.sqrt((level**2).mean()) / np.sqrt(level.size)
    inside = _hull_mask(photo) > 0
    colour = cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2LAB)[inside].mean(axis=0)
    others = [photo.age / 60, *(colour / 150), 0.3 * np.log(_detail(photo.rgb, inside) + 0.1)]
    return np.concatenate([8 * shape.ravel(), others]).astype(np.float32)


def _hull_mask(photo: Photo) -> Floats:
    """1 within the outline of the face up to the middle of the forehead, where hair may begin."""
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
    width = float(np.linalg.norm(target.points_px[_JAW[0]] - target.points_px[_JAW[1]]))
    sigma = width * rng.uniform(0.02, 0.04)
    drawn_in = cv2.erode(
        _hull_mask(target), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(2 * sigma) + 1,) * 2)
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
    wanted = _detail(target, inside)
    for sigma in (0.0, 0.5, 0.8, 1.1, 1.5, 2.0, _SHARPEST_SIGMA_PX):
        soft = cv2.GaussianBlur(face, (0, 0), sigma) if sigma else face
        if _detail(soft, inside) <= 1.1 * wanted:
            return np.asarray(soft, np.float32)
    return np.asarray(soft, np.float32)


def _detail(rgb: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> float:
    """Deviation of the Laplacian of the grey picture."""
    luma = cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(luma, cv2.CV_32F)[inside].std())


def main() -> None:
    """Writes an output into a temporary folder, and a sheet of the first faces: real, swapped, real, swapped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--side", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", default="swaps.png")
    given = parser.parse_args()
    clips = list(make_clips(PHOTOS, given.faces, [given.side], given.seed))
    from batch.model.augment import contact_sheet

    Path(given.sheet).write_bytes(contact_sheet(np.stack([clip.crops[0] for clip in clips]), tile_px=given.side))
    print(f"{len(clips)} faces: {given.sheet}")


if __name__ == "__main__":
    main()
