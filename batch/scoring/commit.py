"""The commit of a scored unit: put if absent and last, it names the unit's files. Nothing else is true about a unit.

    items/date=<night>/<run>.<unit>-<sha>.parquet     one row an item
    tracks/date=<night>/<run>.<unit>-<sha>.parquet    one row a face that was followed
    faces/<run>.<unit>-<sha>.parquet                  kept crops, under the faces contract
    commits/<run>/<unit>.json                         last

Everything that differs when a unit is done twice (timings, hosts) stands in the commit alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from batch.ahead import mapped_ahead
from batch.shards.commit import COMMITS, FACES, DataFile
from batch.storage.base import DamagedError, MissingObjectError, Storage

ITEMS, TRACKS = "items/", "tracks/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCommit:
    """What one unit left behind."""

    run: int
    unit: str
    night: str
    """YYYY-MM-DD."""
    input: str
    bundle: str
    """Digest."""
    options: str
    """Digest of what shapes a score beside the bundle."""
    crops_options: str
    """Digest of the face options: kept crops are read again for a bundle with the same."""
    items: DataFile
    tracks: DataFile | None = None
    faces: DataFile | None = None
    keeps_crops: bool = False
    """Whether every crop is in `faces`, which is None where there was no face."""
    kinds: Mapping[str, int]
    """Items by `scored`, `set_aside`, `fault`."""
    same: int = 0
    """Of them, those that were given the outcome of others with the same content."""
    reasons: Mapping[str, int]
    """Unscored items by reason."""
    bands: Mapping[str, int]
    """Scored items by band."""
    why: Mapping[str, int]
    """Items by `records.Why`."""
    crops: int
    """Faces that the model looked at."""
    histogram: tuple[int, ...]
    """Scored items by probability, in twentieths."""
    bytes_listed: int = 0
    bytes_read: int = 0
    requests: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Extraction's stages, `extract` (wall), `predict`, `write`."""
    started_at: str = ""
    """UTC, ISO 8601."""
    host: str = ""

    @property
    def key(self) -> str:
        """Where it lies under OUTPUT."""
        return f"{run_prefix(self.run)}{self.unit}.json"

    @property
    def listed(self) -> int:
        """Items of the unit."""
        return sum(self.kinds.values())

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files that it names."""
        return tuple(file for file in (self.items, self.tracks, self.faces) if file is not None)

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ScoreCommit:
        """Parses a commit; a `ValueError`, `KeyError` or `TypeError` means that the file is damaged."""
        raw = json.loads(data)
        for name in ("items", "tracks", "faces"):
            raw[name] = None if raw[name] is None else DataFile(**raw[name])
        raw["histogram"] = tuple(raw["histogram"])
        return cls(**raw)


def run_prefix(run: int) -> str:
    """Where the commits of a run lie."""
    return f"{COMMITS}{run:06d}/"


def file_name(run: int, unit: str) -> str:
    """The beginning of the names of a unit's files."""
    return f"{run:06d}.{unit}"


def places(night: str) -> tuple[str, str, str]:
    """Where items, tracks and kept crops of a night lie."""
    return f"{ITEMS}date={night}/", f"{TRACKS}date={night}/", FACES


def commit_unit(sink: Storage, commit: ScoreCommit, contents: Mapping[str, bytes], check: Callable[[], None]) -> bool:
    """Puts the files, then the commit. False if the unit was committed before: then our differing files are removed.

    Args:
        sink: OUTPUT.
        commit: what is put last.
        contents: the bytes of `commit.files` by key.
        check: asked between the two, since files take a while; raises where there is to be no commit.
    """
    for file in commit.files:
        sink.put(file.key, contents[file.key])
    check()
    if sink.put_if_absent(commit.key, commit.to_json()):
        return True
    named = {file.key for winner in read_commits(sink, [commit.key]) for file in winner.files}
    for file in commit.files:
        if file.key not in named:
            sink.delete(file.key)
    return False


def commit_keys(sink: Storage, runs: Iterable[int]) -> Iterator[str]:
    """Keys of all commits of some runs, in order."""
    for run in sorted(runs):
        yield from (item.key for item in sink.list(run_prefix(run)) if item.key.endswith(".json"))


def read_commits(sink: Storage, keys: Iterable[str]) -> Iterator[ScoreCommit]:
    """Reads commits side by side, in the order of `keys`; a few are held ahead of a slow reader.

    Raises:
        DamagedError: for one that cannot be what was written.
    """
    found = mapped_ahead(lambda key: _read(sink, key), keys)
    yield from (commit for commit in found if commit is not None)


def _read(sink: Storage, key: str) -> ScoreCommit | None:
    try:
        data = sink.read(key)
    except MissingObjectError:
        return None
    try:
        return ScoreCommit.from_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"damaged commit {sink.uri(key)}: {error}") from error
