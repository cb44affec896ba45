"""A run's state on disk, the same for every backend: what a resumed run needs to go on as if nothing had happened.

A folder of `state.json` (position, history, options) and four files of arrays: `network.npz`, `optimizer.npz`,
`average.npz` (the moving average, if any) and `best.npz` (the weights of the best epoch so far).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from batch.faces.options import digest_of
from batch.model.fit.engine import Arrays, Snapshot
from batch.model.network import Stage
from batch.model.records import EpochRecord

VERSION = 2
"""Of the layout."""
STATE = "state.json"
"""The small file that says how far the run is, written last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands between two steps."""

    stage: Stage
    """Which the engine is in: that of the running epoch, or of the last one where it ended with this state."""
    stage_step: int
    """Optimizer steps of this stage."""
    step: int
    """Optimizer steps of the run."""
    epoch_step: int
    """Steps done of the running epoch; 0 between epochs."""
    loss_sum: float
    """Sum of loss times weight over the running epoch."""
    weight_sum: float
    seconds: float
    """Spent in the running epoch."""
    history: tuple[EpochRecord, ...]
    """Epochs that ended."""
    best: Arrays
    """Weights of the best epoch so far, in the order of `model.weights`; empty before the first has ended."""
    snapshot: Snapshot
    fingerprint: Mapping[str, str]
    """Options that shape the training, by name: they may not change under a run."""


def save_state(folder: Path, state: RunState) -> None:
    """Write the state into an existing folder, `state.json` last."""
    _save_arrays(folder / "network.npz", state.snapshot.network)
    _save_arrays(folder / "best.npz", state.best)
    _save_arrays(folder / "optimizer.npz", state.snapshot.optimizer)
    _save_arrays(folder / "average.npz", state.snapshot.average)
    position = {name: getattr(state, name) for name in _POSITION}
    history = [{**asdict(record), "validation": dict(record.validation)} for record in state.history]
    document = {"version": VERSION, **position, "history": history, "fingerprint": dict(state.fingerprint)}
    document["digest"] = digest_of(document)
    (folder / STATE).write_text(json.dumps(document, indent=1), encoding="utf-8")


def load_state(folder: Path, fingerprint: Mapping[str, str]) -> RunState:
    """Read a state. Raises ValueError if it is damaged, of another version, or of a run with other options."""
    with _told_of_damage(folder):
        document = _document((folder / STATE).read_bytes())
        _check(folder, document, fingerprint)
        network, optimizer, average, best = (_load_arrays(folder / f"{name}.npz") for name in _ARRAYS)
        return RunState(
            **{name: document[name] for name in _POSITION},
            history=tuple(EpochRecord(**record) for record in document["history"]),
            best=best,
            snapshot=Snapshot(network=network, optimizer=optimizer, average=average),
            fingerprint=document["fingerprint"],
        )


def check_state(folder: Path) -> None:
    """Read all of a state by its checksums. Raises ValueError if a file is missing or damaged."""
    with _told_of_damage(folder):
        _document((folder / STATE).read_bytes())
        for name in _ARRAYS:
            with ZipFile(folder / f"{name}.npz") as arrays:
                if broken := arrays.testzip():
                    raise BadZipFile(f"{name}.npz: {broken} has another checksum")


def progress_of(state_json: bytes) -> tuple[int, int]:
    """How far the state with this `state.json` is: epochs that ended, and steps of the next. Raises ValueError."""
    document = _document(state_json)
    return len(document["history"]), document["epoch_step"]


def _document(state_json: bytes) -> dict[str, Any]:
    """What stands there. Raises ValueError if it is not what was written."""
    try:
        document: dict[str, Any] = json.loads(state_json)
        digest = document.pop("digest")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _DamageError(f"{STATE}: expected values and their digest: {error!r}") from error
    if digest != digest_of(document):
        raise _DamageError(f"{STATE}: digest {digest}, expected {digest_of(document)}")
    return document


class _DamageError(ValueError):
    """A `state.json` that is not what was written."""


@contextmanager
def _told_of_damage(folder: Path) -> Iterator[None]:
    """Whatever reading a damaged file ends in, as one error; a store that fails is none."""
    try:
        yield
    except (FileNotFoundError, EOFError, BadZipFile, RuntimeError, zlib.error, _DamageError) as error:
        raise ValueError(f"damaged checkpoint: received {folder}, expected what training saved: {error!r}") from error


def _check(folder: Path, document: Mapping[str, Any], fingerprint: Mapping[str, str]) -> None:
    """Refuse a state of another version or other options."""
    if document.get("version") != VERSION:
        raise ValueError(f"checkpoint {folder}: received version {document.get('version')}, expected {VERSION}")
    saved = document["fingerprint"]
    names: Sequence[str] = sorted(saved.keys() | fingerprint.keys())
    unlike = [name for name in names if saved.get(name) != fingerprint.get(name)]
    if unlike:
        changes = "; ".join(f"{name}: received {fingerprint.get(name)}, expected {saved.get(name)}" for name in unlike)
        raise ValueError(f"checkpoint {folder} is of a run with other options: {changes}")


def _save_arrays(path: Path, arrays: Arrays) -> None:
    """Arrays by their place."""
    named: dict[str, Any] = {f"{place:05}": value for place, value in enumerate(arrays)}
    np.savez(path, **named)


def _load_arrays(path: Path) -> Arrays:
    """Arrays in order."""
    with np.load(path) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


_POSITION = ("stage", "stage_step", "step", "epoch_step", "loss_sum", "weight_sum", "seconds")
_ARRAYS = ("network", "optimizer", "average", "best")
