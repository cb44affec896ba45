"""Where a clip's seconds are booked, and that frames looked at together give what each gives."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import av
import pytest

from batch.faces import clock as clock_module
from batch.faces.clock import Clock
from batch.faces.detect import DetectOptions, HogDetector
from batch.faces.extract import extract_video
from batch.faces.options import FaceOptions
from batch.records import Cost, Reason, VideoRef
from batch.storage.local import LocalStorage
from tests.support.drawn_face import scene


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by one second whenever it is looked at."""
    seconds: Iterator[int] = count()
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: float(next(seconds)))


@pytest.mark.usefixtures("ticks")
def test_a_stage_holds_neither_the_stages_within_it_nor_waiting() -> None:
    waited = [0.0]
    clock = Clock(lambda: waited[0])
    with clock.stage("open"):  # looked at 0
        with clock.stage("decode"):  # 1 to 2
            pass
        with clock.stage("decode"):  # 3 to 4, of which a quarter waiting
            waited[0] += 0.25
        waited[0] += 0.5
    assert clock.seconds == {"decode": 1.75, "open": 5 - 0.75 - 1.75}


def test_a_clip_tells_its_stages_and_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "face.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, width=320, height=240, pix_fmt="yuv420p")
        for number in range(20):
            pixels = scene(320, 240, [(140 + 2 * number, 120, 80)])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    source = LocalStorage(tmp_path)
    [item] = source.list()
    video = VideoRef(key=item.key, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id="")
    options = FaceOptions(frames=5, detect=DetectOptions(detector="hog"))
    one_by_one = extract_video(source, video, options)
    assert one_by_one.reason is Reason.KEPT
    assert len(one_by_one.faces) == 5
    assert {"read", "open", "decode", "detect", "crop", "encode"} <= one_by_one.cost.seconds.keys()
    monkeypatch.setattr(HogDetector, "batch_frames", 3)
    batched = extract_video(source, video, options)
    assert replace(batched, cost=Cost()) == replace(one_by_one, cost=Cost())
