"""INPUT in, video objects out: a recursive listing that holds a page at a time."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

from batch.records import StoredObject, VideoRef
from batch.storage.base import Storage

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg")


def list_videos(source: Storage) -> Iterator[StoredObject]:
    """All objects with a video's suffix (any case), in binary key order."""
    return (item for item in source.list() if item.key.lower().endswith(VIDEO_SUFFIXES))


def part_of(key: str) -> str:
    """The first folder of a key, empty for a file directly in INPUT."""
    return key.split("/", 1)[0] if "/" in key else ""


def folder_of(key: str) -> str:
    """The folder that a key lies in, with a slash at its end; empty for INPUT itself."""
    return key[: key.rfind("/") + 1]


def sample_videos(
    videos: Iterable[VideoRef], *, limit: int | None, max_bytes: int | None, seed: int
) -> Iterator[VideoRef]:
    """A seeded sample in key order: the videos whose keys hash lowest, up to a number and a total size.

    Whether a video is drawn depends on its key and the seed alone, so that a sample of a corpus that grew shares
    most of its videos with the sample before. Holds the sample in memory, not the corpus.
    """
    if limit is None and max_bytes is None:
        yield from videos
        return
    heap: list[tuple[int, str, VideoRef]] = []
    held_bytes = 0
    for video in videos:
        heapq.heappush(heap, (-_rank(video.key, seed), video.key, video))
        held_bytes += video.size_bytes
        while (limit is not None and len(heap) > limit) or (max_bytes is not None and held_bytes > max_bytes):
            held_bytes -= heapq.heappop(heap)[2].size_bytes
    yield from sorted((entry[2] for entry in heap), key=lambda video: video.key.encode("utf-8", "surrogatepass"))


def _rank(key: str, seed: int) -> int:
    data = f"{seed}\0{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
