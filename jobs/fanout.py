"""A stream of arguments in, results as they come out: a bounded window of Ray tasks in flight."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Enough queued tasks that a worker which ends one finds the next, and that an autoscaler sees work waiting.
_QUEUED_PER_CPU = 2
_SMALLEST_WINDOW = 4


def fan_out(
    ray: Any, task: Any, shared: tuple[Any, ...], items: Iterable[Any], workers: int | None
) -> Generator[Any, None, None]:
    """Runs `task(*shared, item)` for each item and yields results as tasks end, in any order.

    The stream is read only as fast as tasks end, so neither items nor results pile up. `shared` is stored once.
    A task's exception is raised here; the others are then cancelled, and so they are if the caller stops early.

    Raises:
        RuntimeError: where Ray itself gave up on a task: its node or worker died too often, or the cluster is gone.
    """
    stream = iter(items)
    held = [ray.put(value) for value in shared]
    in_flight: set[Any] = set()
    exhausted = False
    try:
        while True:
            window = workers or max(_SMALLEST_WINDOW, int(_QUEUED_PER_CPU * ray.cluster_resources().get("CPU", 1)))
            while not exhausted and len(in_flight) < window:
                item = next(stream, _END)
                if item is _END:
                    exhausted = True
                else:
                    in_flight.add(task.remote(*held, item))
            if not in_flight:
                return
            with plain_errors(ray):
                ready, _ = ray.wait(list(in_flight), num_returns=1)
                in_flight -= set(ready)
                results = ray.get(ready)
            yield from results
    finally:
        for reference in in_flight:
            ray.cancel(reference, force=True)


@contextmanager
def plain_errors(ray: Any) -> Iterator[None]:
    """Around a wait for tasks: their own exceptions as they are, and Ray's as one line.

    Raises:
        RuntimeError: where Ray gave up.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        # The text of Ray's is a whole traceback, and its cause is not lost.
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray gave up: {' '.join(str(error).split())[:300]}; run again to go on") from error


_END = object()
