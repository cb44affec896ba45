"""What `bundle.json` says: how to crop, calibrate, aggregate and judge, and what the files of the bundle are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from batch.faces.options import FaceOptions
from batch.model.aggregate import Aggregation
from batch.model.calibration import Calibration
from batch.model.index import face_options_of
from batch.model.records import JsonDict
from batch.model.thresholds import Thresholds

CLASSES = ("real", "fake")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """A file of a bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `bundle.json` says of the network."""

    name: str
    """Of the network, as in training's options: `xception`."""
    face_options: FaceOptions
    """How crops are made: no others may be shown to the network."""
    calibration: Calibration
    aggregation: Aggregation
    thresholds: Thresholds
    data_digest: str
    """Of the faces that it was trained on (`FaceIndex.digest`)."""
    split_digest: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages, when it was saved."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training's resolved options, nested."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """`Evaluation.headline()` by split: validation, test."""
    class_order: tuple[str, str] = CLASSES
    """Labels 0 and 1; scores are the probability of the second."""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """How far golden logits may drift, by precision; filled by `save_bundle`."""

    def to_json(self) -> JsonDict:
        """Plain values."""
        return dict(json.loads(json.dumps(asdict(self), allow_nan=False)))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Manifest:
        """From plain values. Raises `ValueError`, `TypeError` or `KeyError` for others."""
        if tuple(raw["class_order"]) != CLASSES:
            raise ValueError(f"class order: got {raw['class_order']}, expected {list(CLASSES)}")
        knots = {name: tuple(raw["calibration"][name]) for name in ("logits", "probabilities")}
        return cls(
            **{
                **raw,
                "class_order": CLASSES,
                "face_options": face_options_of(raw["face_options"]),
                "calibration": Calibration(**{**raw["calibration"], **knots}),
                "aggregation": Aggregation(**raw["aggregation"]),
                "thresholds": Thresholds(**raw["thresholds"]),
            }
        )
