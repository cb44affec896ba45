"""A sample of a corpus looked at, what the whole of it will take: measured means, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from batch.corpus.units import UNIT_SECONDS
from batch.records import Reason, VideoRef, VideoResult

# Parquet of faces and of outcomes, and the commit.
_PUTS_A_UNIT = 3
KEYS_A_LISTING = 1000
"""Objects of one page of an S3 listing."""
_BESIDE = "hidden"
"""The one stage of `Cost.seconds` that goes on beside the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Means over the videos of a sample."""

    videos: int
    seconds: float
    """Of one CPU a video, from opening it to its encoded crops, with what of reading was waited for."""
    seconds_error: float
    """Standard error of that mean; not known (nan) for one video."""
    bytes_read: float
    requests: float
    face_bytes: float
    """Encoded crops a video."""
    kept: float
    """Share of the videos that gave a face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What a corpus takes, computed from a sample."""

    videos: int
    cpu_hours: float
    cpu_hours_error: float
    """Two standard errors."""
    bytes_read: float
    get_requests: float
    put_requests: float
    bytes_written: float
    kept: float
    """Videos."""

    def hours(self, cpus: int, efficiency: float) -> float:
        """Wall time on so many CPUs, each at work for a share of it: no sooner than one unit takes."""
        return max(self.cpu_hours / (cpus * efficiency), UNIT_SECONDS / 3600)


def measure(videos: Sequence[VideoRef], look: Callable[[VideoRef], VideoResult]) -> Sampled:
    """Looks at a sample, at its first video twice: the first look also loads the detector.

    Raises:
        ValueError: for an empty sample.
    """
    if not videos:
        raise ValueError("sample: got no video, expected one or more")
    look(videos[0])
    results = [look(video) for video in videos]
    seconds = [working_seconds(result) for result in results]
    return Sampled(
        videos=len(results),
        seconds=mean(seconds),
        seconds_error=standard_error(seconds),
        bytes_read=mean(result.cost.bytes_read for result in results),
        requests=mean(result.cost.requests for result in results),
        face_bytes=mean(sum(len(face.image) for face in result.faces) for result in results),
        kept=mean(result.reason is Reason.KEPT for result in results),
    )


def working_seconds(result: VideoResult) -> float:
    """What a video kept its CPU busy or waiting: all stages but those that went on beside the others."""
    return sum(seconds for stage, seconds in result.cost.seconds.items() if stage != _BESIDE)


def standard_error(values: Sequence[float]) -> float:
    """Of the values' mean; not known (nan) for one value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def size(sampled: Sampled, videos: int) -> Sizing:
    """What `videos` such videos take."""
    total_s = sampled.seconds * videos
    units = math.ceil(total_s / UNIT_SECONDS)
    return Sizing(
        videos=videos,
        cpu_hours=total_s / 3600,
        cpu_hours_error=2 * sampled.seconds_error * videos / 3600,
        bytes_read=sampled.bytes_read * videos,
        get_requests=sampled.requests * videos + math.ceil(videos / KEYS_A_LISTING),
        put_requests=float(_PUTS_A_UNIT * units),
        bytes_written=sampled.face_bytes * videos,
        kept=sampled.kept * videos,
    )
