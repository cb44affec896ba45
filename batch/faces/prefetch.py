"""The next clips' bytes are fetched while this one is decoded, so that a store's latency hides behind the work.

Bytes alone: a few threads read what a clip's turn will begin with (head, index, first key packet) into the very
`RangedFile` that its turn is given. No decoder sees a clip before its turn, so that what dies dies over its own clip.
A fetch that fails is forgotten, and its clip starts afresh in its turn: errors are raised there and nowhere else, and
results do not depend on what was fetched early. Measured by tests/benchmarks/reads.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier

from batch.records import VideoRef
from batch.storage.base import Storage, StorageError
from batch.storage.ranged import RangedFile

AHEAD = 8
"""Clips that are fetched early, one a thread. A first frame takes two or three requests, one after the other, and 20 to
30 ms of work: eight clips hide 70 ms a request. Held: 0.1 to 0.2 MB a clip as a rule, 4 MB at most."""

_LARGEST_INDEX_BYTES = 1 << 20
_LARGEST_PACKET_BYTES = 2 << 20
_MOST_BOXES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A clip whose turn has come."""

    file: RangedFile
    """At its start, with what was fetched early, whose requests and bytes it counts. `waited_s` is 0."""
    waited_s: float
    """Seconds spent here until the early fetch was done."""
    hidden_s: float
    """Seconds of the early fetch that passed while other clips were worked on."""


class Prefetcher:
    """Fetches clips of remote stores early. One thread calls it; the threads that fetch are its own."""

    def __init__(self, ahead: int = AHEAD) -> None:
        """Starts its threads, since starting one takes address space that a limit may forbid later on."""
        self._pool = ThreadPoolExecutor(ahead, thread_name_prefix="prefetch")
        self._begun: dict[tuple[str, VideoRef], Future[RangedFile]] = {}
        started = Barrier(ahead + 1)
        for _ in range(ahead):
            self._pool.submit(started.wait)
        started.wait()

    def take(self, source: Storage, video: VideoRef, upcoming: Sequence[VideoRef], *, packet: bool) -> Turn:
        """The clip, as far as it was fetched, and a start on those that come next.

        `packet`: whether the first key frame's packet is wanted, beside head and index. A clip that was fetched
        early and is neither this one nor upcoming is dropped.
        """
        wanted = {(source.root, each) for each in (video, *upcoming)}
        for key in self._begun.keys() - wanted:
            self._begun.pop(key).cancel()
        for each in upcoming:
            if (source.root, each) not in self._begun:
                self._begun[source.root, each] = self._pool.submit(_fetch, _opened(source, each), packet)
        early = self._begun.pop((source.root, video), None)
        if early is None or early.cancel():
            return Turn(file=_opened(source, video), waited_s=0.0, hidden_s=0.0)
        return _turn(early, _opened(source, video))

    def close(self) -> None:
        """Ends the threads; fetches under way are waited for."""
        self._pool.shutdown(cancel_futures=True)


@cache
def shared_prefetcher() -> Prefetcher:
    """The process's own, made when first asked for."""
    return Prefetcher()


def _opened(source: Storage, video: VideoRef) -> RangedFile:
    return RangedFile(source, video.key, video.size_bytes, video.etag)


def _turn(early: Future[RangedFile], fresh: RangedFile) -> Turn:
    start = time.perf_counter()
    file = early.result()
    waited_s = time.perf_counter() - start
    hidden_s = max(0.0, file.waited_s - waited_s)
    if file.error is None:
        file.seek(0)
        file.waited_s = 0.0
        return Turn(file=file, waited_s=waited_s, hidden_s=hidden_s)
    fresh.requests, fresh.bytes_read = file.requests, file.bytes_read
    return Turn(file=fresh, waited_s=waited_s, hidden_s=hidden_s)


def _fetch(file: RangedFile, packet: bool) -> RangedFile:
    """Reads what `faces.decode` begins with, in its order. What comes is kept by the file; an error is, too."""
    try:
        index = _read_index(file)
        place = _first_packet(index) if packet else None
        if place is not None and place[1] <= _LARGEST_PACKET_BYTES:
            file.seek(place[0])
            file.read(place[1])
    except StorageError:
        pass
    except MemoryError:
        # The clip whose turn it is may be about to hit its limit: that is not this clip's fault.
        file.error = StorageError("no memory to fetch early")
    return file


def _read_index(file: RangedFile) -> bytes:
    """An MP4's `moov` box; empty for other containers, of which the head alone is fetched."""
    position = 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if kind == b"moov":
            file.seek(position)
            return file.read(min(size, _LARGEST_INDEX_BYTES))
        if size < 8 or position + size >= file.size_bytes:
            break
        position += size
    return b""


def _first_packet(index: bytes) -> tuple[int, int] | None:
    """Position and size of the video's first packet, as its tables tell; a hint, right or wrong.

    ISO/IEC 14496-12: the handler (`hdlr`) of a track comes before its sample sizes (8.7.3) and chunk offsets (8.7.5).
    """
    video = index.find(b"vide")
    sizes, offsets = index.find(b"stsz", video), index.find(b"stco", video)
    wide = index.find(b"co64", video)
    if video < 0 or sizes < 0 or (offsets < 0 and wide < 0):
        return None
    size = _number(index, sizes + 8, 4) or _number(index, sizes + 16, 4)
    place = _number(index, wide + 12, 8) if offsets < 0 else _number(index, offsets + 12, 4)
    return place, size


def _number(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(data[start : start + length], "big")
