"""A run's commits in, what its page names one by one out: the most suspicious items, and some of the unscored.

One pass in fixed memory, whatever the run's size: a heap of K rows, and a few rows a reason. A unit whose histogram
has nothing to offer is not opened at all. What the bundle calls likely real is never among the suspicious: nobody has
to look at those faces.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch.model.thresholds import Band
from batch.records import Box
from batch.schemas import ITEMS_VERSION, TRACKS_VERSION
from batch.scoring.commit import ScoreCommit, read_commits
from batch.scoring.digests import as_digests
from batch.scoring.ledger import LedgerFile, ledger_tables, read_groups
from batch.scoring.tables import BINS
from batch.scoring.twins import with_marks
from batch.shards.commit import DataFile
from batch.storage.base import Storage

MOST_SUSPECTS = 24
ROWS_A_REASON = 8
_MOST_TRACKS = 4
_LIKELY_REAL: Band = "likely real"
_COLUMNS = (
    "uri", "input", "key", "media", "size_bytes", "etag", "probability", "uncertainty", "band", "reason", "detail",
    "tracks", "faces", "frames_seen", "top_track", "same_as", "duration_s", "width_px", "height_px", "fingerprint",
    "bundle", "options",
)  # fmt: skip


_LEDGER_COLUMNS = ("uri", "etag", "fingerprint", "bundle", "options", "run", "unit", "same_as")
_NOT_SHOWN = frozenset({"reason", "detail", "top_track", "fingerprint", "bundle", "options"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScore:
    """A face in one frame."""

    frame_index: int
    pts_s: float
    probability: float
    face_box_px: Box
    crop_box_px: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A face that was followed through an item."""

    track_id: int
    probability: float
    uncertainty: float | None
    """Standard error over its frames; None for a single one."""
    frames: tuple[FrameScore, ...]
    """In order of time."""

    @property
    def top(self) -> FrameScore:
        """The frame that looks most like a fake; the first of equal ones."""
        return max(self.frames, key=lambda frame: frame.probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An item that a person should look at."""

    uri: str
    input: str
    key: str
    media: str
    size_bytes: int
    etag: str
    probability: float
    uncertainty: float | None
    band: str
    faces: int
    tracks: int
    frames_seen: int
    same_as: str | None
    """The item that was scored in its stead, if it was on an earlier night: `followed` is from there."""
    duration_s: float | None
    width_px: int | None
    height_px: int | None
    others: int = 0
    """Further items of this run with the same content."""
    followed: tuple[Followed, ...] = ()
    """Up to four, the most suspicious first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """An item without a score."""

    uri: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What of a run is named one by one."""

    suspects: tuple[Suspect, ...]
    """The most suspicious first."""
    unscored: Mapping[str, tuple[Unscored, ...]]
    """Up to `ROWS_A_REASON` by reason."""


@dataclass(slots=True)
class _Held:
    """A row in the heap."""

    row: dict[str, Any]
    tracks: DataFile | None
    others: int = 0


def find(
    sink: Storage, commits: Iterable[ScoreCommit], *, files: Sequence[LedgerFile] = (), most: int = MOST_SUSPECTS
) -> Findings:
    """Goes through a run.

    `files` are the ledger of earlier ones, where copies of what was scored then have their frames.

    Raises:
        DamagedError: for a table that cannot be what was written.
    """
    top = _Top(most)
    unscored: dict[str, list[Unscored]] = defaultdict(list)
    for commit in commits:
        lacking = {name for name in commit.reasons if len(unscored[name]) < ROWS_A_REASON}
        if not lacking and not top.may_want(commit):
            continue
        for group in read_groups(sink, commit.items, ITEMS_VERSION, _COLUMNS):
            for row in group.filter(top.mask(group)).to_pylist():
                top.offer(row, commit.tracks)
            for row in group.filter(
                pc.is_in(group["reason"], value_set=pa.array(sorted(lacking), pa.string()))
            ).to_pylist():
                if len(unscored[row["reason"]]) < ROWS_A_REASON:
                    unscored[row["reason"]].append(Unscored(uri=row["uri"], detail=row["detail"]))
    return Findings(
        suspects=_with_tracks(sink, top.ranked(), files),
        unscored={name: tuple(rows) for name, rows in unscored.items() if rows},
    )


class _Top:
    """The K most suspicious contents. What fell out never comes back, since the bound only rises."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, _Held] = {}
        self._order: list[tuple[float, str]] = []
        """Rising."""

    def may_want(self, commit: ScoreCommit) -> bool:
        """Whether a unit may hold a row for it."""
        if not sum(count for band, count in commit.bands.items() if band != _LIKELY_REAL):
            return False
        if len(self._order) < self._most:
            return True
        # A probability is stored in half the digits that it is counted in: one bin of grace.
        return any(commit.histogram[max(0, int(self._bound * BINS) - 1) :])

    def mask(self, group: pa.Table) -> pa.ChunkedArray:
        """Rows of a group that may be wanted."""
        suspicious = pc.and_kleene(pc.is_valid(group["probability"]), pc.not_equal(group["band"], _LIKELY_REAL))
        return pc.and_kleene(suspicious, pc.greater_equal(group["probability"], pa.scalar(self._bound, pa.float32())))

    def offer(self, row: dict[str, Any], tracks: DataFile | None) -> None:
        """Takes a row if it is among the K; of rows with equal content the one that was looked at itself."""
        name = row["fingerprint"] or f"{row['uri']}\n{row['etag']}"
        if name in self._held:
            held = self._held[name]
            held.others += 1
            if held.row["same_as"] is not None and row["same_as"] is None:
                held.row, held.tracks = row, tracks
            return
        place = (row["probability"], name)
        if len(self._order) >= self._most and place <= self._order[0]:
            return
        bisect.insort(self._order, place)
        self._held[name] = _Held(row, tracks)
        if len(self._order) > self._most:
            del self._held[self._order.pop(0)[1]]

    def ranked(self) -> list[_Held]:
        """The most suspicious first."""
        return [self._held[name] for _, name in reversed(self._order)]

    @property
    def _bound(self) -> float:
        return self._order[0][0] if len(self._order) >= self._most else 0.0


def _with_tracks(sink: Storage, ranked: Sequence[_Held], files: Sequence[LedgerFile]) -> tuple[Suspect, ...]:
    """Their rows of the tracks tables: a file for each unit that one of them, or what it is a copy of, is of."""
    originals = _originals(sink, [held for held in ranked if held.row["same_as"] is not None], files)
    looked = [
        originals.get(_name(held.row), _Original(held.row["uri"], held.row["etag"], held.tracks)) for held in ranked
    ]
    uris = pa.array(sorted({each.uri for each in looked}), pa.string())
    followed: dict[tuple[str, str, str], list[Followed]] = defaultdict(list)
    for file in {each.tracks.key: each.tracks for each in looked if each.tracks is not None}.values():
        for group in read_groups(sink, file, TRACKS_VERSION):
            for row in group.filter(pc.is_in(group["uri"], value_set=uris)).to_pylist():
                followed[file.key, row["uri"], row["etag"]].append(_followed(row))
    return tuple(
        replace(_suspect(held), followed=_most_suspicious(followed.get(each.place, [])))
        for held, each in zip(ranked, looked, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Original:
    """What was looked at itself."""

    uri: str
    etag: str
    tracks: DataFile | None

    @property
    def place(self) -> tuple[str, str, str]:
        """Of its tracks: file, uri, etag."""
        return self.tracks.key if self.tracks else "", self.uri, self.etag


def _originals(sink: Storage, copies: Sequence[_Held], files: Sequence[LedgerFile]) -> dict[_Name, _Original]:
    """By the name of the copy: one pass over the ledger of earlier runs, if there is a copy."""
    if not copies:
        return {}
    names = {(held.row["same_as"], *_name(held.row)[1:]): _name(held.row) for held in copies}
    marks = as_digests([bytes.fromhex(held.row["fingerprint"]) for held in copies])
    marks.sort()
    found: dict[_Name, tuple[dict[str, Any], str]] = {}
    for table in ledger_tables(sink, files, _LEDGER_COLUMNS):
        looked_at = table.filter(table["same_as"].is_null())  # itself: a copy has no frames of its own
        for row in with_marks(looked_at, marks).to_pylist():
            name = names.get(_name({**row, "fingerprint": row["fingerprint"].hex()}))
            if name is not None:
                found[name] = row, f"commits/{row['run']:06d}/{row['unit']}.json"
    tracks = {commit.key: commit.tracks for commit in read_commits(sink, sorted({key for _, key in found.values()}))}
    return {name: _Original(row["uri"], row["etag"], tracks.get(key)) for name, (row, key) in found.items()}


_Name = tuple[str, str, str, str]


def _name(row: Mapping[str, Any]) -> _Name:
    """What tells a look from others: uri, content, and what it was scored with."""
    return row["uri"], row["fingerprint"], row["bundle"], row["options"]


def _most_suspicious(followed: Sequence[Followed]) -> tuple[Followed, ...]:
    return tuple(sorted(followed, key=lambda track: (-track.probability, track.track_id))[:_MOST_TRACKS])


def _suspect(held: _Held) -> Suspect:
    own = {name: held.row[name] for name in _COLUMNS if name not in _NOT_SHOWN}
    return Suspect(**own, others=held.others)


def _followed(row: Mapping[str, Any]) -> Followed:
    frames = tuple(
        FrameScore(
            frame_index=frame["frame_index"],
            pts_s=frame["pts_s"],
            probability=frame["probability"],
            face_box_px=Box(**frame["face_box_px"]),
            crop_box_px=Box(**frame["crop_box_px"]),
        )
        for frame in row["frames"]
    )
    return Followed(
        track_id=row["track_id"], probability=row["probability"], uncertainty=row["uncertainty"], frames=frames
    )
