"""The end of a run: the ledger takes its commits in, and files that no commit names go."""

from __future__ import annotations

from collections.abc import Iterable

from batch.scoring.commit import ScoreCommit, places
from batch.scoring.runs import read_claim
from batch.storage.base import Storage


def remove_orphans(sink: Storage, runs: Iterable[int], commits: Iterable[ScoreCommit]) -> int:
    """Deletes the files of these runs that no commit names; gives their number. `commits` are theirs.

    Raises:
        RuntimeError: if a commit names a file that is not there. That commit is removed, so that the next run looks
            at its items again.
    """
    wanted = tuple(f"{run:06d}." for run in runs)
    prefixes = {prefix for run in runs for prefix in places(read_claim(sink, run).night)}
    present = {
        item.key
        for prefix in prefixes
        for item in sink.list(prefix)
        if item.key.removeprefix(prefix).startswith(wanted)
    }
    named: set[str] = set()
    broken: list[str] = []
    for commit in commits:
        files = {file.key for file in commit.files}
        named |= files
        if not files <= present:
            broken.append(commit.key)
    for key in broken:
        sink.delete(key)
    if broken:
        raise RuntimeError(f"{sink.root}: files of {len(broken)} units are missing; run again to redo them")
    for key in sorted(present - named):
        sink.delete(key)
    return len(present - named)
