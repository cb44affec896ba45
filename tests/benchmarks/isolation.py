"""What the child process around the decoder costs healthy clips: CPU and wall time a clip, with it and without.

    python tests/benchmarks/isolation.py [FOLDER] [--repeats 5]

FOLDER defaults to `../shared/corpus` where that is present, else a small drawn corpus. `direct` calls the extractor in
this process, `in a child` through `IsolatedExtractor`, pass by pass over all clips. Their difference is small beside
the noise of a machine on which others compute, so `hand-over` measures it alone: the same results go through the same
child, which only hands out what was recorded before. `parent` is the CPU time of this process, which for `in a child`
is its half of the hand-over under real conditions, with caches that the decoding has emptied; `both` adds the child's.
The share is of `direct`, and each time is the median over the repeats of a clip. The child starts once a worker, not
once a unit: its cost stands below the table. Linux alone tells the child's CPU time in nanoseconds.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.listing import list_videos  # noqa: E402
from batch.faces.extract import Extractor  # noqa: E402
from batch.faces.isolate import IsolatedExtractor, LimitOptions  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import VideoRef, VideoResult  # noqa: E402
from batch.storage.open import open_storage  # noqa: E402

SHARED = ROOT.parent / "shared" / "corpus"
Look = Callable[[VideoRef], VideoResult]


@lru_cache(maxsize=1)
def recorded(path: Path) -> dict[str, VideoResult]:
    """Results by the video's key, loaded once a process."""
    found: dict[str, VideoResult] = pickle.loads(path.read_bytes())
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An extractor that does nothing: hands out what another one found."""

    path: Path

    def __call__(self, video: VideoRef, upcoming: Sequence[VideoRef] = ()) -> VideoResult:
        """The recorded result."""
        return recorded(self.path)[video.key]


@dataclass(slots=True)
class Timed:
    """One way to look at clips, and the seconds that each look took."""

    name: str
    look: Look
    child: IsolatedExtractor | None
    parent: dict[str, list[float]]
    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]

    def __call__(self, video: VideoRef) -> None:
        """Looks at one clip."""
        child, wall, cpu = self.child_s(), time.perf_counter(), time.process_time()
        self.look(video)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.wall.setdefault(video.key, []).append(wall)
        self.parent.setdefault(video.key, []).append(cpu)
        self.cpu.setdefault(video.key, []).append(cpu + self.child_s() - child)

    def child_s(self) -> float:
        """CPU seconds of the child so far; to read them is no part of what is timed."""
        if self.child is None:
            return 0.0
        tasks = Path(f"/proc/{self.child.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def totals_ms(self) -> list[float]:
        """Milliseconds a clip of CPU here, CPU in both processes and wall time, from each clip's median."""
        columns = (self.parent, self.cpu, self.wall)
        return [1e3 * sum(map(statistics.median, times.values())) / len(times) for times in columns]


def measure(folder: Path, repeats: int, scratch: Path) -> None:
    """Prints the table."""
    source = open_storage(str(folder))
    extractor = Extractor(source=source, options=FaceOptions())
    videos = [
        VideoRef(key=item.key, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id="")
        for item in list_videos(source)
    ]
    path = scratch / "results"
    path.write_bytes(pickle.dumps({video.key: extractor(video) for video in videos}))
    real = IsolatedExtractor(extractor, LimitOptions())
    idle = IsolatedExtractor(Recorded(path=path), LimitOptions())
    began = time.perf_counter()
    real(videos[0])
    start_s = time.perf_counter() - began
    ways = [
        Timed("direct", extractor, None, {}, {}, {}),
        Timed("in a child", real, real, {}, {}, {}),
        Timed("hand-over", idle, idle, {}, {}, {}),
    ]
    idle(videos[0])
    for isolated in (real, idle):
        isolated.announce(videos)
    for _ in range(repeats):
        for way in ways:
            for video in videos:
                way(video)
    real.close()
    idle.close()
    report(ways, len(videos), repeats)
    print(f"the child's start, with the loading of its libraries, once a worker: {start_s:.1f} s")


def report(ways: list[Timed], clips: int, repeats: int) -> None:
    """A row a way; the share is of the first."""
    print(f"{clips} clips, {repeats} times; milliseconds a clip")
    print(" ".join([f"{'':<12}", *(f"{name:>8} {'share':>7}" for name in ("parent", "both", "wall"))]))
    first = ways[0].totals_ms()
    for way in ways:
        cells = [f"{ms:8.2f} {ms / whole:7.1%}" for ms, whole in zip(way.totals_ms(), first, strict=True)]
        print(" ".join([f"{way.name:<12}", *cells]))


def main() -> None:
    """Draws a corpus if there is none, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or (SHARED if SHARED.is_dir() else drawn(Path(scratch)))
        measure(folder, arguments.repeats, Path(scratch))


def drawn(scratch: Path) -> Path:
    """A small drawn corpus."""
    from batch.corpus.draw.corpus import draw_corpus
    from batch.corpus.draw.options import DrawOptions

    return draw_corpus(scratch / "drawn", DrawOptions(identities=6, parts=1, planted=False)).folder


if __name__ == "__main__":
    main()
