"""Speed, agreement, precision and recall of the detectors, in one table from one run on one core.

    python tests/benchmarks/detectors.py          # about three minutes
    python tests/benchmarks/detectors.py --cnn    # with dlib's network as well: twenty minutes without CUDA

Sections: agreement with the reference recipe (`cv2.VideoCapture.read`, `face_recognition.face_locations`) on the first
frames of `../shared/corpus`; precision and recall against `true_faces.csv`, where a person marked every face of the
first and the 49th frame of each clip, since agreement counts the reference's misses as right; recall by face size, the
face alone and beside a large one; recall by the groups of `../shared/utkface`. What is absent is named and left out.

"Same" is the decision none, one or several; IoU is of the reference's boxes with the nearest found. CPU is process time
of detecting alone, on decoded frames. `cnn` looks at the frame as it is (upsample 0), or it would take a minute each.

Measured on one core of an EPYC that others used as well:
- `cascade` takes 15 ms a frame where `hog` takes 378 (18 and 645 at 1080p), decides the same on 53 of 53 clips, and its
  boxes have a mean IoU of 0.82 with the reference's. 7 ms of it are two passes of the network, which is the floor of
  this design, 2.5 ms is dlib on a patch; a frame without a face takes 27 to 38 ms.
- On the first and 49th frames no detector has a wrong box, and `hog` and `cascade` both find 112 of the 118 marked
  faces that are large enough.
- Rechecking frames where nothing was found (`recheck_empty`) costs 14 ms a frame on average, 45 at 1080p, and finds no
  face more on these 106 frames. So it is not the default.
- By size, `cascade` misses faces of 5% of the height (it finds 0.65, alone or beside a large face) that `hog` finds
  (1.00 and 0.94); of 7% it finds all lone ones and 0.82 beside a large face (`hog` 0.94), from 10% all.
- By group, no two groups' intervals part at 60 photos each; both detectors are lowest for black women (`hog` 0.92,
  `cascade` 0.93) and highest for white men and women (1.00). `cascade` finds 0.983 of all, `hog` 0.973.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.detect import DetectOptions, Detector, Frame, make_detector  # noqa: E402
from batch.records import Box  # noqa: E402
from tests.benchmarks.detector_samples import (  # noqa: E402
    CANVAS,
    Face,
    Sample,
    compose,
    frames_of,
    holds,
    overlap,
    photo,
    wilson,
)
from tests.support.drawn_face import ArrayFrame, scene  # noqa: E402

CORPUS = ROOT.parent / "shared" / "corpus"
PHOTOS = ROOT.parent / "shared" / "utkface"
LABELS = Path(__file__).with_name("true_faces.csv")
SIZES = (0.05, 0.07, 0.1, 0.15, 0.25, 0.4)
PER_GROUP = 60
RACES, GENDERS = ("white", "black", "asian", "indian", "other"), ("male", "female")


def main() -> None:
    """Prints the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    options = {
        "hog": DetectOptions(detector="hog"),
        "cascade": DetectOptions(),
        "cascade, recheck": DetectOptions(recheck_empty=True),
    }
    if arguments.cnn:
        options["cnn"] = DetectOptions(detector="cnn", upsample=0)
    detectors = {name: make_detector(value) for name, value in options.items()}
    for detector in detectors.values():
        detector.detect(ArrayFrame(scene(200, 160, [(100, 80, 70)])))  # the first call allocates
    if CORPUS.is_dir():
        samples = [sample for path in sorted(CORPUS.rglob("*.mp4")) for sample in frames_of(path)]
        found = detect_all(detectors, samples)
        agreement(samples, found)
        judged(samples, found)
        by_size({name: detectors[name] for name in ("hog", "cascade")}, samples)
    else:
        print(f"{CORPUS} is absent: no agreement, precision or recall on clips")
    if PHOTOS.is_dir():
        by_group({name: value for name, value in detectors.items() if name != "cascade, recheck"})
    else:
        print(f"{PHOTOS} is absent: no recall by group")


Found = Mapping[str, list[tuple[list[Box], float]]]
"""By detector, for each sample: boxes and CPU seconds."""


