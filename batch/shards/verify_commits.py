"""The objects under `commits/` in, those that are commits out, with what is wrong with the others.

Unlike `commit.read_commits`, which stops at the first damaged commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from batch.records import Reason
from batch.shards.commit import COMMITS, Commit, DataFile
from batch.shards.findings import Findings, Kind
from batch.storage.base import MissingObjectError, Storage

_READERS = 16
_LABELS = frozenset({"real", "fake", "unknown"})


@dataclass(frozen=True, slots=True)
class StoredCommit:
    """A commit and the key that it was read from, which in a damaged output need not be its own."""

    key: str
    commit: Commit


def read_stored(sink: Storage, findings: Findings) -> list[StoredCommit]:
    """All commits that can be read, in key order; the others and what else lies there are found."""
    keys = []
    for item in sink.list(COMMITS):
        if item.key.endswith(".json"):
            keys.append(item.key)
        else:
            findings.add(Kind.STRAY, sink.uri(item.key), "an object that is no commit", "commits alone")
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(lambda key: _parse(sink, key), keys))
    stored = []
    for key, commit in zip(keys, read, strict=True):
        if isinstance(commit, str):
            findings.add(Kind.COMMIT_DAMAGED, sink.uri(key), commit, "a commit")
        elif commit is not None:
            findings.expect(Kind.COMMIT_NAME, sink.uri(key), "content of", commit.key, key)
            stored.append(StoredCommit(key, commit))
    return stored


def _parse(sink: Storage, key: str) -> Commit | str | None:
    """The commit, what is wrong with it, or None where it has vanished since it was listed."""
    try:
        commit = Commit.from_json(sink.read(key))
        return _problem(commit) or commit
    except MissingObjectError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def _problem(commit: Commit) -> str | None:
    """What in a commit has not the form that readers rely on, or None: parsing alone lets any JSON value through."""
    files: Iterator[DataFile] = (file for file in (commit.faces, commit.outcomes) if file is not None)
    words = {"unit": commit.unit, "options_digest": commit.options_digest, "host": commit.host}
    numbers: dict[str, object] = {
        name: getattr(commit, name) for name in ("generation", "listed", "bytes_listed", "bytes_read", "requests")
    }
    for file in files:
        words |= {f"key of {file.key}": file.key, f"sha256 of {file.key}": file.sha256}
        numbers |= {f"size of {file.key}": file.size_bytes, f"rows of {file.key}": file.rows}
    wrong = [name for name, value in words.items() if not isinstance(value, str)]
    wrong += [name for name, value in numbers.items() if not isinstance(value, int) or value < 0]
    for name, known in _COUNTED.items():
        counts = getattr(commit, name)
        if not isinstance(counts, dict) or not all(known(key) and isinstance(n, int) for key, n in counts.items()):
            wrong.append(name)
    seconds = commit.seconds
    if not isinstance(seconds, dict) or not all(isinstance(value, int | float) for value in seconds.values()):
        wrong.append("seconds")
    try:
        datetime.fromisoformat(commit.started_at)
    except (ValueError, TypeError):
        wrong.append("started_at")
    return f"wrong values of {', '.join(wrong)}" if wrong else None


def _is_reason(name: str) -> bool:
    return name in set(Reason)


_COUNTED: Mapping[str, Callable[[str], bool]] = {
    "reasons": _is_reason,
    "replaces": _is_reason,
    "labels": _LABELS.__contains__,
}
