"""A preprocessing OUTPUT in, everything that does not hold in it out: commits, shards, outcomes and their accounting.

Reads every file once, side by side. Memory: as many shards as there are readers, 8 bytes a video, and the commits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from batch.faces.options import digest_of
from batch.shards.commit import COMMITS, FACES, OUTCOMES, Commit, committed_keys
from batch.shards.findings import Finding, Findings, Kind
from batch.shards.purged import PURGED, Purged, load_purged
from batch.shards.runfile import RUN, read_run
from batch.shards.summary import PLAN, SUMMARY, summarize
from batch.shards.verify_commits import StoredCommit, read_stored
from batch.shards.verify_unit import UnitCheck, UnitChecker
from batch.storage.base import MissingObjectError, Storage
from batch.storage.leftovers import dead_files

_KIND = "preprocess"
# Shards have up to 50 MB: so many of them are in memory at once.
_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was checked, and what does not hold."""

    output: str
    findings: tuple[Finding, ...]
    """The first of each kind."""
    counts: Mapping[str, int]
    """All findings by kind."""
    pruned: tuple[str, ...]
    """Uris of the orphans and hidden files that were removed."""
    closed: bool
    """Whether a job has written its `summary.json`."""
    units: int
    videos: int
    faces: int
    files: int
    bytes_read: int

    @property
    def ok(self) -> bool:
        """Whether all holds."""
        return not self.counts


def verify_output(sink: Storage, *, prune: bool = False) -> VerifyReport:
    """Checks an output; `prune` removes files that no commit names, and hidden ones of killed writers, and no others.

    While a job writes into the output, its uncommitted files look like orphans: prune none then. Nothing is pruned
    where a commit is damaged, since it may be the one that names the file, or where commits came meanwhile.

    Raises:
        ValueError: if there is no output of `fakesift preprocess`.
        StorageError: if the store does not answer.
    """
    findings = Findings()
    digest = _check_run(sink, findings)
    # Before the commits: a file that is committed meanwhile is then no orphan.
    present = [item.key for prefix in (FACES, OUTCOMES) for item in sink.list(prefix)]
    stored = read_stored(sink, findings)
    purged = _read_purged(sink, findings)
    groups = _by_unit(stored)
    with ThreadPoolExecutor(_READERS) as pool:
        checks = list(pool.map(lambda group: UnitChecker(sink, digest, purged).check(group), groups))
    for check in checks:
        findings.merge(check.findings)
    _check_twice([sink.uri(group[0].key) for group in groups], checks, findings)
    closed = _check_summary(sink, [entry.commit for entry in stored], findings)
    pruned = (
        *_check_orphans(sink, present, stored, findings, prune=prune),
        *_check_hidden(sink, findings, prune=prune),
    )
    return VerifyReport(
        output=sink.root,
        findings=tuple(findings.shown),
        counts={str(kind): count for kind, count in findings.counts.items() if count},
        pruned=pruned,
        closed=closed,
        units=len(groups),
        videos=sum(len(check.keys) for check in checks),
        faces=sum(check.faces for check in checks),
        files=sum(check.files for check in checks),
        bytes_read=sum(check.bytes_read for check in checks),
    )


def _check_run(sink: Storage, findings: Findings) -> str | None:
    """The options digest that `run.json` stands for, or None if it does not tell."""
    uri = sink.uri(RUN)
    try:
        raw = json.loads(sink.read(RUN))
    except MissingObjectError:
        if next(chain(sink.list(COMMITS), sink.list(FACES), sink.list(OUTCOMES)), None) is None:
            raise ValueError(f"{sink.root}: not an output of `fakesift {_KIND}`: it has no {RUN}") from None
        findings.add(Kind.RUN, uri, "nothing", "the options of the run")
        return None
    except (ValueError, RecursionError) as error:
        findings.add(Kind.RUN, uri, error, "a JSON object")
        return None
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if isinstance(kind, str) and kind != _KIND:
        raise ValueError(f"{sink.root}: an output of `fakesift {kind}`, expected one of `fakesift {_KIND}`")
    try:
        run = read_run(sink, _KIND)
        findings.expect(Kind.RUN, uri, "digest", raw.get("digest"), digest_of(run.shaping))
        return digest_of(run.shaping["faces"])
    except (ValueError, KeyError, TypeError) as error:
        findings.add(Kind.RUN, uri, error, "kind, input, shaping and versions")
        return None


