"""What a corpus takes, from a sample."""

import math
from collections.abc import Mapping

import pytest

from batch.corpus.sizing import measure, size
from batch.records import Cost, Reason, VideoRef, VideoResult


def video(number: int) -> VideoRef:
    return VideoRef(key=f"{number}.mp4", size_bytes=10, etag="e", part="", label=None, source_id=str(number))


def costing(seconds: Mapping[str, float]) -> Cost:
    return Cost(bytes_read=1000, requests=2, seconds=seconds)


def test_the_whole_is_the_mean_of_the_sample_times_its_number() -> None:
    looks = {f"{number}.mp4": {"open": 0.01 * number, "encode": 0.01, "hidden": 5.0} for number in (1, 2, 3)}
    seen = []

    def look(asked: VideoRef) -> VideoResult:
        seen.append(asked.key)
        reason = Reason.KEPT if asked.key != "3.mp4" else Reason.NO_FACE
        return VideoResult(video=asked, reason=reason, cost=costing(looks[asked.key]))

    sampled = measure([video(number) for number in (1, 2, 3)], look)
    assert seen == ["1.mp4", "1.mp4", "2.mp4", "3.mp4"]  # the first look loads the detector and does not count
    assert sampled.seconds == pytest.approx(0.03)
    assert sampled.seconds_error == pytest.approx(0.01 / math.sqrt(3))
    sizing = size(sampled, 120_000)
    assert sizing.cpu_hours == pytest.approx(1.0)
    assert sizing.cpu_hours_error == pytest.approx(2 / math.sqrt(3) / 3)
    assert sizing.bytes_read == 120_000_000
    assert sizing.get_requests == 240_120  # two a video, and a listing for each thousand
    assert sizing.put_requests == 3 * 144  # units of 25 s
    assert sizing.kept == pytest.approx(80_000)
    assert sizing.hours(4, 0.5) == pytest.approx(0.5)


def test_no_cluster_is_faster_than_one_unit() -> None:
    sampled = measure([video(1)], lambda asked: VideoResult(video=asked, reason=Reason.KEPT, cost=costing({})))
    assert math.isnan(sampled.seconds_error)
    assert size(sampled, 10).hours(1000, 0.9) == pytest.approx(25 / 3600)


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="got no video"):
        measure([], lambda asked: VideoResult(video=asked, reason=Reason.KEPT))
