"""The commit of a unit: a small JSON file, put if absent and last, that names the unit's shard and outcomes.

A commit is the only truth about a unit: files that no commit names do not exist for readers, and are removed when
the job closes. Everything that differs from run to run (timings, hosts, requests) stands here alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from batch.ahead import mapped_ahead
from batch.storage.base import DamagedError, MissingObjectError, Storage

COMMITS = "commits/"
FACES = "faces/"
OUTCOMES = "outcomes/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A Parquet file named by its own content."""

    key: str
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one attempt at a unit left behind."""

    unit: str
    generation: int
    """0 for the first look, n for the n-th retry of the unit's faults."""
    options_digest: str
    outcomes: DataFile
    faces: DataFile | None
    """None where the unit gave no face."""
    listed: int
    reasons: Mapping[str, int]
    """Videos by outcome; sums to `listed`."""
    replaces: Mapping[str, int] = field(default_factory=dict)
    """For a retry: its videos by the outcome that they had before."""
    labels: Mapping[str, int]
    """Face rows by label: `real`, `fake`, `unknown`."""
    bytes_listed: int
    bytes_read: int
    requests: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage, `hidden` for reading that went on beside them, and `wall` for the whole unit."""
    started_at: str
    """UTC, ISO 8601."""
    host: str

    @property
    def key(self) -> str:
        """Where the commit lies under OUTPUT."""
        return commit_key(self.unit, self.generation)

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Commit:
        """Parses a commit; a `ValueError` or `KeyError` means that the file is damaged."""
        raw = json.loads(data)
        faces = raw["faces"]
        raw["outcomes"] = DataFile(**raw["outcomes"])
        raw["faces"] = None if faces is None else DataFile(**faces)
        return cls(**raw)


def unit_name(unit: str, generation: int) -> str:
    """`<unit>`, or `<unit>.r<n>` for the n-th retry: the beginning of all its files' names."""
    return unit if generation == 0 else f"{unit}.r{generation}"


def commit_key(unit: str, generation: int) -> str:
    """`commits/<unit>.json`, or `commits/<unit>.r<n>.json` for the n-th retry."""
    return f"{COMMITS}{unit_name(unit, generation)}.json"


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def committed_keys(sink: Storage) -> Iterator[str]:
    """Keys of all commits under OUTPUT, in key order."""
    return (item.key for item in sink.list(COMMITS) if item.key.endswith(".json"))


def read_commits(sink: Storage, keys: Iterable[str] | None = None) -> Iterator[Commit]:
    """Reads commits side by side, in the order of `keys` (default: all).

    A commit that vanishes between listing and reading is passed over; a damaged one raises `DamagedError`. A few are
    held ahead of a slow reader, however many there are.
    """
    found = mapped_ahead(lambda key: _read(sink, key), committed_keys(sink) if keys is None else keys)
    yield from (commit for commit in found if commit is not None)


def _read(sink: Storage, key: str) -> Commit | None:
    try:
        data = sink.read(key)
    except MissingObjectError:
        return None
    try:
        return Commit.from_json(data)
    except (ValueError, KeyError, TypeError) as error:
        again = f"{sink.uri(key.removesuffix('.json').split('.r', 1)[0])}*.json"
        raise DamagedError(
            f"damaged commit {sink.uri(key)}: {error}; see `fakesift verify`, or remove {again} and run the job again"
        ) from error