def detect_all(detectors: Mapping[str, Detector], samples: Sequence[Sample]) -> Found:
    """Runs every detector over every sample, and the reference recipe over the first frames."""
    found: dict[str, list[tuple[list[Box], float]]] = defaultdict(list)
    paths = {path.name: path for path in CORPUS.rglob("*.mp4")}
    for sample in samples:
        for name, detector in detectors.items():
            found[name].append(timed(detector, sample.frame))
        found["reference"].append(reference(paths[sample.clip]) if sample.index == 0 else ([], 0.0))
    return found


def timed(detector: Detector, frame: Frame) -> tuple[list[Box], float]:
    """Boxes and CPU seconds."""
    start = time.process_time()
    faces = detector.detect(frame)
    return [face.box_px for face in faces], time.process_time() - start


def reference(path: Path) -> tuple[list[Box], float]:
    """What the reference recipe finds in a clip; CPU seconds of `face_locations` alone."""
    import face_recognition

    rgb = np.ascontiguousarray(cv2.VideoCapture(str(path)).read()[1][:, :, ::-1])
    start = time.process_time()
    found = face_recognition.face_locations(rgb)
    spent = time.process_time() - start
    return [Box(left=left, top=top, right=right, bottom=bottom) for top, right, bottom, left in found], spent


def agreement(samples: Sequence[Sample], found: Found) -> None:
    """Prints speed and agreement on the first frames."""
    firsts = [number for number, sample in enumerate(samples) if sample.index == 0]
    large = [number for number in firsts if samples[number].frame.height_px >= 1080]
    expected = found["reference"]
    print(f"\nFirst frames of {len(firsts)} clips ({len(large)} of them 1080p), against the reference recipe")
    print(f"{'':18}{'ms/frame':>9}{'1080p':>8}{'times':>7}{'same':>9}{'IoU':>7}{'missed':>8}{'added':>7}")
    for name, results in found.items():
        cpu = sum(results[number][1] for number in firsts)
        wide = sum(results[number][1] for number in large) / max(1, len(large))
        pairs = [(results[number][0], expected[number][0]) for number in firsts]
        same = sum(min(len(ours), 2) == min(len(theirs), 2) for ours, theirs in pairs)
        best = [max((overlap(box, one) for one in ours), default=0.0) for ours, theirs in pairs for box in theirs]
        hits = [value for value in best if value > 0.2]
        total = sum(len(ours) for ours, _ in pairs)
        times = sum(expected[number][1] for number in firsts) / cpu
        print(
            f"{name:18}{1e3 * cpu / len(firsts):9.1f}{1e3 * wide:8.1f}{times:7.1f}{same:6}/{len(firsts):2}"
            f"{np.mean(hits):7.3f}{len(best) - len(hits):8}{total - len(hits):7}"
        )
    for name, results in found.items():
        for number in firsts:
            ours, theirs = len(results[number][0]), len(expected[number][0])
            if min(ours, 2) != min(theirs, 2):
                print(f"  differs: {name} finds {ours}, the reference {theirs}: {samples[number].clip}")


def judged(samples: Sequence[Sample], found: Found) -> None:
    """Prints precision and recall against the faces that a person marked."""
    labels: dict[tuple[str, int], list[Face]] = defaultdict(list)
    for row in csv.DictReader(LABELS.open(encoding="utf-8")):
        here = labels[row["clip"], int(row["frame"])]
        if row["x_px"]:
            here.append(Face(x=int(row["x_px"]), y=int(row["y_px"]), side=int(row["side_px"])))
    known = [number for number, sample in enumerate(samples) if (sample.clip, sample.index) in labels]
    print(f"\nAgainst the faces that a person marked in {len(known)} first and 49th frames")
    print(f"{'':18}{'precision':>10}{'recall':>8}{'of':>5}{'wrong':>7}   recall of faces from 5% of the frame's side")
    for name in (name for name in found if name != "reference"):
        right = wrong = hits = wanted = 0
        for number in known:
            faces, boxes = labels[samples[number].clip, samples[number].index], found[name][number][0]
            least = 0.05 * min(samples[number].frame.height_px, samples[number].frame.width_px)
            right += sum(any(holds(box, face) for face in faces) for box in boxes)
            wrong += sum(not any(holds(box, face) for face in faces) for box in boxes)
            large = [face for face in faces if face.side >= least]
            hits += sum(any(holds(box, face) for box in boxes) for face in large)
            wanted += len(large)
        print(f"{name:18}{right / max(1, right + wrong):10.3f}{hits / max(1, wanted):8.3f}{wanted:5}{wrong:7}")
    for number in known:
        counts = {name: len(results[number][0]) for name, results in found.items() if name != "reference"}
        if len(set(counts.values())) > 1:
            sample = samples[number]
            true = len(labels[sample.clip, sample.index])
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            print(f"  differ: {told}, true {true}: {sample.clip} frame {sample.index}")


