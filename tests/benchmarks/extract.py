"""CPU seconds a clip from opening to the encoded crop: the reference recipe, `hog` and `cascade`, in one run.

    python tests/benchmarks/extract.py FOLDER [--minimum-height 1080]

The reference recipe is `cv2.VideoCapture(path).read()`, `face_recognition.face_locations(rgb)` with its defaults, the
box cut out, resized to 224 x 224 and written as PNG by `cv2.imencode`. FOLDER defaults to `../shared/corpus` where
that is present, else a small drawn corpus. All run in one thread of one process, turn by turn on each clip; the ratio
is of CPU seconds. Decisions are no face, one, several; IoU is of boxes on clips where both found one face.

What dominates `cascade` at 1080p, of 28 ms of CPU a clip (py-spy and thread clocks, 17 real clips): two passes of the
network 9.0 ms, 2.5 passes on average, since a frame without a face takes four; dlib's HOG on the patches and, where
nothing was found, on the reduced frame 6.1; decoding the one packet 6.2; PNG 1.6; reducing the frame for the network
1.0; cutting and scaling the crop 0.6; opening, FFmpeg's part of it 0.6, 1.0 in all. The floor is one packet's decode
(6.2), the two passes that cover a wide frame (2 x 3.3), dlib on one patch (2.5) and the crop's encoding (2.0): 17 ms.
Bytes are no part of it: 0.2 MB a clip are 2 ms on a line of 1 Gbit/s and are fetched early. A second pass cannot be
spared where the first is sure, as it looks at another part of the frame; `batch/faces/cascade.py` has what was tried.

`--frames 16`: half of a clip's time is decoding, because all frames that wanted ones refer to are decoded; those that
none refers to are skipped (57% of the time, the same pixels). Following faces between frames was tried: dlib on a patch
around the last frame's box, the whole cascade on every 4th frame and where a face was lost. Detecting takes 112 ms a
clip instead of 213, an eighth of the whole, and 13 of 432 frames then hold another number of faces, 10 of them fewer:
somebody who comes in is not seen. So every frame is looked at, and a `track_id` is given by place and size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos  # noqa: E402
from batch.corpus.listing import list_videos  # noqa: E402
from batch.faces.detect import DetectOptions, DetectorName  # noqa: E402
from batch.faces.extract import extract_video  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import Box, Reason, VideoRef, VideoResult  # noqa: E402
from batch.shards.write import faces_table, parquet_bytes  # noqa: E402
from batch.storage.base import Storage  # noqa: E402
from batch.storage.open import open_storage  # noqa: E402

SHARED = ROOT.parent / "shared" / "corpus"


def reference(path: Path) -> list[Box]:
    """Boxes, having done all that the recipe does."""
    import face_recognition

    done, frame = cv2.VideoCapture(str(path)).read()
    if not done:
        return []
    rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    found = face_recognition.face_locations(rgb)
    boxes = [Box(left=left, top=top, right=right, bottom=bottom) for top, right, bottom, left in found]
    if len(boxes) == 1:
        box = boxes[0]
        cv2.imencode(".png", cv2.resize(frame[box.top : box.bottom, box.left : box.right], (224, 224)))
    return boxes


def overlap(one: Box, two: Box) -> float:
    """Intersection over union."""
    width = min(one.right, two.right) - max(one.left, two.left)
    height = min(one.bottom, two.bottom) - max(one.top, two.top)
    both = max(0, width) * max(0, height)
    return both / (one.width * one.height + two.width * two.height - both)


def decision(count: int) -> str:
    """None, one or several."""
    return "none" if count == 0 else "one" if count == 1 else "several"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--minimum-height", type=int, default=0)
    parser.add_argument("--frames", type=int, help="evenly spaced ones; the first alone by default")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or (SHARED if SHARED.is_dir() else drawn(Path(scratch)))
        measure(folder, arguments.minimum_height, arguments.frames or "first")


def drawn(scratch: Path) -> Path:
    """A small drawn corpus."""
    from batch.corpus.draw.corpus import draw_corpus
    from batch.corpus.draw.options import DrawOptions

    draw_corpus(scratch / "corpus", DrawOptions(identities=6, parts=1))
    return scratch / "corpus"


def measure(folder: Path, minimum_height: int, frames: int | Literal["first"]) -> None:
    """Times every clip with every method, in turn."""
    source = open_storage(str(folder))
    names: tuple[DetectorName, ...] = ("hog", "cascade") if frames == "first" else ("cascade",)
    methods = {name: FaceOptions(detect=DetectOptions(detector=name), frames=frames) for name in names}
    cpu: Counter[str] = Counter()
    wall: Counter[str] = Counter()
    stages: dict[str, Counter[str]] = {name: Counter() for name in methods}
    results: dict[str, list[VideoResult]] = {name: [] for name in methods}
    expected: list[tuple[str, list[Box]]] = []
    labels, items = choose_labels("none", source, list_videos(source), CorpusNotes())
    refs = [ref for ref in label_videos(items, labels, CorpusNotes()) if height(folder / ref.key) >= minimum_height]
    warm_up(folder / refs[0].key, refs[0], source, methods)
    for ref in refs:
        with timed("reference", cpu, wall):
            boxes = reference(folder / ref.key)
        expected.append((ref.key, boxes))
        for name, options in methods.items():
            with timed(name, cpu, wall):
                result = extract_video(source, ref, options, pictures=False)
            stages[name].update(result.cost.seconds)
            results[name].append(result)
    for name in methods:
        with timed(name, cpu, wall):
            start = time.process_time()
            parquet_bytes(faces_table(results[name], source.root, ""))
            stages[name]["write"] += time.process_time() - start  # type: ignore[assignment]  # floats add as well
    report(cpu, wall, stages, len(refs))
    if frames == "first":  # The reference recipe looks at no other.
        agreement(results, expected)


@contextmanager
def timed(name: str, cpu: Counter[str], wall: Counter[str]) -> Iterator[None]:
    """Adds the block's CPU and wall seconds."""
    start, started = time.process_time(), time.perf_counter()
    yield
    cpu[name] += time.process_time() - start  # type: ignore[assignment]  # floats add as well
    wall[name] += time.perf_counter() - started  # type: ignore[assignment]


