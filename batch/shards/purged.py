"""What was taken down from an output: the records under `purged/`, and whether they cover a video.

A record holds SHA-256 digests of source ids and of video keys, not the names: it has to stay for good, and a file name
may be a person's. The digests are not salted. A later run needs the salt to recognise a video, so it would lie beside
the digests and would not stop somebody who holds the corpus's listing and tries its names; without it, the same
takedown looks the same in every output and can be compared. A digest of a source never equals one of a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from batch.faces.options import digest_of
from batch.records import VideoRef
from batch.shards.commit import sha256
from batch.storage.base import DamagedError, Storage

PURGED = "purged/"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRecord:
    """One takedown: written before anything is removed, and once more when it is finished."""

    version: int = _VERSION
    asked_at: str
    """UTC, ISO 8601."""
    finished_at: str | None = None
    """None until all of it is out of the output."""
    sources: tuple[str, ...]
    """Digests of source ids."""
    videos: tuple[str, ...]
    """Digests of video keys."""
    found_videos: int
    """Videos that were there when it was asked."""

    @property
    def key(self) -> str:
        """`purged/<UTC time>-<digest of what was asked>.json`."""
        time = datetime.fromisoformat(self.asked_at).strftime("%Y%m%dT%H%M%SZ")
        return f"{PURGED}{time}-{digest_of([self.sources, self.videos])}.json"

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PurgeRecord:
        """Parses a record; `ValueError`, `KeyError` or `TypeError` mean that the file is damaged."""
        raw = json.loads(data)
        if raw["version"] != _VERSION:
            raise ValueError(f"version {raw['version']!r}, expected {_VERSION}")
        datetime.fromisoformat(raw["asked_at"])
        for name in ("sources", "videos"):
            if not isinstance(raw[name], list) or not all(isinstance(digest, str) for digest in raw[name]):
                raise ValueError(f"{name}: got {raw[name]!r}, expected digests")
            raw[name] = tuple(raw[name])
        return cls(**raw)

    def finished(self) -> PurgeRecord:
        """The same record, done now; one that was done before stays as it is."""
        return self if self.finished_at else replace(self, finished_at=utc_now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """All that was ever asked to be taken out of an output."""

    sources: frozenset[str] = frozenset()
    """Digests of source ids."""
    videos: frozenset[str] = frozenset()
    """Digests of video keys."""
    records: tuple[PurgeRecord, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was."""
        return bool(self.sources or self.videos)

    def covers(self, video: VideoRef) -> bool:
        """Whether a listed video may not be looked at again."""
        return self.covers_row(video.key, video.source_id)

    def covers_row(self, video_key: str, source_id: str) -> bool:
        """The same for a row of a table."""
        return bool(self) and (source_digest(source_id) in self.sources or video_digest(video_key) in self.videos)

    def asked_for(self, names: Iterable[str]) -> bool:
        """Whether one of these names was asked for before, as a source's or as a video's."""
        return any(source_digest(name) in self.sources or video_digest(name) in self.videos for name in names)

    @property
    def unfinished(self) -> list[PurgeRecord]:
        """What was asked and is not done, or not known to be."""
        return [each for each in self.records if each.finished_at is None]

    def with_record(self, record: PurgeRecord) -> Purged:
        """The same with one record more."""
        return Purged(
            sources=self.sources.union(record.sources),
            videos=self.videos.union(record.videos),
            records=(*self.records, record),
        )


def ask_for(sink: Storage, purged: Purged, names: Iterable[str], found_videos: int) -> tuple[Purged, str | None]:
    """Records that videos of these uris or keys are to go, unless all of them were asked for before.

    Gives what is asked for now, and the uri of the new record.
    """
    digests = tuple(sorted({video_digest(name) for name in names}))
    if purged.videos.issuperset(digests):
        return purged, None
    record = PurgeRecord(asked_at=utc_now(), sources=(), videos=digests, found_videos=found_videos)
    sink.put(record.key, record.to_json())
    return purged.with_record(record), sink.uri(record.key)


def load_purged(sink: Storage) -> Purged:
    """What may not come into an output again. Empty where nothing was purged.

    Raises:
        DamagedError: for a damaged record. To go on without it could bring back what was taken down.
    """
    purged = Purged()
    for item in sink.list(PURGED):
        try:
            record = PurgeRecord.from_json(sink.read(item.key))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"damaged purge record {sink.uri(item.key)}: {error}") from error
        if record.key != item.key:
            raise DamagedError(f"damaged purge record {sink.uri(item.key)}: its content belongs to {record.key}")
        purged = purged.with_record(record)
    return purged


def source_digest(source_id: str) -> str:
    """SHA-256 of a source id, in hex."""
    return sha256(b"source\0" + source_id.encode("utf-8", "surrogatepass"))


def video_digest(video_key: str) -> str:
    """SHA-256 of a video's key, in hex."""
    return sha256(b"video\0" + video_key.encode("utf-8", "surrogatepass"))


def utc_now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
