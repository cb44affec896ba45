"""How long `fakesift verify` takes on a large output: a synthetic one, written by the real writers, is verified.

    python tests/benchmarks/verify.py [--videos 100000] [--crop-kb 47]

The listing has DFDC's shape and goes through the real plan; four of five videos have a face, whose crop is random
bytes of a real crop's size, since verification reads all bytes and decodes no picture. `no crops` is an output whose
faces are all set aside: what commits, outcomes and their accounting cost by themselves. The files were just written, so
they come from memory: of a disk or a store, the time to read so many bytes is to be added where it is the longer one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.units import plan_units  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import Box, FaceRow, MediaInfo, Reason, VideoRef, VideoResult  # noqa: E402
from batch.shards.build import build_unit  # noqa: E402
from batch.shards.commit import read_commits  # noqa: E402
from batch.shards.runfile import RunFile, claim_output  # noqa: E402
from batch.shards.summary import PLAN, SUMMARY, summarize  # noqa: E402
from batch.shards.verify import verify_output  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402

OPTIONS = FaceOptions()
MEDIA = MediaInfo(duration_s=10.0, fps=30.0, codec="h264", width_px=1920, height_px=1080)
FACE = Box(left=800, top=300, right=1000, bottom=500)
CROP = Box(left=770, top=270, right=1030, bottom=530)


def listing(videos: int) -> Iterator[VideoRef]:
    """DFDC's shape: parts of some 2,400 clips, five fakes a real one."""
    for number in range(videos):
        part = f"dfdc_train_part_{number // 2400:04}"
        key = f"{part}/clip{number:08}.mp4"
        source = f"{part}/clip{number - number % 6:08}.mp4"
        label = int(number % 6 > 0)
        yield VideoRef(
            key=key, size_bytes=4_000_000, etag=f"{number:032x}", part=part, label=label, source_id=source
        )  # fmt: skip


def looked_at(video: VideoRef, crops: bytes, crop_bytes: int, chance: random.Random) -> VideoResult:
    """What came of it: four of five have a face, unless there are no crops."""
    if not crop_bytes or chance.random() < 0.2:
        return VideoResult(video=video, reason=Reason.NO_FACE, detail="no face in the frame", media=MEDIA)
    start = chance.randrange(len(crops) - crop_bytes)
    face = FaceRow(
        video=video, media=MEDIA, frame_index=0, pts_s=0.0, track_id=0, image=crops[start : start + crop_bytes],
        face_box_px=FACE, crop_box_px=CROP, detector="cascade", score=0.9,
    )  # fmt: skip
    return VideoResult(video=video, reason=Reason.KEPT, media=MEDIA, faces_found=1, frames_seen=1, faces=(face,))


def write(sink: LocalStorage, videos: int, crop_bytes: int) -> None:
    """An output as the job leaves it."""
    chance, crops = random.Random(1), os.urandom(64 << 20)
    shaping = {"faces": asdict(OPTIONS), "seed": 0, "pictures": True}
    claim_output(sink, RunFile(kind="preprocess", input="/in", shaping=shaping, versions={}))
    for unit in plan_units(listing(videos), OPTIONS):
        build_unit(
            unit, lambda video: looked_at(video, crops, crop_bytes, chance), "/in", sink, OPTIONS.digest()
        )  # fmt: skip
    summary = summarize(read_commits(sink))
    sink.put(SUMMARY, summary.to_json())
    sink.put(PLAN, b'{"listed": %d, "units": %d}' % (summary.listed, summary.units))


def measure(name: str, videos: int, crop_bytes: int, scratch: Path) -> None:
    """Prints a row."""
    sink = LocalStorage(scratch / name.replace(" ", "-"))
    write(sink, videos, crop_bytes)
    wall, cpu = time.perf_counter(), time.process_time()
    report = verify_output(sink)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert report.ok, report.findings
    cells = f"{report.videos:>8} {report.units:>6} {report.files:>6} {report.bytes_read / 1e9:>6.2f}"
    print(f"{name:<10} {cells} {wall:>8.1f} {cpu:>8.1f} {os.getloadavg()[0]:>6.1f}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--crop-kb", type=float, default=47.0)
    arguments = parser.parse_args()
    print(f"{'':<10} {'videos':>8} {'units':>6} {'files':>6} {'GB':>6} {'wall s':>8} {'CPU s':>8} {'load':>6}")
    with tempfile.TemporaryDirectory() as scratch:
        measure("no crops", arguments.videos, 0, Path(scratch))
        measure("crops", arguments.videos, int(arguments.crop_kb * 1000), Path(scratch))


if __name__ == "__main__":
    main()
