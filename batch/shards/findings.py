"""What verification finds: the kinds of damage, and a bounded list of single findings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

SHOWN_PER_KIND = 50


class Kind(StrEnum):
    """What can be wrong with an output."""

    RUN = "run_damaged"
    COMMIT_DAMAGED = "commit_damaged"
    COMMIT_NAME = "commit_name"
    COMMIT_COUNTS = "commit_counts"
    OPTIONS = "options_differ"
    FILE_NAME = "file_name"
    FILE_MISSING = "file_missing"
    FILE_SIZE = "file_size"
    FILE_DIGEST = "file_digest"
    FILE_UNREADABLE = "file_unreadable"
    SCHEMA = "schema"
    ROWS = "rows"
    OUTCOME = "outcome_unknown"
    FACE_ID = "face_id"
    FACE_VIDEO = "face_of_no_kept_video"
    FACE_COUNT = "face_count"
    VIDEO_TWICE = "video_twice"
    RETRY = "retry_of_no_fault"
    PURGED = "purged_left"
    PURGE_RECORD = "purge_record_damaged"
    SUMMARY = "summary_differs"
    PLAN = "plan_differs"
    ORPHAN = "orphan"
    HIDDEN = "hidden_file"
    STRAY = "stray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not hold."""

    kind: Kind
    uri: str
    found: str
    expected: str


@dataclass(slots=True)
class Findings:
    """The first findings of each kind, and the number of all: bounded, however broken the output is."""

    shown: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)

    def add(self, kind: Kind, uri: str, found: object, expected: object) -> None:
        """Counts one, and holds it if few of its kind are held."""
        if self.counts[kind] < SHOWN_PER_KIND:
            self.shown.append(Finding(kind=kind, uri=uri, found=str(found), expected=str(expected)))
        self.counts[kind] += 1

    def expect(self, kind: Kind, uri: str, name: str, found: object, expected: object) -> None:
        """Adds one if a named value is not what it should be."""
        if found != expected:
            self.add(kind, uri, f"{name} {found}", expected)

    def merge(self, other: Findings) -> None:
        """Takes in what was found elsewhere."""
        room = {kind: SHOWN_PER_KIND - self.counts[kind] for kind in other.counts}
        for finding in other.shown:
            if room[finding.kind] > 0:
                room[finding.kind] -= 1
                self.shown.append(finding)
        self.counts.update(other.counts)
