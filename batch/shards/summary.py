"""`summary.json`: the accounting of a preprocessing output, added up from its commits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from batch.records import Reason
from batch.shards.commit import Commit

SUMMARY = "summary.json"
PLAN = "plan.json"
"""How many videos and units the last finished listing had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The accounting: `listed == kept + sum(set_aside) + sum(faults)`, or the job failed."""

    listed: int
    kept: int
    faces: int
    set_aside: Mapping[str, int]
    faults: Mapping[str, int]
    labels: Mapping[str, int]
    """Face rows by label: `real`, `fake`, `unknown`."""
    bytes_listed: int
    bytes_read: int
    requests: int
    units: int
    seconds: Mapping[str, float]
    """Summed over tasks by stage (`read`, `decode`, `detect`, `crop`, `write`, `wall`), and `hidden`."""
    corpus: Mapping[str, int] = field(default_factory=dict)
    """What the listing told beside the videos: `unlabelled`, `missing_files`, `vanished`, `changed`,
    `purged` (listed, and refused since they were taken down)."""

    @property
    def closes(self) -> bool:
        """Whether every listed video has exactly one outcome."""
        return self.listed == self.kept + sum(self.set_aside.values()) + sum(self.faults.values())

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Summary:
        """Parses `summary.json`."""
        return cls(**json.loads(data))


def summarize(commits: Iterable[Commit], corpus: Mapping[str, int] | None = None) -> Summary:
    """Adds commits up; a retry counts in the place of what it replaces. Memory does not grow with their number."""
    reasons: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for commit in commits:
        reasons.update(commit.reasons)
        reasons.subtract(commit.replaces)
        labels.update(commit.labels)
        seconds.update(commit.seconds)
        total.update(
            listed=commit.listed if commit.generation == 0 else 0,
            units=1 if commit.generation == 0 else 0,
            faces=commit.faces.rows if commit.faces else 0,
            bytes_listed=commit.bytes_listed if commit.generation == 0 else 0,
            bytes_read=commit.bytes_read,
            requests=commit.requests,
        )
    by_kind = {reason: reasons[reason] for reason in map(Reason, sorted(reasons)) if reasons[reason]}
    return Summary(
        listed=total["listed"],
        kept=by_kind.get(Reason.KEPT, 0),
        faces=total["faces"],
        set_aside={str(r): n for r, n in by_kind.items() if r.is_content},
        faults={str(r): n for r, n in by_kind.items() if r.is_fault},
        labels={name: labels[name] for name in ("real", "fake", "unknown")},
        bytes_listed=total["bytes_listed"],
        bytes_read=total["bytes_read"],
        requests=total["requests"],
        units=total["units"],
        seconds={name: round(value, 3) for name, value in sorted(seconds.items())},
        corpus=dict(corpus or {}),
    )


def kind_counts(reasons: Mapping[str, int]) -> Counter[str]:
    """Videos by `kept`, `set_aside`, `fault`, from videos by outcome."""
    counts: Counter[str] = Counter()
    for reason, videos in reasons.items():
        counts[Reason(reason).kind] += videos
    return counts