def height(path: Path) -> int:
    """Of the frames, in pixels."""
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_HEIGHT))


def warm_up(path: Path, ref: VideoRef, source: Storage, methods: Mapping[DetectorName, FaceOptions]) -> None:
    """Loads libraries and models."""
    reference(path)
    for options in methods.values():
        extract_video(source, ref, options, pictures=False)


def report(cpu: Counter[str], wall: Counter[str], stages: dict[str, Counter[str]], count: int) -> None:
    """Prints the table."""
    names = ("read", "open", "decode", "detect", "crop", "encode", "write")
    print(f"{count} clips; milliseconds a clip")
    print(f"{'':<10} {'CPU':>8} {'wall':>8} {'ratio':>7}   " + " ".join(f"{name:>8}" for name in names))
    for method in ("reference", *stages):
        split = " ".join(f"{stages[method][name] / count * 1e3:8.2f}" for name in names) if method in stages else ""
        ratio = cpu["reference"] / cpu[method]
        print(f"{method:<10} {cpu[method] / count * 1e3:8.1f} {wall[method] / count * 1e3:8.1f} {ratio:7.1f}   {split}")


def agreement(results: Mapping[str, list[VideoResult]], expected: list[tuple[str, list[Box]]]) -> None:
    """Prints which decisions and boxes are the reference's, and the clips that differ."""
    for method, found in results.items():
        differ = [
            f"  {key}: reference {len(boxes)}, {method} {result.faces_found} ({result.reason})"
            for (key, boxes), result in zip(expected, found, strict=True)
            if decision(len(boxes)) != decision(result.faces_found)
        ]
        overlaps = [
            overlap(boxes[0], result.faces[0].face_box_px)
            for (_, boxes), result in zip(expected, found, strict=True)
            if len(boxes) == 1 and result.reason is Reason.KEPT and len(result.faces) == 1
        ] or [float("nan")]
        same = 1 - len(differ) / len(expected)
        ways = dict(Counter(result.decoded_by for result in found))
        print(f"{method}: {same:.1%} same decisions, mean IoU {np.mean(overlaps):.3f}, decoded by {ways}")
        print(*differ, sep="\n")


if __name__ == "__main__":
    main()
