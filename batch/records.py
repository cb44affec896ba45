"""The values that pass between stages: frozen dataclasses, no behaviour beyond what is derived from their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]
"""Pixels as uint8, shape (height, width, 3), channel order red, green, blue."""

LumaImage = npt.NDArray[np.uint8]
"""Brightness as uint8, shape (height, width)."""


class Reason(StrEnum):
    """Why a video has the outcome that it has. Every listed video ends with exactly one."""

    KEPT = "kept"
    # Set aside for its content: final.
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_TOO_SMALL = "face_too_small"
    # Faults: can be retried alone.
    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NO_VIDEO_STREAM = "no_video_stream"
    FRAME_TOO_LARGE = "frame_too_large"
    DECODER_CRASHED = "decoder_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    STORAGE_ERROR = "storage_error"

    @property
    def is_content(self) -> bool:
        """True for a set-aside reason: the file is sound, its content is not wanted."""
        return self in _CONTENT

    @property
    def is_fault(self) -> bool:
        """True if the file could not be looked at."""
        return self is not Reason.KEPT and self not in _CONTENT

    @property
    def kind(self) -> str:
        """`kept`, `set_aside` or `fault`."""
        return "kept" if self is Reason.KEPT else "set_aside" if self.is_content else "fault"


_CONTENT = frozenset({Reason.NO_FACE, Reason.SEVERAL_FACES, Reason.FACE_TOO_SMALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a listing."""

    key: str
    """Path relative to the listed root, `/` between folders."""
    size_bytes: int
    etag: str
    """Changes whenever the content changes: the store's ETag, or size and modification time of a local file."""
    modified_s: float = 0.0
    """When it was last written, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRef:
    """One listed video with what its corpus says of it."""

    key: str
    """Path relative to INPUT: the video's id."""
    size_bytes: int
    etag: str
    part: str
    """First folder of the key, empty for a file directly in INPUT."""
    label: int | None
    """1 = fake, 0 = real, None = unknown."""
    source_id: str
    """The original's id for a fake, its own for a real: the group that no split may cut."""
    split: str | None = None
    """The corpus's own split, if it names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """Videos that one task looks at and that share one shard."""

    id: str
    videos: tuple[VideoRef, ...]
    generation: int = 0
    """n for the n-th retry of the unit, which holds the retried videos alone."""
    replaces: Mapping[str, int] = field(default_factory=dict)
    """For a retry: its videos by their outcome until now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels of the upright original frame; right and bottom are exclusive. May leave the frame."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A face that a detector found."""

    box_px: Box
    score: float | None
    """The detector's own confidence, not comparable between detectors; None if it gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What the container says of a video's picture."""

    duration_s: float | None
    fps: float | None
    """Average frames a second."""
    codec: str
    width_px: int
    """Upright: after the rotation that the file asks for."""
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRow:
    """One face crop with where it comes from: a row of the faces table."""

    video: VideoRef
    media: MediaInfo
    frame_index: int
    pts_s: float
    track_id: int
    image: bytes
    face_box_px: Box
    crop_box_px: Box
    detector: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What looking at a video took. Kept in commits alone, since it differs from run to run."""

    bytes_read: int = 0
    requests: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage: `read` (waited for), `open`, `decode`, `detect`, `crop`, `encode`; and `hidden`, reading that other
    clips' work hid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """What came of one video."""

    video: VideoRef
    reason: Reason
    detail: str = ""
    """One line for a person: what was found, or the error."""
    media: MediaInfo | None = None
    decoded_by: str | None = None
    """`key_packet` or `stream`: how the frames were reached (see faces.decode)."""
    faces_found: int = 0
    frames_seen: int = 0
    faces: tuple[FaceRow, ...] = ()
    example: bytes | None = None
    """A small JPEG of the frame, for set-aside videos, so that a page can show why."""
    cost: Cost = field(default_factory=Cost)
