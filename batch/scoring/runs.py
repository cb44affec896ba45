"""Runs take turns on an OUTPUT: `runs/<n>.json`, put if absent, is run n's claim, and there is no run n+1 beside it.

The one with the highest number holds OUTPUT. It shows that it lives by writing its claim anew; a run that ended says
so in it. Who finds the highest claim dead (its process gone, or silent for `STALE_S`) takes the next number. Its
workers commit no more from then on: `check_held` is asked right before every commit. What of it slips in between all
the same, after the next run has read what there is, is removed by `drop_late`: that run looks at those items itself.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from batch.scoring.commit import commit_keys
from batch.storage.base import DamagedError, MissingObjectError, Storage, StorageError

RUNS = "runs/"
BEAT_S = 20.0
STALE_S = 180.0
"""Nine missed beats: a store may be slow, and a driver's machine may be paused for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The content of `runs/<n>.json`."""

    run: int
    state: Literal["running", "ended"]
    night: str
    """YYYY-MM-DD."""
    host: str
    pid: int
    started_at: str
    """UTC, ISO 8601."""
    beat_at: str
    """When it last showed that it lives."""
    inputs: tuple[str, ...]
    bundle: str
    options: str
    token: str = ""
    """Random: two claims never have the same bytes, which `put_if_absent` would take for one."""

    @property
    def key(self) -> str:
        """Where it lies under OUTPUT."""
        return run_key(self.run)

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Claim:
        """Parses a claim; a `ValueError`, `KeyError` or `TypeError` means that the file is damaged."""
        raw = json.loads(data)
        return cls(**{**raw, "inputs": tuple(raw["inputs"])})

    def is_alive(self) -> bool:
        """Whether its run may still be writing."""
        if self.state == "ended":
            return False
        if self.host == socket.gethostname() and Path("/proc").is_dir() and not Path(f"/proc/{self.pid}").exists():
            return False
        silent = datetime.now(UTC) - datetime.fromisoformat(self.beat_at)
        return silent.total_seconds() < STALE_S


def run_key(run: int) -> str:
    """`runs/<n>.json`."""
    return f"{RUNS}{run:06d}.json"


def run_numbers(sink: Storage) -> list[int]:
    """All runs that ever claimed OUTPUT, rising."""
    names = (item.key.removeprefix(RUNS).removesuffix(".json") for item in sink.list(RUNS))
    return sorted(int(name) for name in names if name.isdigit())


def read_claim(sink: Storage, run: int) -> Claim:
    """A run's claim. Raises `DamagedError` for one that is damaged, `MissingObjectError` for none."""
    try:
        return Claim.from_json(sink.read(run_key(run)))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"damaged claim {sink.uri(run_key(run))}: {error}") from error


def check_free(sink: Storage) -> int:
    """The number of the last run; 0 where there was none.

    Raises:
        ValueError: if that run is still at work.
    """
    numbers = run_numbers(sink)
    if not numbers:
        return 0
    with_claim = read_claim(sink, numbers[-1])
    if with_claim.is_alive():
        raise ValueError(
            f"output {sink.root}: run {with_claim.run} is at work there since {with_claim.started_at} (process "
            f"{with_claim.pid} on {with_claim.host}, last seen {with_claim.beat_at}); wait for its end, or if it is "
            f"dead, {STALE_S / 60:.0f} minutes"
        )
    return numbers[-1]


@contextmanager
def claimed(sink: Storage, last: int, claim: Claim) -> Iterator[Claim]:
    """Holds OUTPUT as run `last + 1` for a while.

    Raises:
        ValueError: if another run took that number since `check_free` gave `last`.
    """
    mine = replace(claim, run=last + 1)
    if not sink.put_if_absent(mine.key, mine.to_json()):
        raise ValueError(f"output {sink.root}: another run began at the same moment; wait for its end")
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(sink, mine, ended), daemon=True)
    beats.start()
    try:
        yield mine
    finally:
        ended.set()
        beats.join()
        if still_held(sink, mine.run):
            sink.put(mine.key, replace(mine, state="ended", beat_at=now()).to_json())


def still_held(sink: Storage, run: int) -> bool:
    """Whether no later run has taken OUTPUT over."""
    return not sink.exists(run_key(run + 1))


def check_held(sink: Storage, run: int) -> None:
    """Raises `RuntimeError` if a later run has taken OUTPUT over."""
    if not still_held(sink, run):
        raise RuntimeError(f"{sink.root}: run {run + 1} has taken this output over")


def drop_late(sink: Storage, runs: Iterable[int], known: Container[str]) -> int:
    """Removes commits that came after their run was taken for dead; gives their number.

    Args:
        sink: OUTPUT.
        runs: those that were killed.
        known: keys of the commits that were read when the ledger was.
    """
    late = [key for key in commit_keys(sink, runs) if key not in known]
    for key in late:
        sink.delete(key)
    return len(late)


def new_claim(*, night: str, inputs: tuple[str, ...], bundle: str, options: str) -> Claim:
    """The claim of this process, not numbered yet."""
    host, begun = socket.gethostname(), now()
    return Claim(
        run=0, state="running", night=night, host=host, pid=os.getpid(), started_at=begun, beat_at=begun, inputs=inputs,
        bundle=bundle, options=options, token=uuid.uuid4().hex,
    )  # fmt: skip


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _beat(sink: Storage, claim: Claim, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        try:
            if not still_held(sink, claim.run):
                return
            sink.put(claim.key, replace(claim, beat_at=now()).to_json())
        except (StorageError, MissingObjectError):
            continue  # the store may come back before the claim is stale
