"""What scoring takes, end to end: against the plain loop, by stage, on Ray two ways, and the listing of a large bucket.

    python tests/benchmarks/score.py [FOLDER] [--parts speed engines listing] [--models cnn xception] [--frames 16]
    python tests/benchmarks/score.py --parts speed --models xception --runtime openvino --precision bfloat16
    python tests/benchmarks/score.py --parts listing --sizes 100000 1000000

`speed`: FOLDER (default: `../shared/corpus` where that is present, else a small drawn corpus), so many copies with
contents of their own, scored by `fakesift score` and by the plain loop: OpenCV takes N evenly spaced frames of a file,
`face_recognition.face_locations` finds faces in each, and one `model.predict` a file scores their crops. Both use the
same untrained network. `whole` is from command to exit, Ray's start and the model's included; `steady` from the first
unit to the last, as the run's own summary tells it. The plain loop's time begins when its libraries and model are
loaded, so that `steady` is what to hold it against. Where others compute on the machine, the load beside it says so.

`engines`: the same units through the tasks and actors of `jobs/scoring.py`, and through Ray Data (a map over tasks, a
map over one actor), on one embedded Ray, each twice: the first time the workers' libraries are cold. Either starts an
actor, which loads the model.

`listing`: a ledger of so many objects, and a listing of the same with 1% new and 0.1% changed, made up as they are
read: time to read the one and to walk the other, bytes an object, memory at its highest.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from batch.corpus.listing import list_videos  # noqa: E402
from batch.faces.isolate import LimitOptions  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import StoredObject  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.support.made_bundle import made_bundle  # noqa: E402

SHARED = ROOT.parent / "shared" / "corpus"
SIDES = {"cnn": 128, "xception": 224}


# Speed -----------------------------------------------------------------------------------------------------------


def copies_of(folder: Path, target: Path, copies: int) -> list[Path]:
    """Files of the same pictures and contents of their own: an MP4 may end with a box that nobody reads."""
    target.mkdir()
    made = []
    for item in list_videos(LocalStorage(folder)):
        data = (folder / item.key).read_bytes()
        for number in range(copies):
            path = target / f"{len(made):05}.mp4"
            path.write_bytes(data + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
            made.append(path)
    return made


def plain_loop(paths: list[Path], model: Any, side: int, frames: int) -> tuple[float, int]:
    """Seconds and faces."""
    import cv2
    import face_recognition
    import numpy as np

    model.predict(np.zeros((1, side, side, 3), np.uint8), verbose=0)
    start, faces = time.perf_counter(), 0
    for path in paths:
        reader = cv2.VideoCapture(str(path))
        count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
        crops = []
        for number in range(frames):
            reader.set(cv2.CAP_PROP_POS_FRAMES, count * (2 * number + 1) // (2 * frames))
            done, frame = reader.read()
            if not done:
                continue
            rgb = np.ascontiguousarray(frame[:, :, ::-1])
            for top, right, bottom, left in face_recognition.face_locations(rgb):
                crops.append(cv2.resize(rgb[top:bottom, left:right], (side, side)))
        reader.release()
        if crops:
            model.predict(np.stack(crops), verbose=0)
            faces += len(crops)
    return time.perf_counter() - start, faces


def busy_s() -> float:
    """CPU seconds of the whole machine, spent by anybody."""
    user, nice, system = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def compare_speed(
    folder: Path, scratch: Path, models: list[str], frames: int, copies: int, plain_files: int, computed: list[str]
) -> None:
    """Prints a row a network and way. `computed` are arguments of `fakesift score`: runtime, precision."""
    paths = copies_of(folder, scratch / "bucket", copies)
    print(f"{len(paths)} files, {frames} frames each, {os.cpu_count()} cores; the plain loop on {plain_files} of them")
    print(
        f"{'network':<10} {'way':<10} {'items/s':>9} {'frames/s':>9} {'faces':>7} {'times':>6} {'CPU':>6} {'load':>6}"
    )
    for name in models:
        bundle = made_bundle(LocalStorage(scratch / f"bundle-{name}"), model=name, side=SIDES[name])
        load = os.getloadavg()[0]
        chosen = paths[:: max(1, len(paths) // plain_files)][:plain_files]
        cpu, begun = busy_s(), time.perf_counter()
        plain_s, faces = plain_loop(chosen, bundle.load_model(), SIDES[name], frames)
        share = (busy_s() - cpu) / (time.perf_counter() - begun) / (os.cpu_count() or 1)
        plain = len(chosen) / plain_s
        _row(name, "plain", plain, frames, faces, 1.0, share, load)
        load, cpu, begun = os.getloadavg()[0], busy_s(), time.perf_counter()
        output = scratch / f"out-{name}"
        command = ["score", bundle.uri, str(scratch / "bucket"), str(output), "--frames", str(frames), *computed]
        subprocess.run([sys.executable, "-m", "jobs.cli", *command], cwd=ROOT, check=True, capture_output=True)
        whole_s = time.perf_counter() - begun
        share = (busy_s() - cpu) / whole_s / (os.cpu_count() or 1)
        told = json.loads((output / "summary.json").read_text())
        crops = told["total"]["crops"]
        steady_s = crops / told["rates"]["crops_per_second"]
        for way, seconds in (("whole", whole_s), ("steady", steady_s)):
            _row(name, way, len(paths) / seconds, frames, crops, len(paths) / seconds / plain, share, load)
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in told["seconds"].items())
        print(f"{'':<10} seconds over tasks: {stages}; model busy {told['rates']['model_busy']:.0%}", end=", ")
        print(f"{told['runtime']} in {told['precision']}", flush=True)


def _row(name: str, way: str, items: float, frames: int, faces: int, times: float, share: float, load: float) -> None:
    print(
        f"{name:<10} {way:<10} {items:9.2f} {items * frames:9.1f} {faces:7d} {times:6.1f} {share:6.0%} {load:6.1f}",
        flush=True,
    )


# Engines ---------------------------------------------------------------------------------------------------------


def compare_engines(folder: Path, scratch: Path, frames: int, copies: int) -> None:
    """Prints a row an engine."""
    from dataclasses import replace

    from batch.scoring.index import LedgerIndex, Sought
    from batch.scoring.look import MediaExtractor
    from batch.scoring.plan import Planner, PlanOptions
    from batch.scoring.records import ScoringOptions
    from batch.scoring.tables import Recipe
    from batch.scoring.units import cut_units
    from jobs.scorer import PoolOptions, Shared
    from jobs.scoring import ScoringPool
    from jobs.session import ray_session

    bucket = LocalStorage(scratch / "engines")
    copies_of(folder, scratch / "engines", copies)
    bundle = made_bundle(LocalStorage(scratch / "bundle-engines"), side=SIDES["cnn"])
    scoring = ScoringOptions(faces=replace(bundle.face_options, frames=frames, faces="all"))
    sought = Sought.of(bundle.digest, scoring, date(2026, 3, 1))
    items = list(Planner([bucket], LedgerIndex([], sought), PlanOptions()).items())

    def shared(output: str) -> Shared:
        recipe = Recipe.of(
            bundle, run=1, night="2026-03-01", options=scoring.digest(), crops_options=scoring.faces.digest(),
            roots=(bucket.root,), prefixes=(bucket.uri(""),), keep_crops=False,
        )  # fmt: skip
        extractor = MediaExtractor(source=bucket, sources=(bucket,), options=scoring.faces, pictures=False)
        sink = LocalStorage(scratch / output)
        return Shared(extractor=extractor, limits=LimitOptions(), sink=sink, recipe=recipe)

    options = PoolOptions()
    with ray_session(None, None) as ray:
        for repeat in range(2):
            units = list(cut_units(items, frames, str(repeat)))
            pool = ScoringPool(ray, bundle, shared(f"actors{repeat}"), options)
            ways = {
                "tasks and actors": (report.commit.crops for report in pool.run(units)),
                "Ray Data": _through_ray_data(ray, bundle, shared(f"data{repeat}"), options, units),
            }
            for way, crops in ways.items():
                _tell_engine(way, crops)


def _tell_engine(way: str, crops: Iterator[int]) -> None:
    """The start of the workers and of the model included: Ray Data gives its rows at once, so no part can be told."""
    start = time.perf_counter()
    done = sum(crops)
    rate = done / (time.perf_counter() - start)
    print(f"{way:<18} {rate:6.1f} crops/s of {done}, load {os.getloadavg()[0]:.1f}", flush=True)


def _through_ray_data(ray: Any, bundle: Any, shared: Any, options: Any, units: list[Any]) -> Iterator[int]:
    from jobs.scorer import Scorer
    from jobs.scoring import look_task

    class Score:
        def __init__(self) -> None:
            self._scorer = Scorer(bundle, shared, options)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            looked = pickle.loads(row["looked"])
            unit = pickle.loads(row["unit"])
            report = self._scorer.score(type(looked)(**{**_fields(looked), "crops": row["crops"]}), unit)
            return {"crops": report.commit.crops}

    def look(row: dict[str, Any]) -> dict[str, Any]:
        _, looked = look_task(shared, pickle.loads(row["unit"]), is_readable=False)
        bare = type(looked)(**{**_fields(looked), "crops": None})
        return {"unit": row["unit"], "looked": pickle.dumps(bare), "crops": looked.crops}

    rows = ray.data.from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=len(units))
    scored = rows.map(look, num_cpus=1).map(Score, num_cpus=0, compute=ray.data.ActorPoolStrategy(size=1))
    yield from (row["crops"] for row in scored.iter_rows())


def _fields(looked: Any) -> dict[str, Any]:
    return {name: getattr(looked, name) for name in looked.__dataclass_fields__}


# Listing ---------------------------------------------------------------------------------------------------------


class MadeUpListing(LocalStorage):
    """A store that lists objects which are not there, in key order, one at a time; some new, some changed."""

    def __init__(self, objects: int) -> None:
        super().__init__("/nonexistent")
        self.objects = objects

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """1% are not in the ledger, 0.1% have another etag there."""
        for number in range(self.objects):
            key = f"uploads/{number // 5000:05}/clip{number:08}.mp4"
            etag = f"{number:032x}" if number % 1000 else f"changed{number:025x}"
            yield StoredObject(key=key, size_bytes=3_000_000, etag=etag, modified_s=1.7e9 + number)


def ledger_of(objects: int, bundle: str, options: str) -> Iterator[Any]:
    """What earlier nights left of 99% of the listing, a row group at a time."""
    import pyarrow as pa

    from batch.scoring.digests import digest16
    from batch.scoring.index import COLUMNS
    from batch.scoring.ledger import content_digest, uri_digest, version_digest

    for start in range(0, objects, 10_000):
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for number in range(start, min(start + 10_000, objects)):
            if number % 100 == 50:
                continue
            uri = f"/nonexistent/uploads/{number // 5000:05}/clip{number:08}.mp4"
            content = content_digest(uri, f"{number:032x}")
            row = {
                **{"uri_digest": uri_digest(uri), "content_digest": content, "crops_digest": None, "unit": "u"},
                **{"version_digest": version_digest(content, bundle, options), "fingerprint": digest16(content)},
                **{"input": "/nonexistent", "date": date(2026, 3, 1), "run": 1, "reason": None, "attempt": 1},
                **{"bundle": bundle, "options": options, "same_as": None},
            }
            for name, values in columns.items():
                values.append(row[name])
        kinds = {"crops_digest": pa.binary(16), "fingerprint": pa.binary(16), "date": pa.date32()}
        yield pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})


def simulate(objects: int) -> dict[str, float]:
    """One night's listing against the ledger."""
    from batch.scoring.index import LedgerIndex, Sought
    from batch.scoring.plan import Planner, PlanOptions
    from batch.scoring.records import ScoringOptions
    from tests.benchmarks.scale import memory_mb

    options = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))
    before_mb, start = memory_mb("VmRSS"), time.perf_counter()
    index = LedgerIndex(ledger_of(objects, "b", options.digest()), Sought.of("b", options, date(2026, 3, 2)))
    read_s, start = time.perf_counter() - start, time.perf_counter()
    held_mb, read_peak_mb = memory_mb("VmRSS"), memory_mb("VmHWM")
    planner = Planner([MadeUpListing(objects)], index, PlanOptions())
    found = sum(1 for _ in planner.items())
    assert found == planner.pending.total() == planner.pending["new"] + planner.pending["changed"]
    return {
        **{"objects": objects, "read_s": read_s, "walk_s": time.perf_counter() - start, "found": found},
        **{"state_bytes": index.state_bytes / max(1, len(index)), "before_mb": before_mb, "held_mb": held_mb},
        **{"read_peak_mb": read_peak_mb, "peak_mb": memory_mb("VmHWM")},
    }


