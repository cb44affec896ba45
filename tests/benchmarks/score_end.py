"""The end of a scoring run with many units: time and memory of adding its commits up and of writing the ledger.

    python tests/benchmarks/score_end.py [--sizes 2000 20000] [--copies 100000]

Commits and tables are made up as they are read, 16 items a unit, so that what is measured is the reader's. `orphans`
looks for files that no commit names, `sums` adds up, `ledger` reads all tables and writes the parts; then twins: so
many copies of what was scored wait for their rows, and get them. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import StoredObject  # noqa: E402
from batch.scoring.close import remove_orphans  # noqa: E402
from batch.scoring.commit import ScoreCommit, commit_keys, places, read_commits, run_prefix  # noqa: E402
from batch.scoring.digests import digest16  # noqa: E402
from batch.scoring.ledger import write_ledger  # noqa: E402
from batch.scoring.records import Item, ScoringOptions  # noqa: E402
from batch.scoring.summary import CommitSums  # noqa: E402
from batch.scoring.twins import TwinWriter  # noqa: E402
from batch.scoring.waiting import Waiting  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.benchmarks.scale import memory_mb  # noqa: E402
from tests.support.scored import recipe, record  # noqa: E402

ITEMS_A_UNIT = 16
NIGHT = date(2026, 3, 2)
OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))
ITEMS = [
    Item(input=0, key=f"{n:02}.jpg", size_bytes=10, etag="e", modified_s=0, fingerprint=digest16(str(n)))
    for n in range(ITEMS_A_UNIT)
]


class MadeUpOutput(LocalStorage):
    """An output whose every unit is one and the same that lies there; what is put is dropped."""

    def __init__(self, root: Path, units: int) -> None:
        super().__init__(str(root))
        self._units, real = units, LocalStorage(str(root))
        source = LocalStorage(str(root / "in"))
        [report] = record(real, source, ITEMS, run=1, options=OPTIONS, night=NIGHT)
        self._commit: ScoreCommit = report.commit
        self._files = dict(zip(places(report.commit.night), report.commit.files, strict=False))
        self.source = source

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Each unit's commit, or its file."""
        for number in range(self._units):
            key = f"{run_prefix(1)}{number:08}.json"
            if not prefix.startswith(run_prefix(1)):
                known = [each for each in self._files if prefix.startswith(each)]
                if not known:
                    return
                key = f"{known[0]}000001.{number:08}-0.parquet"
            yield StoredObject(key=key, size_bytes=1, etag="e", modified_s=0.0)

    def read(self, key: str) -> bytes:
        """A commit with names of its own, or the file that all share."""
        if not key.startswith(run_prefix(1)):
            return super().read(self._shared(key))
        unit = key.removeprefix(run_prefix(1)).removesuffix(".json")
        files = {
            name: file and replace(file, key=f"{file.key[: file.key.rindex('/')]}/000001.{unit}-0.parquet")
            for name, file in (("items", self._commit.items), ("tracks", self._commit.tracks))
        }
        return replace(self._commit, unit=unit, **files).to_json()

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """Of the file that all share."""
        return super().read_range(self._shared(key), start, length)

    def put(self, key: str, data: bytes) -> None:
        """Nothing."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Nothing."""
        return True

    def _shared(self, key: str) -> str:
        return next((file.key for prefix, file in self._files.items() if key.startswith(prefix)), key)


def measure(units: int, copies: int) -> dict[str, float]:
    """One run's end, then the twins, in seconds and MB."""
    told = {"units": float(units), "items": float(units * ITEMS_A_UNIT)}
    with TemporaryDirectory() as folder:
        sink = MadeUpOutput(Path(folder), units)
        told["before_mb"] = memory_mb("VmHWM")
        start = time.perf_counter()
        assert remove_orphans(sink, [1], read_commits(sink, commit_keys(sink, [1]))) == 0
        told["orphans_s"], start = time.perf_counter() - start, time.perf_counter()
        sums = CommitSums().add(read_commits(sink, commit_keys(sink, [1])))
        assert sums.total.items == units * ITEMS_A_UNIT
        told["sums_s"], start = time.perf_counter() - start, time.perf_counter()
        file = write_ledger(sink, 1, [1])
        assert sum(part.rows for part in file.parts) == units * ITEMS_A_UNIT
        told["ledger_s"], told["end_mb"] = time.perf_counter() - start, memory_mb("VmHWM")
        start, twins = time.perf_counter(), Waiting()
        for number in range(copies):
            twins.add(replace(ITEMS[number % ITEMS_A_UNIT], key=f"copy/{number:08}.jpg"))
        reports = TwinWriter(sink, recipe(sink.source, 2, OPTIONS)).write(twins, [], [1])
        assert sum(report.commit.same for report in reports) == copies
        told |= {"copies": float(copies), "twins_s": time.perf_counter() - start, "peak_mb": memory_mb("VmHWM")}
    return told


def main() -> None:
    """Prints a row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[2_000, 20_000])
    parser.add_argument("--copies", type=int, default=100_000)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.copies)))
        return
    for number, size in enumerate(arguments.sizes):
        command = [sys.executable, __file__, "--measure", str(size), "--copies", str(arguments.copies)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        if number == 0:
            print(" ".join(f"{name:>10}" for name in row))
        print(" ".join(f"{value:10.1f}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
