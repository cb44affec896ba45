"""Extraction in a child process, so that a file which kills or hangs the decoder costs itself alone.

The child lives on from clip to clip. When it dies, the clip that it was given is the culprit; the next one starts a
new child. Healthy clips pay for one pickled result each: see tests/benchmarks/isolation.py for the share.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from batch.faces.prefetch import AHEAD
from batch.records import Reason, VideoRef, VideoResult

Extract = Callable[..., VideoResult]
"""One video in, what came of it out; after `announce` with the next videos as its second argument. Picklable."""

_START_S = 120.0
_LONGEST_POLL_MS = 2**31 - 1


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
        self._child: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._poller = select.poll()  # kept, since `Connection.poll` makes a selector for every call
        self._announced: Sequence[VideoRef] = ()
        self._places: dict[VideoRef, int] = {}

    @property
    def pid(self) -> int | None:
        """The child's, if there is one."""
        return None if self._child is None else self._child.pid

    def announce(self, videos: Sequence[VideoRef]) -> None:
        """Tells in which order videos will be given, so that the bytes of the next can be fetched early."""
        self._announced = videos
        self._places = {video: place for place, video in enumerate(videos)}

    def __call__(self, video: VideoRef) -> VideoResult:
        """What came of the video; `decoder_crashed`, `timeout` or `out_of_memory` if it took the child with it.

        An exception of `extract` is raised here as it is, with the child's traceback as a note.
        """
        pipe = self._pipe or self._start()
        try:
            pipe.send((video, *self._upcoming(video)))
            came = self._poller.poll(min(self._limits.clip_seconds * 1000, _LONGEST_POLL_MS))
            answer: VideoResult | Exception | None = pipe.recv() if came else None
        except (EOFError, ConnectionError):
            self.close()
            return _fault(video, Reason.DECODER_CRASHED, "the decoding process died")
        if answer is None:
            self.close()
            return _fault(video, Reason.TIMEOUT, f"no result after {self._limits.clip_seconds:g} s")
        if isinstance(answer, MemoryError):
            self.close()
            return _fault(video, Reason.OUT_OF_MEMORY, f"needs more than {self._limits.clip_memory_mb} MB")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the child, whatever it is doing."""
        if self._child is None or self._pipe is None:
            return
        self._child.kill()
        self._child.join()
        self._poller.unregister(self._pipe)
        self._pipe.close()
        self._child = self._pipe = None

    def _upcoming(self, video: VideoRef) -> tuple[Sequence[VideoRef], ...]:
        """The second argument for `extract`, if there is one."""
        if video not in self._places:
            return ()
        following = self._places[video] + 1
        return (self._announced[following : following + AHEAD],)

    def _start(self) -> Connection:
        # Not forked: a copy of a process with threads in native libraries may hold their locks for ever. Not a pool
        # of one process: its threads hand each clip on twice, which takes four times the CPU of a bare pipe.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._poller.register(self._pipe, select.POLLIN)
        limit_bytes = self._limits.clip_memory_mb << 20
        self._child = context.Process(target=_serve, args=(theirs, limit_bytes, self._extract), daemon=True)
        self._child.start()
        theirs.close()  # or this end would not see the child's death
        # The clock of the first clip must not count the child's start.
        try:
            ready = self._pipe.poll(_START_S) and self._pipe.recv()
        except (EOFError, ConnectionError):
            ready = False
        if not ready:
            self.close()
            raise RuntimeError("the decoding process did not start; its own words are in the worker's log")
        return self._pipe


def _serve(pipe: Connection, limit_bytes: int, extract: Extract) -> None:
    """The child: answers each video with its result or an exception, until the parent hangs up."""
    _prepare(limit_bytes, extract)
    pipe.send(True)
    while True:
        try:
            turn = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            pipe.send(extract(*turn))
        except Exception as error:  # noqa: BLE001  (raised again in the parent)
            error.add_note(traceback.format_exc())
            pipe.send(error)


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
