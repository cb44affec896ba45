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
_KEYS_A_LISTING = 1000
_WORKING_STAGES = ("read", "decode", "detect", "crop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Means over the videos of a sample."""

    videos: int
    seconds: float
    """Of one CPU a video: decoding, finding and cropping, and what of reading was waited for."""
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
    seconds = [sum(result.cost.seconds.get(stage, 0.0) for stage in _WORKING_STAGES) for result in results]
    error = stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else math.nan
    return Sampled(
        videos=len(results),
        seconds=mean(seconds),
        seconds_error=error,
        bytes_read=mean(result.cost.bytes_read for result in results),
        requests=mean(result.cost.requests for result in results),
        face_bytes=mean(sum(len(face.image) for face in result.faces) for result in results),
        kept=mean(result.reason is Reason.KEPT for result in results),
    )


def size(sampled: Sampled, videos: int) -> Sizing:
    """What `videos` such videos take."""
    total_s = sampled.seconds * videos
    units = math.ceil(total_s / UNIT_SECONDS)
    return Sizing(
        videos=videos,
        cpu_hours=total_s / 3600,
        cpu_hours_error=2 * sampled.seconds_error * videos / 3600,
        bytes_read=sampled.bytes_read * videos,
        get_requests=sampled.requests * videos + math.ceil(videos / _KEYS_A_LISTING),
        put_requests=float(_PUTS_A_UNIT * units),
        bytes_written=sampled.face_bytes * videos,
        kept=sampled.kept * videos,
    )
