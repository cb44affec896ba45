"""A frame in, the faces that it shows out: the protocol, its options, and the two detectors of the reference recipe.

`hog` gives the boxes of `face_recognition.face_locations(rgb)` and `cnn` those of its `model="cnn"`, pixel for pixel;
both call dlib as that package does, since importing it loads 100 MB of models that nothing here needs (1.9 s), and
since dlib gives the scores that it drops. `cascade`, the default, stands in `batch/faces/cascade.py`.

Measured by `tests/benchmarks/detectors.py`, which prints speed, recall and agreement of all three.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from batch.records import Box, Detection, LumaImage, RgbImage

DetectorName = Literal["cascade", "hog", "cnn"]

MAX_UPSAMPLE = 3
# A 1080p frame upsampled once takes the network about 5 GB of GPU memory.
_CNN_BATCH_PX = 16_000_000
# Frames of one clip that are held at once for it: 25 MB at 1080p, decoded.
_CNN_BATCH_FRAMES = 8

_log = logging.getLogger(__name__)


class Frame(Protocol):
    """One upright frame. Both pictures are made when first asked for, and kept."""

    @property
    def width_px(self) -> int:
        """Width after the rotation that the file asks for."""

    @property
    def height_px(self) -> int:
        """Height after the rotation that the file asks for."""

    def luma(self) -> LumaImage:
        """Brightness, uint8 (height, width), in the range that the video uses (mostly 16 to 235)."""

    def rgb(self) -> RgbImage:
        """Colour, uint8 (height, width, 3)."""


class Detector(Protocol):
    """Finds faces. Loaded once a process; not safe to call from two threads at a time."""

    @property
    def name(self) -> str:
        """As in `DetectOptions.detector`."""

    @property
    def batch_frames(self) -> int:
        """How many frames `detect_many` is to be given at once: more than one where that saves time."""

    def detect(self, frame: Frame) -> list[Detection]:
        """The faces of one frame, best first where there are scores. Boxes lie within the frame."""

    def detect_many(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of several frames, in their order; the same as `detect` on each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """Which detector, and how small a face it looks for."""

    detector: DetectorName = "cascade"
    """`cascade`: proposals of a small network, confirmed by dlib's HOG. `hog`: dlib's HOG over the whole frame, the
    reference. `cnn`: dlib's network, for GPUs."""
    min_face: float = 0.05
    """Smallest face of interest, as a share of the frame's shorter side. `cascade` does not look for smaller ones."""
    upsample: int = 1
    """How often `hog` and `cnn` double the frame before they look."""
    recheck_empty: bool = False
    """Where `cascade` finds nothing, let dlib's HOG search the whole frame for faces of `min_face` and up, not for
    close-ups alone. Costs 100 to 200 ms on each such frame."""

    def __post_init__(self) -> None:
        """Refuses values that no detector can work with."""
        if self.detector not in get_args(DetectorName):
            expected = ", ".join(get_args(DetectorName))
            raise ValueError(f"detector: got {self.detector!r}, expected one of {expected}")
        if not 0.01 <= self.min_face <= 1:
            raise ValueError(f"smallest face: got {self.min_face}, expected 0.01 to 1 of the shorter side")
        if not 0 <= self.upsample <= MAX_UPSAMPLE:
            raise ValueError(f"upsample: got {self.upsample}, expected 0 to {MAX_UPSAMPLE} doublings")


@cache
def make_detector(options: DetectOptions) -> Detector:
    """The detector that the options ask for, loaded once a process."""
    if options.detector == "hog":
        return HogDetector(options)
    if options.detector == "cnn":
        return CnnDetector(options)
    # Here, since only this detector needs OpenCV and the network's runtime.
    from batch.faces.cascade import CascadeDetector

    return CascadeDetector(options)


class HogDetector:
    """dlib's frontal face detector (Dalal and Triggs' HOG, five poses) over the whole RGB frame, one thread."""

    name = "hog"
    batch_frames = 1

    def __init__(self, options: DetectOptions) -> None:
        """Loads the detector, 10 ms."""
        import dlib

        self._hog: Any = dlib.get_frontal_face_detector()
        self._upsample = options.upsample

    def detect(self, frame: Frame) -> list[Detection]:
        """The boxes of `face_recognition.face_locations`, with dlib's scores (above 0; 1 is a plain face)."""
        # dlib takes an array whose rows are padded for one without, and finds nothing in the sheared picture.
        rgb = np.ascontiguousarray(frame.rgb())
        rects, scores, _ = self._hog.run(rgb, self._upsample, 0.0)
        return [
            Detection(box_px=box_of(rect, frame), score=float(score)) for rect, score in zip(rects, scores, strict=True)
        ]

    def detect_many(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """One after the other: nothing is shared between frames."""
        return [self.detect(frame) for frame in frames]


class CnnDetector:
    """dlib's max-margin CNN (King, "Max-Margin Object Detection", 2015), in batches where dlib has CUDA."""

    name = "cnn"

    def __init__(self, options: DetectOptions, *, batches: bool | None = None) -> None:
        """Loads the network; says how slow it is where dlib was built without CUDA.

        `batches`: whether `detect_many` gives dlib several frames at once; by default only with CUDA, since on a CPU
        it takes memory and saves no time.
        """
        import dlib

        self._net: Any = dlib.cnn_face_detection_model_v1(str(_cnn_model_path()))
        self._upsample = options.upsample
        self._batches = bool(dlib.DLIB_USE_CUDA) if batches is None else batches
        self.batch_frames = _CNN_BATCH_FRAMES if self._batches else 1
        if not dlib.DLIB_USE_CUDA:
            _log.warning(
                "dlib was built without CUDA: the cnn detector takes seconds to a minute a frame on a CPU, "
                "and gigabytes at 1080p; use cascade or hog, or the GPU image"
            )

    def detect(self, frame: Frame) -> list[Detection]:
        """The boxes of `face_recognition.face_locations(model="cnn")`, with the network's confidence."""
        return _cnn_detections(self._net(np.ascontiguousarray(frame.rgb()), self._upsample), frame)

    def detect_many(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """In batches where all frames have one size, bounded by pixels; else one after the other."""
        sizes = {(frame.width_px, frame.height_px) for frame in frames}
        if not self._batches or len(sizes) != 1:
            return [self.detect(frame) for frame in frames]
        width, height = sizes.pop()
        size = max(1, _CNN_BATCH_PX // (width * height * 4**self._upsample))
        found = self._net([np.ascontiguousarray(frame.rgb()) for frame in frames], self._upsample, size)
        return [_cnn_detections(rects, frame) for rects, frame in zip(found, frames, strict=True)]


def box_of(rect: Any, frame: Frame) -> Box:
    """A dlib rectangle cut to the frame, with the numbers that `face_locations` gives.

    dlib counts the last row and column in; `face_locations` passes them on as they are and its users slice with them,
    so that they are exclusive here, too.
    """
    return Box(
        left=max(rect.left(), 0),
        top=max(rect.top(), 0),
        right=min(rect.right(), frame.width_px),
        bottom=min(rect.bottom(), frame.height_px),
    )


def _cnn_detections(found: Any, frame: Frame) -> list[Detection]:
    return [Detection(box_px=box_of(face.rect, frame), score=float(face.confidence)) for face in found]


def _cnn_model_path() -> Path:
    """Found without importing `face_recognition_models`, which warns of its use of `pkg_resources`."""
    spec = importlib.util.find_spec("face_recognition_models")
    path = Path(spec.origin).parent / "models/mmod_human_face_detector.dat" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"dlib's face network: found {path}, expected it in face_recognition_models")
    return path
