"""What a worker says of its units and videos: log records with their ids, to be found by.

They go to the worker's own log on its node (`logs/worker-*.err` of Ray's session there), one JSON object a line: see
`session.ray_session`, which has Ray add job, node, worker and task. `grep` finds all that happened to a unit, or to a
video by its uri. Which outcome a video has in the end stands in `outcomes/`, not here: a unit may be tried twice.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from batch.records import VideoRef, VideoResult

LOGGER = logging.getLogger("fakesift")
_SECRETS = re.compile(
    r"(?<=://)[^/\s@]+@|(?<=X-Amz-Signature=)[^&\s]+|(?<=X-Amz-Security-Token=)[^&\s]+", re.IGNORECASE
)
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class UnitLog:
    """One unit on one worker."""

    unit: str
    attempt: int
    """From 0; above it where Ray repeats a task whose worker or node died."""
    started_s: float = field(default_factory=time.monotonic)

    def watched(
        self, extract: Callable[[VideoRef], VideoResult], uri_of: Callable[[VideoRef], str]
    ) -> Callable[[VideoRef], VideoResult]:
        """The same function; logs each video that ends as a fault."""

        def look(video: VideoRef) -> VideoResult:
            result = extract(video)
            if result.reason.is_fault:
                self.say(
                    logging.WARNING, "video fault", uri=uri_of(video), reason=str(result.reason), detail=result.detail
                )
            return result

        return look

    def say(self, level: int, event: str, **facts: Any) -> None:
        """Logs an event with the unit's ids; texts without what may be a secret, and bounded."""
        told = {name: _clean(value) if isinstance(value, str) else value for name, value in facts.items()}
        LOGGER.log(level, event, extra={"unit": self.unit, "attempt": self.attempt, **told})

    def done(self, event: str, **facts: Any) -> None:
        """Logs an end that is as it should be, with the seconds since the start."""
        self.say(logging.INFO, event, seconds=round(time.monotonic() - self.started_s, 3), **facts)


@contextmanager
def unit_log(unit: str, event: str = "unit started", **facts: Any) -> Iterator[UnitLog]:
    """Around a unit's work: logs the event at its start, and that it failed, if it does."""
    log = UnitLog(unit, _attempt())
    log.say(logging.INFO, event, **facts)
    try:
        yield log
    except Exception as error:
        log.say(logging.ERROR, "unit failed", error=f"{type(error).__name__}: {error}")
        raise


def _clean(text: str) -> str:
    return _SECRETS.sub("***", text)[:_LONGEST]


def _attempt() -> int:
    """Of the running task. Ray's runtime context does not tell it; 0 outside of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())
