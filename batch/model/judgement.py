"""Logits of faces in, the predictions table out; and from validation's table, how scores are to be read.

The order in training: `predictions_table` with no calibration for validation, `fit_judgement` on it, `recalibrated`
for both tables, `evaluation.evaluate_predictions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit

from batch.model.aggregate import Aggregation, Scored, choose_aggregation, score_items
from batch.model.bootstrap import Sample
from batch.model.calibration import NO_CALIBRATION, Calibration, fit_calibration
from batch.model.records import BLENDED, FaceIndex, Scores
from batch.model.thresholds import Thresholds, fit_thresholds
from batch.schemas import predictions_schema

_FROM_INDEX = (
    "face", "video_uri", "track_id", "label", "part", "face_width_px", "face_height_px", "frame_height_px",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How scores are read: fitted on validation, stored in the bundle, used everywhere after."""

    calibration: Calibration
    aggregation: Aggregation
    thresholds: Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A face that the model is surest to be what it is not, the worst of its clip."""

    face: str
    video_uri: str
    label: Literal[0, 1]
    probability: float
    face_width_px: int
    face_height_px: int


def predictions_table(
    index: FaceIndex, scores: Scores, calibration: Calibration, *, groups: pa.Array, splits: pa.Array | None = None
) -> pa.Table:
    """Schema `schemas.predictions_schema`, one row a score, in the scores' order.

    A fake that was made of a face has that one's names, with `BLENDED` behind.

    Args:
        index: the faces.
        scores: their logits; rows are places in the index.
        calibration: `NO_CALIBRATION` before it is fitted.
        groups: the group of each face of the index, strings.
        splits: the split of each face of the index; None for data that was not split.

    Raises:
        ValueError: for logits that are not finite (the first such face is named), or columns of another length.
    """
    if not np.all(np.isfinite(scores.logits)):
        bad = int(np.flatnonzero(~np.isfinite(scores.logits))[0])
        face = index.table["face"][int(scores.rows[bad])].as_py()
        raise ValueError(f"predictions: got the logit {scores.logits[bad]} for {face}, expected a finite number")
    for name, column in (("groups", groups), ("splits", splits)):
        if column is not None and len(column) != index.table.num_rows:
            raise ValueError(f"predictions: got {len(column)} {name} for {index.table.num_rows} faces of the index")
    rows = pa.array(scores.rows)
    columns = {name: index.table[name].take(rows) for name in _FROM_INDEX}
    if scores.made is not None:
        made = pa.array(scores.made)
        for name in ("face", "video_uri"):
            renamed = pc.binary_join_element_wise(columns[name], BLENDED, "")
            columns[name] = pc.if_else(made, renamed, columns[name])
        columns["label"] = pc.if_else(made, pa.scalar(1, columns["label"].type), columns["label"])
    columns["group"] = groups.take(rows)
    columns["split"] = pa.nulls(len(rows), pa.string()) if splits is None else splits.take(rows)
    columns["logit"] = pa.array(scores.logits, pa.float32())
    columns["probability"] = pa.array(calibration(scores.logits), pa.float32())
    return pa.table([columns[field.name] for field in predictions_schema()], schema=predictions_schema())


def recalibrated(table: pa.Table, calibration: Calibration) -> pa.Table:
    """The same predictions with probabilities of another calibration."""
    place = table.schema.get_field_index("probability")
    probabilities = pa.array(calibration(table["logit"].to_numpy()), pa.float32())
    return table.set_column(place, table.schema.field(place), probabilities)


def known(table: pa.Table) -> pa.Table:
    """The rows with a label."""
    return table.filter(pc.is_valid(table["label"]))


def fit_judgement(validation: pa.Table) -> Judgement:
    """Calibration, then the aggregation rule, then thresholds, all on validation's labelled faces.

    In the fit of the calibration every clip counts the same, however many frames of it there are.
    """
    table = known(validation)
    labels, items = labels_of(table), codes(table["video_uri"])
    frames = np.bincount(items)[items] if len(items) else np.zeros(0)
    calibration = (
        fit_calibration(table["logit"].to_numpy(), labels, codes(table["group"]), 1 / frames)
        if len(items)
        else NO_CALIBRATION
    )
    probabilities = calibration(table["logit"].to_numpy())
    aggregation = choose_aggregation(probabilities, labels, items, table["track_id"].to_numpy())
    scored = score_items(probabilities, items, table["track_id"].to_numpy(), aggregation)
    _, first = np.unique(items, return_index=True)
    thresholds = fit_thresholds(scored.items.scores, labels[first])
    return Judgement(calibration=calibration, aggregation=aggregation, thresholds=thresholds)


def face_sample(table: pa.Table) -> Sample:
    """Labelled predictions, a row a face."""
    return Sample(
        scores=np.asarray(table["probability"].to_numpy(), np.float64),
        raw=np.asarray(expit(table["logit"].to_numpy().astype(np.float64))),
        labels=labels_of(table),
        groups=codes(table["group"]),
    )


def item_sample(table: pa.Table, aggregation: Aggregation) -> Sample:
    """Labelled predictions, a row an item (clip or image), in the order of their uris."""
    faces, items = face_sample(table), codes(table["video_uri"])
    tracks = table["track_id"].to_numpy()
    _, first = np.unique(items, return_index=True)

    def pooled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: Scored = score_items(values, items, tracks, aggregation)
        return found.items.scores

    return Sample(
        scores=pooled(faces.scores), raw=pooled(faces.raw), labels=faces.labels[first], groups=faces.groups[first]
    )  # fmt: skip


def worst_mistakes(table: pa.Table, *, per_class: int = 12, threshold: float = 0.5) -> tuple[Mistake, ...]:
    """Reals with the highest probability of fake, then fakes with the lowest: on the wrong side, and one a clip."""
    found: list[Mistake] = []
    for label in (0, 1):
        rows = table.filter(pc.equal(table["label"], label)).sort_by(
            [("probability", "ascending" if label else "descending"), ("face", "ascending")]
        )
        wrong = pc.less(rows["probability"], threshold) if label else pc.greater_equal(rows["probability"], threshold)
        rows = rows.filter(wrong)
        _, first = np.unique(codes(rows["video_uri"]), return_index=True)
        chosen = rows.take(pa.array(np.sort(first)[:per_class]))
        found += [Mistake(**{name: row[name] for name in Mistake.__slots__}) for row in chosen.to_pylist()]
    return tuple(found)


def labels_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """Labels of rows that all have one."""
    return np.asarray(table["label"].to_numpy(), np.int64)


def codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Strings as numbers from 0 on, in their order."""
    _, numbers = np.unique(np.asarray(column.to_pylist(), dtype=np.str_), return_inverse=True)
    return np.asarray(numbers, np.int64)
