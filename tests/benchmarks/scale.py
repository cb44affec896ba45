"""What many workers and long listings cost: efficiency of two workers, and the driver's time and memory.

    python tests/benchmarks/scale.py [FOLDER] [--parts workers listing] [--copies 24] [--repeats 1]
    python tests/benchmarks/scale.py --parts listing --sizes 119000 2000000

`workers`: `fakesift preprocess` with 1 and with 2 workers on FOLDER (default: `../shared/corpus` where that is
present, else a small drawn corpus), linked so many times. `steady` is the rate of videos from a quarter of the
commits to where a worker finds no unit left: without Ray's start, the loading of libraries, and the last unit's end,
which a long corpus does not notice; `whole` is from command to exit. Two workers need two idle cores: the load before
each run stands beside it, and where others compute the efficiency says nothing. Of repeats the fastest is shown.

`listing`: a listing of so many objects, made up as it is read, goes through labels, plan and fan-out to a Ray task
that does nothing, each size in a process of its own. `first` is from the first listed object to the first task's end,
`a unit` the whole time over the number of units, `share` that of the time for which a unit keeps its worker busy
(25 ms of work a clip). Memory is the driver's: resident once Ray is up, and at its highest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos  # noqa: E402
from batch.corpus.listing import list_videos  # noqa: E402
from batch.corpus.units import plan_units  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import StoredObject, WorkUnit  # noqa: E402
from batch.shards.commit import read_commits  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402

SHARED = ROOT.parent / "shared" / "corpus"
SECONDS_A_CLIP = 0.025
WORKERS = 2


# Workers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Videos a second."""

    steady: float
    whole: float
    load: float


def extract(corpus: Path, output: Path, workers: int) -> Rate:
    """One whole job."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "jobs.cli", "preprocess", str(corpus), str(output), "--workers", str(workers)]
    start = time.perf_counter()
    subprocess.run([*command, "--labels", "none"], cwd=ROOT, check=True, capture_output=True)
    whole_s = time.perf_counter() - start
    ended = sorted(
        ((output / commit.key).stat().st_mtime, commit.listed) for commit in read_commits(LocalStorage(output))
    )
    warm, last = len(ended) // 4, len(ended) - workers
    steady = sum(videos for _, videos in ended[warm + 1 : last + 1]) / (ended[last][0] - ended[warm][0])
    return Rate(steady=steady, whole=sum(videos for _, videos in ended) / whole_s, load=load)


def compare_workers(folder: Path, scratch: Path, copies: int, repeats: int) -> None:
    """Prints the rates of 1 and 2 workers, which take turns."""
    corpus = scratch / "copies"
    corpus.mkdir()
    for number in range(copies):
        (corpus / f"copy_{number:03}").symlink_to(folder.resolve(), target_is_directory=True)
    videos = sum(1 for _ in list_videos(LocalStorage(corpus)))
    found: dict[int, list[Rate]] = {1: [], 2: []}
    for repeat in range(repeats):
        for workers, rates in found.items():
            rates.append(extract(corpus, scratch / f"out-{workers}-{repeat}", workers))
    print(f"{videos} videos, videos a second\n{'workers':>8} {'steady':>8} {'whole':>8} {'efficiency':>11} {'load':>6}")
    one = max(rate.steady for rate in found[1])
    for workers, rates in found.items():
        best = max(rates, key=lambda rate: rate.steady)
        share = best.steady / one / workers
        print(f"{workers:>8} {best.steady:8.1f} {best.whole:8.1f} {share:11.1%} {best.load:6.1f}", flush=True)


# Listings --------------------------------------------------------------------------------------------------------


class MadeUpListing(LocalStorage):
    """A store that lists objects which are not there, in key order, one at a time."""

    def __init__(self, objects: int) -> None:
        super().__init__("/nonexistent")
        self.objects = objects

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """DFDC's shape: parts of some 2,400 clips of 3 to 5 MB."""
        for number in range(self.objects):
            key = f"dfdc_train_part_{number // 2400:04}/clip{number:08}.mp4"
            yield StoredObject(key=key, size_bytes=3_000_000 + number % 2_000_000, etag=f"{number:032x}")


def memory_mb(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def look_at_nothing(unit: WorkUnit) -> int:
    """The task."""
    return len(unit.videos)


def simulate(objects: int) -> dict[str, float]:
    """One listing from its first object to its last task."""
    from jobs.fanout import fan_out
    from jobs.session import ray_session

    begun = time.perf_counter()
    with ray_session(None, WORKERS) as ray:
        ray_s, before_mb = time.perf_counter() - begun, memory_mb("VmRSS")
        start = time.perf_counter()
        source, notes = MadeUpListing(objects), CorpusNotes()
        labels, items = choose_labels("none", source, list_videos(source), notes)
        units = plan_units(label_videos(items, labels, notes), FaceOptions())
        task = ray.remote(num_cpus=1, max_retries=5)(look_at_nothing)
        first_s, done, videos = 0.0, 0, 0
        for count in fan_out(ray, task, (), units, None):
            first_s = first_s or time.perf_counter() - start
            done, videos = done + 1, videos + count
        total_s = time.perf_counter() - start
    assert videos == objects
    planning = time.perf_counter()
    assert sum(1 for _ in plan_units(label_videos(list_videos(source), labels, notes), FaceOptions())) == done
    return {
        **{"objects": objects, "units": done, "ray_s": ray_s, "first_s": first_s, "total_s": total_s},
        **{"plan_s": time.perf_counter() - planning, "before_mb": before_mb, "peak_mb": memory_mb("VmHWM")},
    }


def compare_listings(sizes: list[int]) -> None:
    """Prints a row a size."""
    print("made-up listings; seconds, milliseconds a unit, MB")
    names = ("objects", "units", "Ray up", "first", "total", "planning", "a unit", "share", "before", "peak")
    print(" ".join(f"{name:>9}" for name in names))
    for size in sizes:
        command = [sys.executable, __file__, "--simulate", str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        unit_s = row["total_s"] / row["units"]
        share = unit_s / (SECONDS_A_CLIP * row["objects"] / row["units"])
        cells = [f"{row['objects']:9.0f}", f"{row['units']:9.0f}"]
        cells += [f"{row[name]:9.2f}" for name in ("ray_s", "first_s", "total_s", "plan_s")]
        cells += [f"{unit_s * 1e3:9.2f}", f"{share:9.2%}", f"{row['before_mb']:9.1f}", f"{row['peak_mb']:9.1f}"]
        print(" ".join(cells), flush=True)


def drawn(scratch: Path) -> Path:
    """A small drawn corpus."""
    from batch.corpus.draw.corpus import draw_corpus
    from batch.corpus.draw.options import DrawOptions

    return draw_corpus(scratch / "drawn", DrawOptions(identities=6, parts=1, planted=False)).folder


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("workers", "listing"), default=["workers", "listing"])
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", type=int, default=[119_000, 2_000_000])
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        print(json.dumps(simulate(arguments.simulate)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if "workers" in arguments.parts:
            folder = arguments.folder or (SHARED if SHARED.is_dir() else drawn(Path(scratch)))
            compare_workers(folder, Path(scratch), arguments.copies, arguments.repeats)
        if "listing" in arguments.parts:
            compare_listings(arguments.sizes)


if __name__ == "__main__":
    main()
