"""A work unit in, its commit out: the body of one task, with nothing of Ray in it."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from batch.faces.extract import extract_each
from batch.records import VideoRef, VideoResult, WorkUnit
from batch.shards.commit import Commit, unit_name
from batch.shards.write import (
    commit_unit,
    count_labels,
    count_reasons,
    faces_file,
    faces_table,
    outcomes_file,
    outcomes_table,
    parquet_bytes,
)
from batch.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What travels back from a task: small, whatever the unit's size."""

    commit: Commit
    won: bool
    """False if another writer had committed the unit already."""


def build_unit(
    unit: WorkUnit, extract: Callable[[VideoRef], VideoResult], source_root: str, sink: Storage, options_digest: str
) -> UnitReport:
    """Calls `extract` for each video of a unit, then writes and commits. Done twice, it leaves what one run leaves.

    Raises an `AccessError` where the store refuses access: see `extract_each`.

    Memory: what `extract` takes, the unit's encoded crops, and their Parquet file: three times `units.SHARD_BYTES`.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    seconds: Counter[str] = Counter()
    with _timed(seconds, "wall"):
        results = list(extract_each(unit.videos, extract))
        with _timed(seconds, "write"):
            faces = faces_table(results, source_root, options_digest)
            faces_bytes = parquet_bytes(faces) if faces.num_rows else None
            outcomes_bytes = parquet_bytes(outcomes_table(results, source_root))
    for result in results:
        seconds.update(result.cost.seconds)
    name = unit_name(unit.id, unit.generation)
    commit = Commit(
        unit=unit.id,
        generation=unit.generation,
        options_digest=options_digest,
        faces=None if faces_bytes is None else faces_file(name, faces_bytes, faces.num_rows),
        outcomes=outcomes_file(name, outcomes_bytes, len(results)),
        listed=len(results),
        reasons=count_reasons(results),
        replaces=dict(unit.replaces),
        labels=count_labels(results),
        bytes_listed=_bytes(unit.videos),
        bytes_read=sum(result.cost.bytes_read for result in results),
        requests=sum(result.cost.requests for result in results),
        seconds={name: round(value, 6) for name, value in seconds.items()},
        started_at=started,
        host=socket.gethostname(),
    )
    return UnitReport(commit=commit, won=commit_unit(sink, commit, faces_bytes, outcomes_bytes))


def _bytes(videos: tuple[VideoRef, ...]) -> int:
    return sum(video.size_bytes for video in videos)


@contextmanager
def _timed(seconds: Counter[str], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - start  # type: ignore[assignment]  # floats add as well
