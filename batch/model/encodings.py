"""Crops of real faces in, 128 numbers a face out that lie close for one person: what `face_recognition` computes.

Encodings are biometric data: they stay in the run's own OUTPUT and go into no bundle.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.model.near_duplicates import decoded_crop, read_columns
from batch.model.parquet import zstd_parquet
from batch.model.records import FaceIndex, Shard
from batch.records import Box, RgbImage
from batch.schemas import ENCODINGS_VERSION, encodings_schema

ENCODINGS = "encodings.parquet"
"""Where the table lies under OUTPUT."""
LENGTH = 128

Values = npt.NDArray[np.float32]
"""Encodings, shape (faces, LENGTH): two of one person are mostly closer than 0.6 (Euclidean)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encodings:
    """Encodings of some faces of an index."""

    faces: pa.Array
    """Their names, strings, ascending."""
    values: Values

    @classmethod
    def of(cls, index: FaceIndex, found: Iterable[tuple[npt.NDArray[np.int64], Values]]) -> Encodings:
        """Puts together what is known of places in the index, in any order."""
        parts = list(found)
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in parts)])
        values = np.concatenate([np.zeros((0, LENGTH), np.float32), *(values for _, values in parts)])
        return cls.merged([cls(faces=index.table["face"].take(pa.array(rows)).combine_chunks(), values=values)])

    @classmethod
    def merged(cls, several: Iterable[Encodings]) -> Encodings:
        """All of them, each face once."""
        parts = list(several)
        names: list[str] = [name for part in parts for name in part.faces.to_pylist()]
        values = np.concatenate([np.zeros((0, LENGTH), np.float32), *(part.values for part in parts)])
        places = sorted({name: place for place, name in enumerate(names)}.items())
        faces = pa.array([name for name, _ in places], pa.string())
        return cls(faces=faces, values=values[np.asarray([place for _, place in places], np.int64)])

    def rows(self, index: FaceIndex) -> tuple[npt.NDArray[np.int64], Values]:
        """Places in the index and values of those faces that are there."""
        found = pc.index_in(self.faces, value_set=index.table["face"].combine_chunks())
        there = np.asarray(found.is_valid().to_numpy(zero_copy_only=False), np.bool_)
        places = np.asarray(found.filter(pa.array(there)).to_numpy(zero_copy_only=False), np.int64)
        return places, self.values[there]

    def to_parquet(self) -> bytes:
        """The file's content."""
        values = pa.FixedSizeListArray.from_arrays(pa.array(self.values.ravel()), LENGTH)
        return zstd_parquet(pa.table([self.faces, values], schema=encodings_schema()))

    @classmethod
    def from_parquet(cls, data: bytes) -> Encodings:
        """Reads the file. Raises `ValueError` if it is damaged or none of ours."""
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{ENCODINGS}: damaged, expected a Parquet table: {error}; remove it") from error
        found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode(errors="replace")
        if found != ENCODINGS_VERSION or not table.schema.equals(encodings_schema()):
            raise ValueError(f"{ENCODINGS}: schema {found or 'missing'}, expected {ENCODINGS_VERSION}; remove it")
        values = np.asarray(table["encoding"].combine_chunks().flatten(), np.float32).reshape(-1, LENGTH)
        return cls(faces=table["face"].combine_chunks(), values=values)


def faces_to_encode(index: FaceIndex, a_track: int) -> npt.NDArray[np.int64]:
    """Places of up to `a_track` real faces of each track of each clip, evenly spaced in time; ascending."""
    real = np.flatnonzero(index.labels == 0)
    table = index.table.select(["video_uri", "track_id", "frame_index"]).take(pa.array(real))
    order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names]).to_numpy()
    sorted_table = table.take(pa.array(order))
    uris = sorted_table["video_uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    tracks = sorted_table["track_id"].to_numpy()
    new = np.flatnonzero(np.r_[True, (np.diff(uris) != 0) | (np.diff(tracks) != 0)][: len(order)])
    lengths = np.diff(np.r_[new, len(order)])
    chosen = [
        start + np.unique(np.linspace(0, n - 1, min(n, a_track)).round()) for start, n in zip(new, lengths, strict=True)
    ]
    places = np.concatenate([np.zeros(0), *chosen]).astype(np.int64)
    return np.sort(real[order[places]])


def encode_shard(shard: Shard, rows: npt.NDArray[np.int64]) -> Values:
    """Encodings of a shard's crops at `rows`, as `face_recognition.face_encodings` with its small model gives them.

    About 30 ms of CPU a face. Raises as `near_duplicates.look_at_shard`.
    """
    table = read_columns(shard, ["image", "face_box_px", "crop_box_px"]).take(pa.array(rows))
    encoder = _encoder()
    values = np.empty((len(rows), LENGTH), np.float32)
    for place, row in enumerate(table.to_pylist()):
        crop = decoded_crop(shard, rows[place], row["image"]["bytes"])
        values[place] = encoder.encode(
            crop,
            face_in_crop(Box(**row["face_box_px"]), Box(**row["crop_box_px"]), crop.shape[0]),
        )
    return values


def face_in_crop(face_px: Box, crop_px: Box, side_px: int) -> Box:
    """The face box in pixels of the crop, from both boxes in pixels of the frame."""
    across, down = side_px / crop_px.width, side_px / crop_px.height
    return Box(
        left=round((face_px.left - crop_px.left) * across),
        top=round((face_px.top - crop_px.top) * down),
        right=round((face_px.right - crop_px.left) * across),
        bottom=round((face_px.bottom - crop_px.top) * down),
    )


class Encoder:
    """dlib's five landmarks, and its ResNet on the face that they align. Not for several threads at once."""

    def __init__(self) -> None:
        """Loads both models (30 MB)."""
        import dlib

        self._rectangle: Any = dlib.rectangle
        self._landmarks: Any = dlib.shape_predictor(_model("shape_predictor_5_face_landmarks.dat"))
        self._network: Any = dlib.face_recognition_model_v1(_model("dlib_face_recognition_resnet_model_v1.dat"))

    def encode(self, crop_rgb: RgbImage, face_px: Box) -> Values:
        """The encoding of the face at `face_px` in a crop, uint8 (height, width, 3); shape (LENGTH,)."""
        place = self._rectangle(face_px.left, face_px.top, face_px.right, face_px.bottom)
        landmarks = self._landmarks(crop_rgb, place)
        return np.asarray(self._network.compute_face_descriptor(crop_rgb, landmarks, 1), np.float32)


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    """Loaded once a process."""
    return Encoder()


def _model(name: str) -> str:
    """Found without importing `face_recognition_models`, which warns of its use of `pkg_resources`."""
    spec = importlib.util.find_spec("face_recognition_models")
    path = Path(spec.origin).parent / "models" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"dlib's models: found {path}, expected {name} in face_recognition_models")
    return str(path)
