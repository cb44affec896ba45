"""Extraction in a child process, so that a file which kills or hangs the decoder costs itself alone.

The child lives on from clip to clip. When it dies, the clip that it was given is the culprit; the next one starts a
new child. Healthy clips pay for one pickled result each: see tests/benchmarks/extract.py for the share.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from batch.faces.prefetch import AHEAD
from batch.records import Reason, VideoRef, VideoResult

Extract = Callable[..., VideoResult]
"""One video in, what came of it out; after `announce` with the next videos as its second argument. Picklable."""

_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """What one clip may take. A clip that takes more is a fault, and the others go on."""

    clip_seconds: float = 120.0
    """From its turn to its crops, storage included."""
    clip_memory_mb: int = 4096
    """Memory that the decoding process may take beyond what it has when idle."""

    def __post_init__(self) -> None:
        """Refuses limits that no clip can keep."""
        if self.clip_seconds <= 0:
            raise ValueError(f"clip seconds: got {self.clip_seconds}, expected more than 0")
        if self.clip_memory_mb < 64:
            raise ValueError(f"clip memory: got {self.clip_memory_mb} MB, expected 64 or more")


class IsolatedExtractor:
    """Calls an `Extract` in a child process under limits. Not for several threads at once."""

    def __init__(self, extract: Extract, limits: LimitOptions) -> None:
        """Starts nothing yet."""
        self._extract = extract
        self._limits = limits
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0
        self._announced: Sequence[VideoRef] = ()
        self._places: dict[VideoRef, int] = {}

    def announce(self, videos: Sequence[VideoRef]) -> None:
        """Tells in which order videos will be given, so that the bytes of the next can be fetched early."""
        self._announced = videos
        self._places = {video: place for place, video in enumerate(videos)}

    def __call__(self, video: VideoRef) -> VideoResult:
        """What came of the video; `decoder_crashed`, `timeout` or `out_of_memory` if it took the child with it.

        An exception of `extract` is raised here as it is.
        """
        pool = self._pool or self._start()
        try:
            turn = pool.submit(self._extract, video, *self._upcoming(video))
            return turn.result(timeout=self._limits.clip_seconds)
        except TimeoutError:
            self.close()
            return _fault(video, Reason.TIMEOUT, f"no result after {self._limits.clip_seconds:g} s")
        except MemoryError:
            self.close()
            return _fault(video, Reason.OUT_OF_MEMORY, f"needs more than {self._limits.clip_memory_mb} MB")
        except BrokenProcessPool:
            self.close()
            return _fault(video, Reason.DECODER_CRASHED, "the decoding process died")

    def close(self) -> None:
        """Ends the child, whatever it is doing."""
        if self._pool is None:
            return
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _upcoming(self, video: VideoRef) -> tuple[Sequence[VideoRef], ...]:
        """The second argument for `extract`, if there is one."""
        if video not in self._places:
            return ()
        following = self._places[video] + 1
        return (self._announced[following : following + AHEAD],)

    def _start(self) -> ProcessPoolExecutor:
        # Not forked: a copy of a process with threads in native libraries may hold their locks for ever.
        context = multiprocessing.get_context("spawn")
        limit_bytes = self._limits.clip_memory_mb << 20
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_prepare, initargs=(limit_bytes, self._extract)
        )
        # The clock of the first clip must not count the child's start.
        self._pid = self._pool.submit(os.getpid).result(timeout=_START_S)
        return self._pool


def _fault(video: VideoRef, reason: Reason, detail: str) -> VideoResult:
    return VideoResult(video=video, reason=reason, detail=detail)


def _prepare(limit_bytes: int, extract: Extract) -> None:
    """In the child: loads the libraries, bounds the memory, and follows the parent into death."""
    import cv2

    import batch.faces.extract  # loaded before the memory is bounded and the first clip's clock runs

    cv2.setNumThreads(1)
    if isinstance(extract, batch.faces.extract.Extractor):
        extract.prepare()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    _bound_memory(limit_bytes)


def _bound_memory(limit_bytes: int) -> None:
    """Lets the address space grow by so much beyond what it is now. Linux alone tells what it is now."""
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        held_bytes = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held_bytes + limit_bytes, resource.RLIM_INFINITY))


def _follow(parent_sentinel: int) -> None:
    wait([parent_sentinel])
    os._exit(1)
