"""`summary.json`: all that an alert needs of a run, added up from commits; `history/<run>.json` keeps each of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from batch.records import Reason
from batch.scoring.commit import ScoreCommit
from batch.scoring.tables import BINS
from batch.shards.summary import SUMMARY
from batch.storage.base import DamagedError, Storage

HISTORY = "history/"


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
    """INPUTs that refused access or failed, with the error: what of them is not scored is left."""
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
    `model_busy`: the share of that time for which each model computed, on average."""
    runtime: str = ""
    """What computed the network: `keras` or `openvino`; empty where no actor was needed."""
    precision: str = "float32"
    """Of its arithmetic."""
    drift: tuple[str, ...] = ()
    """In what the run is unlike earlier ones, a line each: `scoring.drift`."""
    psi: float | None = None
    """Population stability index of its scores, where there was enough to compare."""

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
        return cls(**raw)

    @property
    def history_key(self) -> str:
        """Where it is kept for later runs to be held against."""
        return f"{HISTORY}{self.run:06d}.json"


def write_summary(sink: Storage, summary: ScoreSummary) -> None:
    """Puts it in both places."""
    sink.put(summary.history_key, summary.to_json())
    sink.put(SUMMARY, summary.to_json())


def read_history(sink: Storage, last: int | None = None) -> list[ScoreSummary]:
    """The summaries of earlier runs, oldest first; of the last so many.

    Raises:
        DamagedError: for one that is damaged.
    """
    keys = [item.key for item in sink.list(HISTORY) if item.key.endswith(".json")]
    found = []
    for key in keys if last is None else keys[-last:]:
        try:
            found.append(ScoreSummary.from_json(sink.read(key)))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"damaged summary {sink.uri(key)}: {error}") from error
    return found


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
