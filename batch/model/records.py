"""The values that pass between the stages of training: tables of faces, batches, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.faces.options import FaceOptions
from batch.storage.base import Storage

BLENDED = "#self-blended"
"""Ends the names of a fake that was made of a face: what comes before is the face's own."""

UNUSED = -1
"""Row of a place in a batch that holds no face: its weight is 0."""


class Split(StrEnum):
    """What a face is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A committed face shard of one of the FACES outputs."""

    sink: Storage
    key: str
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceIndex:
    """All faces of one or several preprocessing outputs, without their pictures."""

    table: pa.Table
    """One row a face, schema `schemas.face_index_schema`, in order of shard and row: a face is named by its place."""
    shards: Sequence[Shard]
    """In order of output and key; the table's `shard` and `row` point into them."""
    face_options: FaceOptions
    """How the crops were made; the same for all shards."""
    digest: str
    """16 hex digits of the shards' own digests: names the data."""

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """1 fake, 0 real, -1 unknown, shape (faces,)."""
        filled = self.table["label"].fill_null(-1)
        return np.asarray(filled.to_numpy(), dtype=np.int8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A worker's part of one global batch. Places without a face have weight 0 and label 0."""

    images: npt.NDArray[np.uint8]
    """Crops in RGB, shape (places, side, side, 3)."""
    labels: npt.NDArray[np.float32]
    """1 fake, 0 real, shape (places,)."""
    weights: npt.NDArray[np.float32]
    """Weight of each place in the loss, 0 for an empty one, shape (places,)."""
    draws: npt.NDArray[np.float32]
    """What augmentation does to each place (`augment.draw`), shape (places, `augment.DRAWS`)."""
    rows: npt.NDArray[np.int64]
    """Places in the face index, UNUSED for an empty one, shape (places,)."""
    total_weight: float
    """Sum of weights over all workers' parts: the loss's denominator, known to each worker beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a model says of faces."""

    rows: npt.NDArray[np.int64]
    """Places in the face index, shape (n,)."""
    logits: npt.NDArray[np.float32]
    """Log-odds of fake before calibration, shape (n,)."""
    made: npt.NDArray[np.bool_] | None = None
    """Whether it is of a fake that was made of the (real) face, shape (n,); None where none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of the training history."""

    stage: str
    """`head` or `whole`."""
    epoch: int
    """From 1, over both stages."""
    step: int
    """Optimizer steps so far."""
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float
    validation: Mapping[str, float] = field(default_factory=dict)
    """`loss`, `accuracy`, `auc` on the validation split, of the averaged weights if there are any."""


JsonDict = dict[str, Any]
"""A value for JSON at the edge to a file: nothing inside passes such values on."""
