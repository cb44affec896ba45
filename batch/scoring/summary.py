"""`summary.json`: all that an alert needs of a run, added up from commits; `history/<run>.json` keeps each of them.

It tells of the last run that found something to do. One that found nothing leaves its figures, and says in
`last_check` alone that it came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from batch.records import Reason
from batch.scoring.commit import ScoreCommit
from batch.scoring.tables import BINS
from batch.shards.summary import SUMMARY
from batch.storage.base import DamagedError, Storage

HISTORY = "history/"
MOST_LIKELY_FAKE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Items of a night, of one INPUT or of all. `items == scored + sum(set_aside) + sum(faults)`."""

    items: int = 0
    scored: int = 0
    same: int = 0
    """Of all of these, those that were given the outcome of other items with the same content."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    bands: Mapping[str, int] = field(default_factory=dict)
    why: Mapping[str, int] = field(default_factory=dict)
    """Items by `records.Why`."""
    histogram: tuple[int, ...] = (0,) * BINS
    """Scored items by probability, in twentieths; the twins' too."""
    crops: int = 0
    """Faces that the model looked at."""

    @property
    def coverage(self) -> float | None:
        """Share of the items that have a probability."""
        return round(self.scored / self.items, 4) if self.items else None

    @property
    def closes(self) -> bool:
        """Whether every item has exactly one outcome, and a band if it has a score."""
        parts = self.scored + sum(self.set_aside.values()) + sum(self.faults.values())
        return self.items == parts and self.scored == sum(self.bands.values()) == sum(self.histogram)


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelyFake:
    """An item in the band `likely fake`, for an alert to name."""

    uri: str
    probability: float
    uncertainty: float | None
    others: int = 0
    """Further items of the run with the same content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastCheck:
    """How the last run ended, whether it found something to do or not."""

    at: str
    """UTC, ISO 8601."""
    exit_code: int
    pending: int
    """What there was to look at."""
    vanished: int
    """Objects in the ledger that were not listed any more."""
    denied: Mapping[str, str]
    """INPUTs that refused access or could not be listed, with the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """The content of `summary.json`."""

    run: int
    runs: tuple[int, ...]
    """The runs that are added up: this one, and earlier ones that were killed."""
    night: str
    started_at: str
    ended_at: str
    bundle: str
    """Digest."""
    bundle_uri: str
    options: str
    """Digest."""
    total: Tally
    inputs: Mapping[str, Tally]
    """By INPUT."""
    listed: Mapping[str, int]
    """Media objects by INPUT."""
    denied: Mapping[str, str]
    """INPUTs that refused access, with the error: what of them is not scored is left."""
    filtered: int
    """Listed objects that the filters leave out."""
    pending: int
    """What there was to look at when this run began, after the filters."""
    left: Mapping[str, int]
    """Of it, what is left for another run: `limit`, `budget`, `denied`, `twins`."""
    vanished: int
    """Objects in the ledger that are not listed any more."""
    units: int
    bytes_listed: int
    bytes_read: int
    requests: int
    seconds: Mapping[str, float]
    """Summed over tasks by stage; `wall` is this run's."""
    rates: Mapping[str, float]
    """This run's `items_per_second` and `crops_per_second`, from its first unit's start to the last one's end;
    `model_busy`: the share of the time since it was started for which each model computed, on average."""
    runtime: str = ""
    """What computed the network: `keras` or `openvino`, or both with a comma between; empty where no actor was
    needed."""
    precision: str = "float32"
    """Of its arithmetic."""
    drift: tuple[str, ...] = ()
    """In what the run is unlike earlier ones, a line each: `scoring.drift`."""
    psi: float | None = None
    """Population stability index of its scores, where there was enough to compare."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """INPUTs whose listing broke off though access was granted, with the error; another run may have more luck."""
    exit_code: int = 0
    """What the run ended with: 1 failed, 3 faults or 4 drift and `--strict`."""
    problem: str = ""
    """Why it failed, where no INPUT is the reason."""
    likely_fake: tuple[LikelyFake, ...] = ()
    """Up to `MOST_LIKELY_FAKE`, the highest scores first, each content once; all are in the items tables."""
    last_check: LastCheck | None = None

    def to_json(self) -> bytes:
        """The file's content."""
        told = asdict(self)
        for name, tally in {"total": self.total, **self.inputs}.items():
            place = told["total"] if tally is self.total else told["inputs"][name]
            place["coverage"] = tally.coverage
        return json.dumps(told, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ScoreSummary:
        """Parses a summary; a `ValueError`, `KeyError` or `TypeError` means that the file is damaged."""
        raw = json.loads(data)
        raw["total"] = _tally(raw["total"])
        raw["inputs"] = {name: _tally(value) for name, value in raw["inputs"].items()}
        raw["runs"] = tuple(raw["runs"])
        raw["drift"] = tuple(raw.get("drift", ()))
        raw["likely_fake"] = tuple(LikelyFake(**each) for each in raw.get("likely_fake", ()))
        if raw.get("last_check") is not None:
            raw["last_check"] = LastCheck(**raw["last_check"])
        return cls(**raw)

    @property
    def history_key(self) -> str:
        """Where it is kept for later runs to be held against."""
        return history_key(self.run)


def history_key(run: int) -> str:
    """`history/<run>.json`."""
    return f"{HISTORY}{run:06d}.json"


def write_summary(sink: Storage, summary: ScoreSummary) -> None:
    """Puts it in both places. What earlier runs left that it adds up goes: they were killed before they ended."""
    sink.put(summary.history_key, summary.to_json())
    sink.put(SUMMARY, summary.to_json())
    for run in summary.runs:
        if run != summary.run:
            sink.delete(history_key(run))


def note_check(sink: Storage, check: LastCheck) -> None:
    """Says in the last summary that a run came which found nothing to do; no summary, no word.

    Raises:
        DamagedError: for one that is damaged.
    """
    for summary in read_history(sink, last=1):
        write_summary(sink, replace(summary, last_check=check))


def read_history(sink: Storage, last: int | None = None, *, with_items: bool = False) -> list[ScoreSummary]:
    """The summaries of earlier runs, oldest first; of the last so many, or of the last so many that had items.

    Raises:
        DamagedError: for one that is damaged.
    """
    keys = [item.key for item in sink.list(HISTORY) if item.key.endswith(".json")]
    found: list[ScoreSummary] = []
    for key in reversed(keys):
        if last is not None and len(found) >= last:
            break
        summary = _read(sink, key)
        if summary.total.items or not with_items:
            found.append(summary)
    return found[::-1]


def forget(sink: Storage, is_gone: Callable[[str], bool]) -> None:
    """Takes the names of items out of all summaries. Counts stay, since they name nobody."""
    for key in [*(item.key for item in sink.list(HISTORY) if item.key.endswith(".json")), SUMMARY]:
        if not sink.exists(key):
            continue
        summary = _read(sink, key)
        left = tuple(each for each in summary.likely_fake if not is_gone(each.uri))
        if left != summary.likely_fake:
            sink.put(key, replace(summary, likely_fake=left).to_json())


def _read(sink: Storage, key: str) -> ScoreSummary:
    try:
        return ScoreSummary.from_json(sink.read(key))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"damaged summary {sink.uri(key)}: {error}") from error


