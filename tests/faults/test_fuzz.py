"""Clips from strangers, spoilt in every way: each is an outcome, in bounded memory, and none disturbs the next.

`FAKESIFT_FUZZ` says how many files are made; their seed is printed and can be given back as `FAKESIFT_FUZZ_SEED`.
"""

import io
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest

from batch.faces.decode import MediaError, decode
from batch.faces.extract import Extractor
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import FaceOptions
from batch.records import Reason, VideoRef, VideoResult
from batch.shards.write import faces_table, outcomes_table, parquet_bytes
from batch.storage.local import LocalStorage
from tests.support.clips import clip, sound
from tests.support.drawn_face import scene
from tests.support.mutate import boxes, mutants

COUNT = int(os.environ.get("FAKESIFT_FUZZ", "240"))
SEED = int(os.environ.get("FAKESIFT_FUZZ_SEED", "1"))
LIMITS = LimitOptions(clip_seconds=20, clip_memory_mb=1024)
PEAK_BYTES = 900 << 20
"""Resident memory that no spoilt clip may drive the decoding process to; idle it has about 120 MB."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A dozen small sound clips of every container, two with a face."""
    folder = tmp_path_factory.mktemp("sound")
    small = {"size": (96, 64), "frames": 10}
    made = [
        clip(folder / "index_last.mp4", **small),  # type: ignore[arg-type]
        clip(folder / "noisy.mp4", size=(160, 120), frames=10, noise=60),
        clip(folder / "index_first.mp4", **small, container_options={"movflags": "faststart"}),  # type: ignore[arg-type]
        clip(folder / "pieces.mp4", **small, container_options={"movflags": "frag_keyframe+empty_moov"}),  # type: ignore[arg-type]
        clip(folder / "turned.mp4", **small, rotation=90),  # type: ignore[arg-type]
        clip(folder / "uneven.mp4", size=(96, 64), frames=4, times=[0, 10, 300, 900]),
        clip(folder / "a.mkv", **small),  # type: ignore[arg-type]
        clip(folder / "a.webm", **small, codec="libvpx"),  # type: ignore[arg-type]
        clip(folder / "a.avi", **small, codec="mpeg4"),  # type: ignore[arg-type]
        clip(folder / "a.mpg", **small, codec="mpeg2video"),  # type: ignore[arg-type]
        clip(folder / "a.mov", **small, codec="mjpeg", pix_fmt="yuvj420p"),  # type: ignore[arg-type]
        sound(folder / "sound.mp4"),
    ]
    return [path.read_bytes() for path in made] + [_face("mp4"), _face("matroska")]


def _face(container_format: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"threads": "1", "g": "4"}
        for number in range(8):
            pixels = scene(320, 240, [(160 + number, 110, 100)], seed=2)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 4)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@dataclass(slots=True)
class Watched:
    """An isolated extractor over a folder, and the most memory that its children ever held."""

    folder: Path
    extractor: IsolatedExtractor
    peak_bytes: int = 0
    children: int = 0
    _pid: int | None = None

    def __call__(self, name: str, data: bytes) -> VideoResult:
        path = self.folder / name
        path.write_bytes(data)
        [item] = LocalStorage(self.folder).list(name)
        ref = VideoRef(key=name, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id=name)
        result = self.extractor(ref)
        status = Path(f"/proc/{self.extractor.pid}/status")
        if status.exists():
            [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) << 10)
        self.children += self.extractor.pid != self._pid
        self._pid = self.extractor.pid
        if result.reason is not Reason.DECODER_CRASHED:
            path.unlink()
        return result


@pytest.fixture(params=["first", 4], ids=["first", "four"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    options = FaceOptions(frames=request.param)
    extractor = IsolatedExtractor(Extractor(source=LocalStorage(tmp_path), options=options), LIMITS)
    yield Watched(folder=tmp_path, extractor=extractor)
    extractor.close()


@pytest.mark.timeout(7200)
def test_every_spoilt_clip_is_an_outcome(watched: Watched, clips: list[bytes]) -> None:
    sound_ones = [watched(f"sound-{number}", data).reason for number, data in enumerate(clips)]
    assert not any(reason.is_fault for reason in sound_ones[:-3])
    assert sound_ones[-3:] == [Reason.NO_VIDEO_STREAM, Reason.KEPT, Reason.KEPT]
    found: Counter[str] = Counter()
    slowest = (0.0, "")
    results = []
    for name, data in mutants(clips, SEED, COUNT):
        began = time.perf_counter()
        result = watched(name, data)
        slowest = max(slowest, (time.perf_counter() - began, name))
        found[result.reason] += 1
        assert result.detail.count("\n") == 0
        # What came of it can be written down, whatever numbers the file claims.
        results.append(result)
        if len(results) == 50:
            _written(results)
            results = []
    _written(results)
    print(f"seed {SEED}, {COUNT} files: {', '.join(f'{name} {n}' for name, n in sorted(found.items()))}")
    print(f"peak {watched.peak_bytes >> 20} MB, {watched.children} processes, slowest {slowest[0]:.2f} s {slowest[1]}")
    assert found.total() == COUNT
    # A crash inside FFmpeg is an outcome, and its file stays in the folder to be looked at; many would be a change.
    assert found[Reason.DECODER_CRASHED] + found[Reason.TIMEOUT] <= COUNT // 200
    assert watched.peak_bytes < PEAK_BYTES


def _written(results: list[VideoResult]) -> None:
    parquet_bytes(outcomes_table(results, "root"))
    parquet_bytes(faces_table(results, "root", "digest"))


def _decoded(data: bytes, frames: object) -> list[tuple[int, float, float | None]]:
    with decode(io.BytesIO(data), frames) as decoded:  # type: ignore[arg-type]
        return [(frame.index, frame.pts_s, decoded.media.duration_s) for frame in decoded.frames]


# Found by mutation; each ended the job before it was mended.


@pytest.mark.parametrize("frames", ["first", 4])
def test_a_codec_that_nobody_knows(tmp_path: Path, frames: object) -> None:
    data = clip(tmp_path / "a.mp4", size=(96, 64)).read_bytes()
    with pytest.raises(MediaError, match="no codec that can be decoded") as caught:
        _decoded(data.replace(b"avc1", b"zzzz"), frames)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_frame_without_a_time() -> None:
    data = _face("matroska")
    assert data.count(b"\x81\x02\xee") == 2  # the blocks at 750 ms of their clusters
    found = _decoded(data.replace(b"\x81\x02\xee", b"\x81\x80\x00"), 4)  # at -32768 ms
    assert len(found) == 4
    assert [index for index, _, _ in found] == sorted({index for index, _, _ in found})


def test_times_that_run_backwards(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path / "a.mp4", size=(96, 64), frames=4, times=[0, 10, 300, 900]).read_bytes())
    [start] = [start for kind, start, _ in boxes(data) if kind == b"stts"]
    struct.pack_into(">III", data, start + 36, 0x00FFFFFF, 0xFFFFFFFF, 0xFF000320)
    [(index, pts_s, duration_s)] = _decoded(bytes(data), "first")
    assert (index, pts_s, duration_s) == (0, 0.0, None)
    with pytest.raises(MediaError, match="does not tell its duration"):
        _decoded(bytes(data), 4)
