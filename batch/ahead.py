"""A function over a stream in several threads, its results in order: a bounded number of them ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


def mapped_ahead(
    work: Callable[[T], R], stream: Iterable[T], *, threads: int = THREADS, ahead: int = 2 * THREADS
) -> Iterator[R]:
    """`map(work, stream)`, for work that waits for a store.

    `Executor.map` takes the whole stream at once and holds every result that its reader has not asked for yet.

    Args:
        work: called in a thread; what it raises is raised where its result was due, and ends the stream.
        stream: taken from in the reader's own thread.
        threads: at once.
        ahead: results that are held or in work, beside the one that is given out.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for each in stream:
                waiting.append(pool.submit(work, each))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
