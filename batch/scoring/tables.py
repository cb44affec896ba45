"""A looked-at unit and its logits in, the rows of items and tracks out, by the bundle's rule.

What could not be looked at, or shows no face, has no probability but a reason: null, never 0.5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.model.aggregate import Aggregation, Pooled, Scored, score_items
from batch.model.bundle import Bundle
from batch.model.calibration import Calibration
from batch.model.golden import Precision, Runtime
from batch.model.thresholds import Thresholds
from batch.records import FaceRow, Reason, VideoResult
from batch.schemas import items_schema, tracks_schema
from batch.scoring.listing import media_of
from batch.scoring.records import Item, Looked, ScoreUnit

BINS = 20
"""Of the histogram of probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How logits become rows; the same for all units of a run, and small."""

    run: int
    night: str
    bundle: str
    """Digest."""
    options: str
    """Digest."""
    crops_options: str
    """Digest."""
    calibration: Calibration
    aggregation: Aggregation
    thresholds: Thresholds
    roots: tuple[str, ...]
    """The INPUTs."""
    prefixes: tuple[str, ...]
    """What the uris of their keys begin with."""
    keep_crops: bool
    precision: Precision = "float32"
    runtime: Runtime = "keras"

    @classmethod
    def of(cls, bundle: Bundle, **more: Any) -> Recipe:
        """With the bundle's part of it filled in."""
        return cls(
            bundle=bundle.digest,
            calibration=bundle.calibration,
            aggregation=bundle.aggregation,
            thresholds=bundle.thresholds,
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTables:
    """The rows of a unit."""

    items: pa.Table
    """Schema `schemas.items_schema`, in the unit's order."""
    tracks: pa.Table
    """Schema `schemas.tracks_schema`, by item and track."""


def unit_tables(unit: ScoreUnit, looked: Looked, logits: npt.NDArray[np.float32], recipe: Recipe) -> UnitTables:
    """Aggregates a unit.

    Args:
        unit: as many items as `looked` has results.
        looked: with a crop a face.
        logits: of the crops, shape (faces,), before calibration.
        recipe: the run's.
    """
    faces = [face for result in looked.results for face in result.faces]
    of_item = np.repeat(np.arange(len(looked.results)), [len(result.faces) for result in looked.results])
    of_track = np.array([face.track_id for face in faces], np.int64)
    probabilities = recipe.calibration(logits)
    scored = score_items(probabilities, of_item, of_track, recipe.aggregation)
    top = _top_tracks(scored)
    counts = Counter(np.asarray(scored.track_items).tolist())
    place = {int(key): number for number, key in enumerate(np.asarray(scored.items.keys).tolist())}
    rows = []
    for number, (item, result) in enumerate(zip(unit.items, looked.results, strict=True)):
        row = _item_row(item, result, recipe)
        if number in place:
            row |= {**_score(scored.items, place[number], recipe), "tracks": counts[number], "top_track": top[number]}
            row |= {"runtime": recipe.runtime, "precision": recipe.precision}
        rows.append(row)
    tracks = _track_rows(unit.items, faces, of_item, of_track, logits, probabilities, scored, recipe)
    return UnitTables(
        items=pa.Table.from_pylist(rows, schema=items_schema()),
        tracks=pa.Table.from_pylist(tracks, schema=tracks_schema()),
    )


def twin_row(item: Item, scored: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The row of an item whose content was scored under another name: that one's outcome, by its own name.

    Its tracks are that one's, and not counted twice.
    """
    own = _names(item, recipe)
    shared = {name: value for name, value in scored.items() if name not in own}
    none = {"tracks": 0, "faces": 0, "top_track": None}
    return {**shared, **own, **none, "same_as": scored["same_as"] or scored["uri"]}


def uri_of(item: Item, recipe: Recipe) -> str:
    """An item's address."""
    return recipe.prefixes[item.input] + item.key


def _names(item: Item, recipe: Recipe) -> dict[str, Any]:
    return {
        "uri": uri_of(item, recipe),
        "input": recipe.roots[item.input],
        "key": item.key,
        "media": media_of(item.key),
        "size_bytes": item.size_bytes,
        "etag": item.etag,
        "modified_s": item.modified_s,
        "attempt": item.attempt,
        "fingerprint": item.fingerprint.hex() if item.fingerprint else None,
        "bundle": recipe.bundle,
        "options": recipe.options,
        "run": recipe.run,
    }


def _item_row(item: Item, result: VideoResult, recipe: Recipe) -> dict[str, Any]:
    """An item's row as if it had no score."""
    media = result.media
    kept = result.reason is Reason.KEPT
    return {
        **_names(item, recipe),
        "reason": None if kept else str(result.reason),
        "kind": "scored" if kept else result.reason.kind,
        "detail": result.detail,
        "tracks": 0,
        "faces": len(result.faces),
        "frames_seen": result.frames_seen,
        "width_px": media.width_px if media else None,
        "height_px": media.height_px if media else None,
        "duration_s": media.duration_s if media else None,
        "fps": media.fps if media else None,
        "codec": media.codec if media else None,
    }


def _score(pooled: Pooled, place: int, recipe: Recipe) -> dict[str, Any]:
    probability, error = float(pooled.scores[place]), float(pooled.errors[place])
    return {
        "probability": probability,
        "uncertainty": None if math.isnan(error) else error,
        "band": recipe.thresholds.band(probability),
    }


def _top_tracks(scored: Scored) -> dict[int, int]:
    """Each item's most suspicious track; of equal ones the first."""
    top: dict[int, tuple[float, int]] = {}
    triples = zip(scored.track_items, scored.track_ids, scored.tracks.scores, strict=True)
    for item, track, score in triples:
        if int(item) not in top or float(score) > top[int(item)][0]:
            top[int(item)] = (float(score), int(track))
    return {item: track for item, (_, track) in top.items()}


def _track_rows(
    items: Sequence[Item],
    faces: Sequence[FaceRow],
    of_item: npt.NDArray[np.int64],
    of_track: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float64],
    scored: Scored,
    recipe: Recipe,
) -> list[dict[str, Any]]:
    frames: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for face, item, track, logit, probability in zip(faces, of_item, of_track, logits, probabilities, strict=True):
        frames.setdefault((int(item), int(track)), []).append(_frame(face, float(logit), float(probability)))
    rows = []
    for place, (item, track) in enumerate(zip(scored.track_items, scored.track_ids, strict=True)):
        names = _names(items[int(item)], recipe)
        rows.append(
            {
                **{name: names[name] for name in ("uri", "etag", "bundle", "options", "run")},
                **_score(scored.tracks, place, recipe),
                "track_id": int(track),
                "frames": frames[int(item), int(track)],
            }
        )
    return rows


def _frame(face: FaceRow, logit: float, probability: float) -> dict[str, Any]:
    return {
        "frame_index": face.frame_index,
        "pts_s": face.pts_s,
        "logit": logit,
        "probability": probability,
        "face_box_px": asdict(face.face_box_px),
        "crop_box_px": asdict(face.crop_box_px),
        "detector_score": face.score,
    }
