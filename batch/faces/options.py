"""The options that shape face crops: one frozen value that preprocessing, evaluation and scoring share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from batch.faces.detect import DetectOptions

MIN_CROP_PX, MAX_CROP_PX = 16, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class CropOptions:
    """How a detected face becomes a picture."""

    crop_size: int = 224
    """Side of the square crop in pixels."""
    margin: float = 0.15
    """Share of the face box's longer side that is added on every side."""
    border: Literal["replicate", "clip"] = "replicate"
    """What happens at the frame's edge. `replicate`: the square window is moved into the frame, and where it is
    larger than the frame the edge pixels are repeated. `clip`: the window is cut at the edge and what is left is
    stretched to the square, as slicing an array does."""
    encoding: Literal["png", "jpeg"] = "png"
    """PNG keeps the compression artefacts of the video as they are; JPEG (quality 95) adds its own."""

    def __post_init__(self) -> None:
        """Refuses values that no crop can have."""
        if not MIN_CROP_PX <= self.crop_size <= MAX_CROP_PX:
            raise ValueError(f"crop size: got {self.crop_size}, expected {MIN_CROP_PX} to {MAX_CROP_PX} pixels")
        if not 0 <= self.margin <= 2:
            raise ValueError(f"margin: got {self.margin}, expected 0 to 2 (a share of the face's side)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOptions:
    """Everything that decides which pixels become a face crop. Two runs with equal options give equal bytes."""

    frames: int | Literal["first"] = "first"
    """`first`, or the number of evenly spaced frames."""
    faces: Literal["one", "all"] = "one"
    """`one`: a video with no face or several in its frames is set aside. `all`: every face is kept."""
    detect: DetectOptions = field(default_factory=DetectOptions)
    crop: CropOptions = field(default_factory=CropOptions)

    def __post_init__(self) -> None:
        """Refuses a number of frames that cannot be."""
        if self.frames != "first" and not 1 <= self.frames <= 10_000:
            raise ValueError(f"frames: got {self.frames}, expected `first` or a number from 1 to 10000")

    @property
    def frame_count(self) -> int:
        """Frames looked at in each video."""
        return 1 if self.frames == "first" else self.frames

    def digest(self) -> str:
        """16 hex digits that differ whenever an option differs."""
        return digest_of(asdict(self))


def digest_of(value: object) -> str:
    """16 hex digits of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


REFERENCE = FaceOptions(
    detect=DetectOptions(detector="hog", min_face=0.01), crop=CropOptions(margin=0.0, border="clip")
)
"""The recipe that this project starts from: first frame, dlib's HOG as `face_recognition` calls it, the box as it
is, scaled to 224 x 224."""
