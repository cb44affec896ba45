"""INPUTs in, their videos and images out: a filter over a listing that holds a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from batch.corpus.listing import VIDEO_SUFFIXES
from batch.faces.images import IMAGE_SUFFIXES
from batch.records import StoredObject
from batch.storage.base import Storage

MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """Which listed objects are of interest. What is filtered out is neither scored nor counted as vanished."""

    since: datetime | None = None
    """Written then or later."""
    until: datetime | None = None
    """Written before."""
    include: tuple[str, ...] = ()
    """Shell patterns (`*` matches slashes too) of keys under an INPUT, of which one must match; none lets all pass."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of which none may match."""

    def __post_init__(self) -> None:
        """Refuses an empty span."""
        if self.since and self.until and self.since >= self.until:
            raise ValueError(f"since {self.since.isoformat()} is not before until {self.until.isoformat()}")

    def takes(self, item: StoredObject) -> bool:
        """Whether an object is of interest."""
        if self.since and item.modified_s < self.since.timestamp():
            return False
        if self.until and item.modified_s >= self.until.timestamp():
            return False
        if self.include and not any(fnmatchcase(item.key, pattern) for pattern in self.include):
            return False
        return not any(fnmatchcase(item.key, pattern) for pattern in self.exclude)


def parse_time(text: str, name: str) -> datetime:
    """A date or time in ISO 8601; UTC where it names no zone. Raises `ValueError`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: got {text!r}, expected a date or time as 2026-03-01 or 2026-03-01T22:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def list_media(source: Storage) -> Iterator[StoredObject]:
    """All objects with a video's or an image's suffix (any case), in binary key order."""
    return (item for item in source.list() if item.key.lower().endswith(MEDIA_SUFFIXES))


def media_of(key: str) -> str:
    """`image` or `video`, by the suffix."""
    return "image" if key.lower().endswith(IMAGE_SUFFIXES) else "video"


def refuse_overlaps(inputs: Sequence[Storage]) -> None:
    """Raises `ValueError` if an INPUT is given twice or lies inside another: objects would be scored twice."""
    for number, one in enumerate(inputs):
        for other in inputs[number + 1 :]:
            for outer, inner in ((one, other), (other, one)):
                if inner.root == outer.root or inner.root.startswith(outer.root.rstrip("/") + "/"):
                    raise ValueError(f"input {inner.root}: the same as the input {outer.root}, or inside of it")
