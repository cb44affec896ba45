"""News of training processes in, calls in the driver's process out: steps, epochs, and why a run failed.

Ray Train's own reports carry checkpoints and wait for every worker; news must neither wait nor be lost with a worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from batch.model.records import EpochRecord
from batch.storage.base import StorageError
from jobs.console import say

Told = EpochRecord | str | Any
"""An `EpochRecord`, a `StepReport`, or a line for the person who waits."""

_POLL_S = 1.0


class Pinned:
    """What the actor holds: workers pin what happened, and the driver takes it."""

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._held: list[Told] = []
        self._failed = ""

    def fail(self, why: str) -> None:
        """What no restart can mend; the first such reason counts."""
        self._failed = self._failed or why

    def failed(self) -> str:
        """That reason; empty without one."""
        return self._failed

    def put(self, told: Told) -> None:
        """A step, an epoch or a line."""
        self._held.append(told)

    def take(self) -> list[Told]:
        """What came since the last call."""
        taken, self._held = self._held, []
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The driver's hold of the actor."""

    ray: Any
    actor: Any
    """For the workers; its methods are those of `Pinned`."""

    def why_failed(self) -> str:
        """What a worker said that no restart can mend; empty where none did, or the actor is gone."""
        try:
            return str(self.ray.get(self.actor.failed.remote()))
        except self.ray.exceptions.RayError:
            return ""


@contextmanager
def open_board(ray: Any, tell: Callable[[Told], None]) -> Iterator[Board]:
    """A board whose news are told in a thread of this process while the block runs, the last of them included.

    A store that fails under `tell` is spoken of and costs that one notice. The actor lies on this process's own node:
    on a worker's, it would be lost with that worker, and every restart would look for it in vain.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0)(Pinned).options(scheduling_strategy=here).remote()
    done = threading.Event()

    def pump() -> None:
        while True:
            last = done.wait(_POLL_S)
            try:
                news = ray.get(actor.take.remote())
            except ray.exceptions.RayError:
                return
            for told in news:
                try:
                    tell(told)
                except StorageError as error:
                    say(f"training goes on, but its progress was not kept: {error}")
            if last:
                return

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield Board(ray=ray, actor=actor)
    finally:
        done.set()
        thread.join()
