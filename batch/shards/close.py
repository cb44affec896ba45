"""The end of a job: commits of units that the corpus no longer has, and files that no commit names, go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batch.shards.commit import COMMITS, FACES, OUTCOMES, Commit, committed_keys, read_commits
from batch.shards.read import outcome_tables
from batch.storage.base import Storage
from batch.storage.leftovers import dead_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """How the videos of removed units changed since they were looked at."""

    vanished: int
    """No longer listed."""
    changed: int
    """Listed with another etag."""


def unit_of(commit_key: str) -> str:
    """The unit's id in a commit's key."""
    return commit_key.removeprefix(COMMITS).removesuffix(".json").split(".r", 1)[0]


def remove_stale(sink: Storage, planned: set[str], fresh: Iterable[str]) -> Replaced:
    """Removes the commits of units that are not planned any more, and says what became of their videos.

    `fresh` names the units that this run committed: that is where most videos of stale units are found again, so
    the other units' outcomes are read only for the rest. Memory grows with the touched units alone.
    """
    stale = [key for key in committed_keys(sink) if unit_of(key) not in planned]
    if not stale:
        return Replaced(vanished=0, changed=0)
    missing = {key: etag for batch in _etags(sink, stale) for key, etag in batch.items()}
    first = set(fresh) & planned
    changed = 0
    for units in (first, planned - first):
        keys = [f"{COMMITS}{unit}.json" for unit in sorted(units)] if missing else []
        for batch in _etags(sink, keys):
            changed += sum(missing.pop(key) != etag for key, etag in batch.items() if key in missing)
    for key in stale:
        sink.delete(key)
    return Replaced(vanished=len(missing), changed=changed)


def _etags(sink: Storage, keys: Sequence[str]) -> Iterator[dict[str, str]]:
    for table in outcome_tables(sink, read_commits(sink, keys), ["video_key", "etag"]):
        yield dict(zip(table["video_key"].to_pylist(), table["etag"].to_pylist(), strict=True))


def remove_orphans(sink: Storage, commits: Iterable[Commit]) -> int:
    """Deletes files under `faces/` and `outcomes/` that no commit names; gives their number.

    Only for the end of a job: a file that another driver has written and not yet committed is an orphan too.

    Locally also the hidden files of writers that were killed.

    Raises:
        RuntimeError: if a commit names a file that is not there. That commit is removed, so that the next run does
            its unit again.
    """
    present = {item.key for prefix in (FACES, OUTCOMES) for item in sink.list(prefix)}
    named: set[str] = set()
    broken: list[str] = []
    for commit in commits:
        files = {file.key for file in (commit.faces, commit.outcomes) if file is not None}
        named |= files
        if not files <= present:
            broken.append(commit.key)
    for key in broken:
        sink.delete(key)
    if broken:
        raise RuntimeError(f"{sink.root}: files of {len(broken)} units are missing; run the job again to redo them")
    orphans = present - named
    for key in sorted(orphans):
        sink.delete(key)
    return len(orphans) + len(dead_files(sink, remove=True))
