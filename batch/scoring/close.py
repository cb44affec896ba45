"""The end of a run: the ledger takes its commits in, and files that no commit names go."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NoReturn

import numpy as np

from batch.scoring.commit import ScoreCommit, commit_keys, file_name, places, read_commits
from batch.scoring.digests import Digests, as_digests, digest16, find
from batch.scoring.runs import read_claim
from batch.storage.base import Storage

_PAGE = 1000


def remove_orphans(sink: Storage, runs: Iterable[int], commits: Iterable[ScoreCommit]) -> int:
    """Deletes the files of these runs that no commit names; gives their number. `commits` are theirs.

    Holds 16 bytes a file that is named, and the names of those that go: what was in work when a run was killed.

    Raises:
        RuntimeError: if a commit names a file that is not there. That commit is removed, so that the next run looks
            at its items again.
    """
    runs = tuple(runs)
    named = _digests_of(file.key for commit in commits for file in commit.files)
    found = np.zeros(len(named), bool)
    orphans: list[str] = []
    for keys in _pages(_files(sink, runs)):
        at = find(named, as_digests([digest16(key) for key in keys]))
        found[at[at >= 0]] = True
        orphans += [key for key, place in zip(keys, at, strict=True) if place < 0]
    if not found.all():
        _remove_broken(sink, runs, named[~found])
    for key in orphans:
        sink.delete(key)
    return len(orphans)


def _remove_broken(sink: Storage, runs: Iterable[int], missing: Digests) -> NoReturn:
    """Removes the commits that name one of the missing files."""
    broken = []
    for commit in read_commits(sink, commit_keys(sink, runs)):
        if (find(missing, as_digests([digest16(file.key) for file in commit.files])) >= 0).any():
            broken.append(commit.key)
    for key in broken:
        sink.delete(key)
    raise RuntimeError(f"{sink.root}: files of {len(broken)} units are missing; run again to redo them")


def _files(sink: Storage, runs: Iterable[int]) -> Iterator[str]:
    """Keys of all that the runs wrote for units."""
    for run in runs:
        for prefix in places(read_claim(sink, run).night):
            yield from (item.key for item in sink.list(prefix + file_name(run, "")))


def _digests_of(keys: Iterable[str]) -> Digests:
    """Sorted, each once."""
    pages = [as_digests([digest16(key) for key in page]) for page in _pages(keys)]
    return np.unique(np.concatenate(pages)) if pages else as_digests([])


def _pages(keys: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(keys)
    while page := list(itertools.islice(stream, _PAGE)):
        yield page