def compare_listings(sizes: list[int]) -> None:
    """Prints a row a size."""
    names = ("objects", "read_s", "walk_s", "found", "state_bytes", "before_mb", "held_mb", "read_peak_mb", "peak_mb")
    print(" ".join(f"{name:>12}" for name in names))
    for size in sizes:
        command = [sys.executable, __file__, "--simulate", str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(" ".join(f"{row[name]:12.1f}" for name in names), flush=True)


def drawn(scratch: Path) -> Path:
    """A small drawn corpus."""
    from batch.corpus.draw.corpus import draw_corpus
    from batch.corpus.draw.options import DrawOptions

    return draw_corpus(scratch / "drawn", DrawOptions(identities=4, parts=1, planted=False)).folder


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("speed", "engines", "listing"), default=["speed", "listing"])
    parser.add_argument("--models", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--plain-files", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        print(json.dumps(simulate(arguments.simulate)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        corpus = arguments.folder or (SHARED if SHARED.is_dir() else drawn(scratch))
        if "speed" in arguments.parts:
            computed = ["--runtime", arguments.runtime, "--precision", arguments.precision]
            sizes = (arguments.frames, arguments.copies, arguments.plain_files)
            compare_speed(corpus, scratch, arguments.models, *sizes, computed)
        if "engines" in arguments.parts:
            compare_engines(corpus, scratch, arguments.frames, arguments.copies)
        if "listing" in arguments.parts:
            compare_listings(arguments.sizes)


if __name__ == "__main__":
    main()