@dataclass(slots=True)
class _Sums:
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bands: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    same: int = 0
    crops: int = 0

    def add(self, commit: ScoreCommit) -> None:
        self.kinds.update(commit.kinds)
        self.reasons.update(commit.reasons)
        self.bands.update(commit.bands)
        self.why.update(commit.why)
        self.histogram = [a + b for a, b in zip(self.histogram, commit.histogram, strict=True)]
        self.same += commit.same
        self.crops += commit.crops

    def tally(self) -> Tally:
        reasons = {Reason(name): count for name, count in sorted(self.reasons.items()) if count}
        return Tally(
            items=self.kinds.total(),
            scored=self.kinds["scored"],
            same=self.same,
            set_aside={str(reason): count for reason, count in reasons.items() if reason.is_content},
            faults={str(reason): count for reason, count in reasons.items() if reason.is_fault},
            bands=dict(sorted(self.bands.items())),
            why=dict(sorted(self.why.items())),
            histogram=tuple(self.histogram),
            crops=self.crops,
        )


class CommitSums:
    """Adds commits up. Memory does not grow with their number."""

    def __init__(self) -> None:
        self._total = _Sums()
        self._inputs: dict[str, _Sums] = {}
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def add(self, commits: Iterable[ScoreCommit]) -> CommitSums:
        """Adds them, and gives itself."""
        for commit in commits:
            self._total.add(commit)
            self._inputs.setdefault(commit.input, _Sums()).add(commit)
            for stage, spent in commit.seconds.items():
                self.seconds[stage] += spent  # type: ignore[assignment]  # floats add as well
            self.counts.update(
                units=1, bytes_listed=commit.bytes_listed, bytes_read=commit.bytes_read, requests=commit.requests
            )
        return self

    @property
    def total(self) -> Tally:
        """Of all INPUTs."""
        return self._total.tally()

    @property
    def inputs(self) -> dict[str, Tally]:
        """By INPUT."""
        return {name: sums.tally() for name, sums in sorted(self._inputs.items())}


def _tally(raw: dict[str, object]) -> Tally:
    raw.pop("coverage", None)
    return Tally(**{**raw, "histogram": tuple(raw["histogram"])})  # type: ignore[arg-type]
