"""What the input of training gives: images/s of reading and decoding alone, each way to cache, JPEG, self-blending.

    python tests/benchmarks/input.py [--faces 3000] [--batch 64] [--threads 2] [--repeats 2]

Face shards of 224 px PNG crops are written to a temporary folder, by the job's own writer: photographs of
`../shared/utkface` where that is present, else drawn faces. An epoch goes over all of them. `first` is an epoch that
finds nothing cached, `later` one after it; of repeats the fastest is shown. The naive loop opens each shard with
pyarrow, decodes one picture after another with OpenCV and stacks them to batches, in the order of the files.

`CPU` is processor time of all threads for an image, which is what decides on a machine with more cores: so many cores
over so many ms are the images/s that it can reach. A training step of Xception takes 5 images/s on two cores, and
3,604 on an H100 (JAX, bfloat16).
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.plan import DataOptions, plan_epoch, plan_scan  # noqa: E402
from batch.model.reader import FaceReader  # noqa: E402
from batch.model.records import UNUSED, FaceIndex  # noqa: E402
from batch.records import RgbImage  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.support.drawn_face import scene  # noqa: E402
from tests.support.face_shards import write_index  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "utkface"
SIDE, SHARD_FACES = 224, 200


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One pass."""

    images: int
    seconds: float
    cpu_s: float


def crops(count: int) -> list[RgbImage]:
    """Photographs, or drawn faces repeated with other noise."""
    if PHOTOS.is_dir():
        files = sorted(PHOTOS.iterdir())[:count]
        return [cv2.cvtColor(cv2.resize(cv2.imread(str(file)), (SIDE, SIDE)), cv2.COLOR_BGR2RGB) for file in files]
    rng = np.random.default_rng(0)
    drawn = [scene(SIDE, SIDE, [(112, 120, 130)], seed=seed) for seed in range(40)]
    noise = (rng.integers(-4, 5, (SIDE, SIDE, 3)) for _ in range(count))
    return [np.clip(drawn[place % 40] + each, 0, 255).astype(np.uint8) for place, each in enumerate(noise)]


def naive(index: FaceIndex, batch: int) -> int:
    """The loop that one writes first."""
    count, images = 0, []
    for shard in index.shards:
        for picture in pq.read_table(shard.sink.uri(shard.key), columns=["image"])["image"].to_pylist():
            decoded = cv2.imdecode(np.frombuffer(picture["bytes"], np.uint8), cv2.IMREAD_COLOR)
            images.append(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
            if len(images) == batch:
                count += len(np.stack(images))
                images = []
    return count + len(images)


def passed(work: Callable[[], int]) -> Measured:
    """Wall and processor time of one pass."""
    start, cpu = time.perf_counter(), time.process_time()
    images = work()
    return Measured(images=images, seconds=time.perf_counter() - start, cpu_s=time.process_time() - cpu)


def epochs(reader: FaceReader, index: FaceIndex, options: DataOptions) -> Iterator[Measured]:
    """One epoch after another, as a run reads them."""
    rows = np.arange(index.table.num_rows)
    epoch = 0
    while True:
        epoch += 1
        plan = plan_epoch(index, rows, options, epoch)
        yield passed(
            lambda plan=plan, epoch=epoch: sum(
                int((batch.rows != UNUSED).sum()) for batch in reader.batches(plan, epoch, training=True)
            )
        )


def show(name: str, which: str, measured: list[Measured], base: float | None = None) -> float:
    """A row of the table; gives its images/s."""
    best = min(measured, key=lambda each: each.seconds / each.images)
    rate = best.images / best.seconds
    ratio = rate / (base or rate)
    print(f"{name:<34} {which:>6} {best.images:>7} {rate:>9.0f} {1e3 * best.cpu_s / best.images:>8.2f} {ratio:>9.2f}x")
    sys.stdout.flush()
    return rate


def table(index: FaceIndex, batch: int, threads: int, repeats: int) -> None:
    """All rows, one after another in this process."""
    print(f"{'':<34} {'epoch':>6} {'images':>7} {'images/s':>9} {'CPU ms':>8} {'to naive':>10}")
    base = show("naive loop, one thread", "-", [passed(lambda: naive(index, batch)) for _ in range(repeats)])
    plain = DataOptions(batch_size=batch, balance="none", max_faces=None, augment="none", cache="none")
    scan = plan_scan(index, np.arange(index.table.num_rows), batch)
    with FaceReader(index, plain, threads=threads) as reader:
        measured = [
            passed(lambda: sum(int((each.rows != UNUSED).sum()) for each in reader.batches(scan, 0, training=False)))
            for _ in range(repeats)
        ]
        show("scan (validation)", "-", measured, base)
    cached = replace(plain, cache="memory")
    for name, options in (
        ("shuffled, cache none", plain),
        ("shuffled, cache disk", replace(plain, cache="disk")),
        ("shuffled, cache memory", cached),
        ("memory, robust (JPEG for half)", replace(cached, augment="robust")),
        ("memory, self-blended, robust", replace(cached, augment="robust", synthetic="self-blended")),
    ):
        with FaceReader(index, options, threads=threads) as reader:
            passes = epochs(reader, index, options)
            show(name, "first", [next(passes)], base)
            show(name, "later", [next(passes) for _ in range(repeats)], base)


def main() -> None:
    """Writes shards and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = crops(given.faces)
        labels = [[row % 2 for row in range(SHARD_FACES)] for _ in range(len(pictures) // SHARD_FACES)]
        index = write_index(LocalStorage(scratch), labels, side=SIDE, crops=pictures)
        del pictures
        kilobytes = sum(shard.size_bytes for shard in index.shards) / index.table.num_rows / 1e3
        print(f"{index.table.num_rows} faces of {kilobytes:.0f} KB in {len(labels)} shards, batches of {given.batch}, ")
        print(f"{given.threads} decoding threads on {os.cpu_count()} cores")
        table(index, given.batch, given.threads, given.repeats)
        print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
