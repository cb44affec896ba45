"""How well people are told apart, by the distance at which two encodings count as one person's: the split by identity.

    python tests/benchmarks/people.py [--photographs 1500]     # 3 minutes on one core

Photographs of `../shared/utkface`, each with a mirrored, turned, scaled, darker or brighter copy as a JPEG of quality
25 to 60, are encoded once each and clustered as `fakesift train --split identity` does. Purity is the share of faces in
clusters that are of their cluster's most frequent photograph; `apart` the share of photographs whose copy lies in
another cluster. Some people have several photographs there, so purity is a lower bound.

Then the real clips of `../shared/corpus`, four faces of each one's longest track, its person known by the file's name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.detect import DetectOptions, make_detector  # noqa: E402
from batch.model.encodings import Encoder, Encodings, Values, encode_shard, faces_to_encode  # noqa: E402
from batch.model.identity import IdentityOptions, cluster_people, track_means  # noqa: E402
from batch.model.index import load_index  # noqa: E402
from batch.model.jpeg import recompress  # noqa: E402
from batch.model.plan import Rows  # noqa: E402
from batch.model.records import FaceIndex  # noqa: E402
from batch.records import RgbImage  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.benchmarks.real_clips import people_in, write_clips  # noqa: E402
from tests.support.drawn_face import ArrayFrame  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "utkface"
DISTANCES = (0.35, 0.4, 0.45, 0.5, 0.6)
SIDE = 224


def copy_of(photo: RgbImage, rng: np.random.Generator) -> RgbImage:
    """The same person in another clip, as far as a picture can be made to look so."""
    side = photo.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-12, 12), rng.uniform(0.8, 1.1))
    turned = cv2.warpAffine(photo[:, ::-1], matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    small = cv2.resize(turned, None, fx=(factor := rng.uniform(0.5, 1)), fy=factor, interpolation=cv2.INTER_AREA)
    lit = cv2.convertScaleAbs(cv2.resize(small, (side, side)), alpha=rng.uniform(0.7, 1.3))
    return recompress(np.asarray(lit, np.uint8), int(rng.integers(25, 61)))


def encoded_photographs(count: int, seed: int) -> tuple[Values, npt.NDArray[np.int64]]:
    """Encodings of photographs and copies in which HOG finds a face, and the photograph's number for each."""
    detector, encoder, rng = make_detector(DetectOptions(detector="hog")), Encoder(), np.random.default_rng(seed)
    values, numbers = [], []
    paths = sorted(PHOTOS.glob("*.jpg"))
    for number, place in enumerate(np.sort(rng.choice(len(paths), count, replace=False)).tolist()):
        photo = np.asarray(cv2.imread(str(paths[place]), cv2.IMREAD_COLOR_RGB), np.uint8)
        pair = (photo, copy_of(photo, rng))
        found = [detector.detect(ArrayFrame(image)) for image in pair]
        if all(found):
            values += [encoder.encode(image, boxes[0].box_px) for image, boxes in zip(pair, found, strict=True)]
            numbers += [number, number]
    return np.asarray(values, np.float32), np.asarray(numbers, np.int64)


def show_photographs(values: Values, numbers: npt.NDArray[np.int64]) -> None:
    """Prints a line a distance."""
    print(f"{len(numbers) // 2} photographs and a copy of each")
    print(f"{'distance':>8} {'purity':>7} {'apart':>6} {'largest cluster':>16}")
    for distance in DISTANCES:
        labels = cluster_people(values, distance)
        _, sizes = np.unique(labels, return_counts=True)
        pairs, both = np.unique(np.stack([labels, numbers], axis=1), axis=0, return_counts=True)
        most = np.zeros(labels.max() + 1, np.int64)
        np.maximum.at(most, pairs[:, 0], both)
        apart = float(np.mean(labels[::2] != labels[1::2]))
        print(f"{distance:>8.2f} {most.sum() / len(labels):>7.3f} {apart:>6.1%} {sizes.max() / len(labels):>16.1%}")


def show_clips() -> None:
    """Prints whom the default distance ties among the real clips."""
    options = IdentityOptions()
    with tempfile.TemporaryDirectory(prefix="fakesift-people-") as folder:
        sink = LocalStorage(folder)
        write_clips(sink, SIDE)
        index = load_index([sink])
        rows, shards = faces_to_encode(index, options.faces_a_track), index.table["shard"].to_numpy()
        inside = index.table["row"].to_numpy()
        found = [
            (mine, encode_shard(shard, inside[mine]))
            for number, shard in enumerate(index.shards)
            if len(mine := rows[shards[rows] == number])
        ]
        tracks, means = track_means(index, *Encodings.of(index, found).rows(index))
    longest = _longest_tracks(index, tracks)
    tracks, means = tracks[longest], means[longest]
    uris = [index.table["video_uri"][row].as_py().rsplit("/", 1)[-1] for row in tracks.tolist()]
    people = np.asarray([people_in(uri)[0] for uri in uris])
    labels = cluster_people(means, options.distance)
    same = people[:, None] == people
    upper = np.triu(np.ones_like(same), 1)
    apart = np.linalg.norm(means[:, None] - means, axis=2)
    tied = labels[:, None] == labels
    print(f"{len(tracks)} real clips of {len(set(people.tolist()))} people, distance {options.distance}:")
    print(f"  of one person: {int((tied & same & upper).sum())} of {int((same & upper).sum())} pairs tied")
    print(f"  of two people: {int((tied & ~same & upper).sum())} of {int((~same & upper).sum())} pairs tied")
    print(f"  closest of two people: {apart[~same & upper].min():.2f} apart")


def _longest_tracks(index: FaceIndex, tracks: Rows) -> list[int]:
    """Of each clip, the place in `tracks` (rows of the index) of the track with most faces: who its name tells."""
    columns = (index.table[name].to_pylist() for name in ("video_uri", "track_id"))
    faces = list(zip(*columns, strict=True))
    sizes = Counter(faces)
    best: dict[str, int] = {}
    for place, row in enumerate(tracks.tolist()):
        clip = faces[row][0]
        if clip not in best or sizes[faces[row]] > sizes[faces[tracks[best[clip]]]]:
            best[clip] = place
    return list(best.values())


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    show_photographs(*encoded_photographs(given.photographs, given.seed))
    show_clips()


if __name__ == "__main__":
    main()
