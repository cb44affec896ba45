"""The values that pass between the stages of scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from batch.faces.options import FaceOptions, digest_of
from batch.model.golden import Precision
from batch.records import Reason, VideoRef, VideoResult

RETRIED = frozenset({Reason.STORAGE_ERROR, Reason.TIMEOUT})
"""Faults that another night may not meet again. All others come of the file, and wait until its etag changes."""

MOST_ATTEMPTS = 4
"""The first look, and one on each of the next three nights."""


class Why(StrEnum):
    """Why a listed object is looked at in this run."""

    NEW = "new"
    CHANGED = "changed"
    """Looked at before with another etag."""
    RESCORED = "rescored"
    """Looked at before, with another bundle or other options."""
    RETRIED = "retried"
    """The store failed, or time ran out, on an earlier night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """What shapes a score beside the bundle: equal digests of both give equal scores.

    But for what the bundle tolerates of that precision, in logits: an actor computes the stored golden inputs before
    it scores. So the runtime is no part of it, and what one has scored in float32 another need not score again.
    """

    faces: FaceOptions
    """The bundle's, but every face of N frames."""
    precision: Precision = "float32"

    def digest(self) -> str:
        """16 hex digits."""
        return digest_of([self.faces.digest(), self.precision])


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object to be scored."""

    input: int
    """Its place in the list of INPUTs."""
    key: str
    """Relative to that INPUT."""
    size_bytes: int
    etag: str
    modified_s: float
    why: Why = Why.NEW
    attempt: int = 1
    kept: str | None = None
    """`<run>/<unit>` of the commit that kept its crops, if one did."""
    fingerprint: bytes | None = None
    """16 bytes, equal for equal content; None if it could not be read."""

    @property
    def video(self) -> VideoRef:
        """As extraction takes it."""
        return VideoRef(
            key=self.key, size_bytes=self.size_bytes, etag=self.etag, part="", label=None, source_id=self.key
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreUnit:
    """Items of one INPUT that are extracted, scored and committed together."""

    id: str
    input: int
    items: tuple[Item, ...]
    kept: str | None = None
    """The commit whose kept crops are read instead of the items themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A unit's items after extraction."""

    results: tuple[VideoResult, ...]
    """One an item, in the unit's order. Their faces hold encoded pictures only where crops are kept."""
    crops: npt.NDArray[np.uint8]
    """All faces of all results in their order, RGB, shape (faces, side, side, 3)."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """`wall`, and extraction's stages summed."""
    recalled: bool = False
    """Whether these are kept crops, which need not be kept again."""


def tells_of_content(reason: str | None) -> bool:
    """Whether an outcome comes of what is in a file: a score (no reason), or a reason that sets a sound file aside.

    A fault may come of the decoder, of memory or of the store, so that equal content need not share it.
    """
    return reason is None or Reason(reason).is_content