def _read_purged(sink: Storage, findings: Findings) -> Purged:
    try:
        return load_purged(sink)
    except ValueError as error:
        findings.add(Kind.PURGE_RECORD, sink.uri(PURGED), error, "a record that can be read")
        return Purged()


def _by_unit(stored: Sequence[StoredCommit]) -> list[list[StoredCommit]]:
    """The generations of each unit in their order; a commit under a name that is not its own stands alone."""
    groups: dict[str, list[StoredCommit]] = {}
    for entry in stored:
        groups.setdefault(entry.commit.unit if entry.key == entry.commit.key else entry.key, []).append(entry)
    return [sorted(group, key=lambda entry: entry.commit.generation) for group in groups.values()]


def _check_twice(uris: Sequence[str], checks: Sequence[UnitCheck], findings: Findings) -> None:
    """Each video in one unit; one finding for each pair of units that share some."""
    if not checks:
        return
    hashes = np.concatenate([check.keys for check in checks])
    owners = np.repeat(np.arange(len(checks)), [len(check.keys) for check in checks])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    pairs = Counter(zip(owners[same].tolist(), owners[same + 1].tolist(), strict=True))
    for (one, other), videos in sorted(pairs.items()):
        findings.add(Kind.VIDEO_TWICE, uris[other], f"{videos} videos of {uris[one]}", "each video in one unit")


def _check_summary(sink: Storage, commits: Sequence[Commit], findings: Findings) -> bool:
    """Compares the accounting and the last listing with the commits; gives whether a job has closed here."""
    summary = json.loads(summarize(commits).to_json())
    raw = _read_object(sink, SUMMARY, Kind.SUMMARY, findings)
    for name in sorted(set(summary) - {"corpus"}) if raw else ():
        findings.expect(Kind.SUMMARY, sink.uri(SUMMARY), name, (raw or {}).get(name), summary[name])
    plan = _read_object(sink, PLAN, Kind.PLAN, findings)
    for name in ("listed", "units") if plan else ():
        findings.expect(Kind.PLAN, sink.uri(PLAN), name, (plan or {}).get(name), summary[name])
    return raw is not None


def _read_object(sink: Storage, key: str, kind: Kind, findings: Findings) -> Mapping[str, Any] | None:
    """A JSON object, empty if it is damaged; None if there is none."""
    try:
        raw = json.loads(sink.read(key))
        if isinstance(raw, dict) and raw:
            return raw
        findings.add(kind, sink.uri(key), type(raw).__name__, "a JSON object")
    except MissingObjectError:
        return None
    except (ValueError, RecursionError) as error:
        findings.add(kind, sink.uri(key), error, "a JSON object")
    return {}


def _check_orphans(
    sink: Storage, present: Sequence[str], stored: Sequence[StoredCommit], findings: Findings, *, prune: bool
) -> tuple[str, ...]:
    """Finds files that no commit names, or removes them and gives their uris."""
    named = {file.key for entry in stored for file in (entry.commit.faces, entry.commit.outcomes) if file is not None}
    orphans = [key for key in present if key not in named]
    kept = ""
    if findings.counts[Kind.COMMIT_DAMAGED]:
        kept = "; not removed while a commit is damaged"
    elif prune and orphans and list(committed_keys(sink)) != [entry.key for entry in stored]:
        kept = "; not removed since a job is writing here"
    if prune and not kept:
        for key in orphans:
            sink.delete(key)
        return tuple(map(sink.uri, orphans))
    for key in orphans:
        findings.add(Kind.ORPHAN, sink.uri(key), f"a file that no commit names{kept if prune else ''}", "none")
    return ()


def _check_hidden(sink: Storage, findings: Findings, *, prune: bool) -> tuple[str, ...]:
    """Finds hidden files that killed writers left, which may hold faces, or removes them and gives their uris."""
    dead = dead_files(sink, remove=prune)
    for uri in () if prune else dead:
        findings.add(Kind.HIDDEN, uri, "a file of a writer that was killed", "none")
    return tuple(dead) if prune else ()
