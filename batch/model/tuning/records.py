"""Trials and what became of them, as they pass between stages and lie under OUTPUT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batch.model.records import EpochRecord
from batch.model.tuning.recipe import Configuration, Value

METRICS: Mapping[str, str] = {"loss": "min", "accuracy": "max", "auc": "max"}
"""What a configuration may be chosen by, on validation, and which way is better."""


class Status(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """By the scheduler or the budget, after some epochs."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Never started: the budget was used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run."""

    id: str
    """Names the configuration and the seed."""
    configuration_id: str
    name: str
    """Of a named row, else empty."""
    configuration: Configuration
    seed: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Trial:
        """Reads `to_json`."""
        raw = json.loads(text)
        values = {name: _value(value) for name, value in raw.pop("configuration").items()}
        return cls(configuration=values, **raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a trial is."""

    history: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    """Over all attempts, as far as they reached an epoch's end."""
    attempts: int = 0
    given_up: str = ""
    """Why an earlier call of the job left it, after more lost processes than it allows; the next tries once more."""

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps({**_plain(self), "seconds": round(self.seconds, 3)}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Progress:
        """Reads `to_json`."""
        raw = json.loads(data)
        return cls(history=_history(raw.pop("history")), **raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial ended, and what it cost."""

    trial: Trial
    status: Status
    reason: str = ""
    """Why it did not finish."""
    history: tuple[EpochRecord, ...] = ()
    best: int | None = None
    """Place in the history of the epoch whose weights were kept."""
    seconds: float = 0.0
    attempts: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    device: str = ""
    shared: str = ""
    """What it took from others: `features`, `pixels`, or nothing."""

    @property
    def validation(self) -> Mapping[str, float]:
        """`loss`, `accuracy`, `auc` of the best epoch; none where no epoch ended."""
        return {} if self.best is None else self.history[self.best].validation

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(_plain(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> TrialResult:
        """Reads `to_json`."""
        raw = json.loads(data)
        trial = Trial.from_json(json.dumps(raw.pop("trial")))
        return cls(trial=trial, status=Status(raw.pop("status")), history=_history(raw.pop("history")), **raw)


def _plain(value: Progress | TrialResult) -> dict[str, Any]:
    return {**asdict(value), "history": [_record(each) for each in value.history]}


def _record(record: EpochRecord) -> dict[str, Any]:
    return {**asdict(record), "validation": dict(record.validation)}


def _history(raw: Sequence[Mapping[str, Any]]) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord(**record) for record in raw)


def _value(value: Any) -> Value:
    """JSON knows no tuples."""
    found: Value = tuple(value) if isinstance(value, list) else value
    return found
