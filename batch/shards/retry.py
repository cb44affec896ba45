"""A committed unit and the reasons to retry in, the next generation of the unit out: its faulted videos alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from batch.records import Reason, WorkUnit
from batch.shards.commit import Commit
from batch.shards.read import latest_outcomes
from batch.storage.base import Storage


def retry_unit(unit: WorkUnit, commits: Sequence[Commit], wanted: Set[Reason], sink: Storage) -> WorkUnit | None:
    """The next generation of a unit, or None if none of its videos has a wanted outcome. `commits` are the unit's."""
    if not any(Reason(name) in wanted for commit in commits for name in commit.reasons):
        return None
    outcomes: dict[str, str] = {}
    for table in latest_outcomes(sink, commits, ["video_key", "outcome"]):
        outcomes.update(zip(table["video_key"].to_pylist(), table["outcome"].to_pylist(), strict=True))
    videos = tuple(video for video in unit.videos if Reason(outcomes[video.key]) in wanted)
    if not videos:
        return None
    generation = 1 + max(commit.generation for commit in commits)
    replaced = Counter(outcomes[video.key] for video in videos)
    return replace(unit, videos=videos, generation=generation, replaces=dict(replaced))
