"""Where the time of one clip goes: seconds by stage, without the stages within it and the wait for bytes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of each stage. Stages may stand within one another."""

    def __init__(self, waited_s: Callable[[], float] = lambda: 0.0) -> None:
        """`waited_s` tells how long the clip's store was waited for so far: that is no stage's own."""
        self.seconds: Counter[str] = Counter()
        self._waited_s = waited_s
        self._within_s = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        before_s, self._within_s = self._within_s, 0.0
        start = time.perf_counter() - self._waited_s()
        try:
            yield
        finally:
            spent_s = time.perf_counter() - self._waited_s() - start
            self.seconds[name] += spent_s - self._within_s  # type: ignore[assignment]  # floats add as well
            self._within_s = before_s + spent_s
