"""Labelled videos in, work units out: a pure function of the listing and the options.

Boundaries fall where a video's key hashes low, between a minimum and a maximum, so that a video that comes or goes
changes its own unit and perhaps the next, and no other. Units grow with the listing: sixteen or so for the first few
dozen videos, so that a small corpus keeps several workers busy, and twice as large whenever the listing has doubled,
until a unit is as long as the time and the size of a shard allow. Nothing is held but the unit being filled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from batch.faces.options import FaceOptions, digest_of
from batch.records import VideoRef, WorkUnit

SMALLEST_TARGET = 3
UNITS_AT_FIRST = 16
UNIT_SECONDS = 25.0
SHARD_BYTES = 40 << 20
# CPU seconds a frame, rounded up from the measured mix of 360p to 1080p: see tests/benchmarks/extract.py.
_FRAME_SECONDS = {"cascade": 0.03, "hog": 0.3, "cnn": 4.0}
# Bytes a pixel of an encoded crop: a 224 x 224 PNG of a video face has about 47 KB, a JPEG of quality 95 25 KB.
_CROP_BYTES_PER_PX = {"png": 1.0, "jpeg": 0.5}


def plan_units(videos: Iterable[VideoRef], options: FaceOptions) -> Iterator[WorkUnit]:
    """Cuts a stream of videos, in key order, into units."""
    digest = options.digest()
    largest = largest_unit(options)
    held: list[VideoRef] = []
    for seen, video in enumerate(videos):
        held.append(video)
        target = _target(seen, largest)
        smallest = (target + 1) // 2
        chance = 1 / (target - smallest + 1)
        if len(held) >= min(2 * target, largest) or (len(held) >= smallest and _fraction(video.key) < chance):
            yield _unit(held, digest)
            held = []
    if held:
        yield _unit(held, digest)


def largest_unit(options: FaceOptions) -> int:
    """Most videos in a unit: what takes `UNIT_SECONDS` or fills `SHARD_BYTES`."""
    seconds = _FRAME_SECONDS[options.detect.detector] * options.frame_count
    crop_bytes = _CROP_BYTES_PER_PX[options.crop.encoding] * options.crop.crop_size**2 * options.frame_count
    return max(1, int(min(UNIT_SECONDS / seconds, SHARD_BYTES / crop_bytes)))


def _target(seen: int, largest: int) -> int:
    """Mean size of the next unit: doubles whenever the listing has doubled."""
    doublings = max(0, (seen // (SMALLEST_TARGET * UNITS_AT_FIRST)).bit_length() - 1)
    return int(max(1, min(SMALLEST_TARGET << doublings, largest * 2 // 3)))


def _fraction(key: str) -> float:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _unit(videos: list[VideoRef], options_digest: str) -> WorkUnit:
    return WorkUnit(id=digest_of([options_digest, [asdict(video) for video in videos]]), videos=tuple(videos))