def by_size(detectors: Mapping[str, Detector], samples: Sequence[Sample]) -> None:
    """Prints recall by face size: real clips with one face, put on a grey canvas, alone and beside a large face."""
    single = [sample for sample in samples if sample.real and sample.index == 0]
    boxed = [(sample, boxes[0]) for sample in single if len(boxes := timed(detectors["hog"], sample.frame)[0]) == 1]
    large = next(pair for pair in boxed if min(pair[1].width, pair[1].height) > 200)
    width, height = CANVAS
    print(f"\nRecall by face size as a share of {height} px, on {width} x {height}, alone and beside a face of 40%")
    print(f"{'':18}{'n':>4}" + "".join(f"{name + end:>17}" for end in ("", " beside") for name in detectors))
    for share in SIZES:
        usable = [pair for pair in boxed if share * height / pair[1].width <= 1.5]
        cells = []
        for beside in (False, True):
            frames = [compose(sample, box, share, large if beside else None) for sample, box in usable]
            for detector in detectors.values():
                centre = (width * (0.75 if beside else 0.5), height / 2)
                cells.append(sum(seen(detector, frame, centre) for frame in frames) / max(1, len(frames)))
        print(f"{share:18.0%}{len(usable):4}" + "".join(f"{cell:17.2f}" for cell in cells))


def seen(detector: Detector, frame: Frame, centre: tuple[float, float]) -> bool:
    """Whether some box holds the point."""
    point = Face(x=round(centre[0]), y=round(centre[1]), side=0)
    return any(holds(box, point) for box in timed(detector, frame)[0])


def by_group(detectors: Mapping[str, Detector]) -> None:
    """Prints recall by race and gender: aligned photos, 160 px wide on 480 x 270, with 95% intervals (Wilson)."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(PHOTOS.glob("*.jpg")):
        _, gender, race, *_ = path.name.split("_")
        groups[f"{RACES[int(race)]} {GENDERS[int(gender)]}"].append(path)
    print(f"\nRecall by group, at most {PER_GROUP} photos each; misses that the other detector does not share")
    print(f"{'':18}{'n':>4}" + "".join(f"{name:>9}  95% interval" for name in detectors) + "   missed alone")
    totals: dict[str, list[bool]] = defaultdict(list)
    for group in (f"{race} {gender}" for race in RACES for gender in GENDERS):
        paths = random.Random(0).sample(groups[group], min(PER_GROUP, len(groups[group])))
        hits = {name: [bool(timed(detector, photo(path))[0]) for path in paths] for name, detector in detectors.items()}
        print(group_line(group, hits))
        for name, values in hits.items():
            totals[name] += values
    print(group_line("all", totals))


def group_line(group: str, hits: Mapping[str, Sequence[bool]]) -> str:
    """One row: recall with its interval, and what each detector alone missed."""
    line = f"{group:18}{len(hits['hog']):4}"
    for values in hits.values():
        low, high = wilson(sum(values), len(values))
        line += f"{np.mean(values):9.3f}  {low:.3f} - {high:.3f}"
    alone = {
        name: sum(not own and all(rest) for own, *rest in zip(hits[name], *others, strict=True))
        for name in hits
        if (others := [hits[other] for other in hits if other != name])
    }
    return line + "   " + ", ".join(f"{name} {count}" for name, count in alone.items())


if __name__ == "__main__":
    main()
