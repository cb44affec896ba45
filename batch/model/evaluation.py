"""A predictions table in, all that can be said of it out: one value for the page, the card and `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from batch.model.aggregate import Aggregation
from batch.model.bootstrap import Sample
from batch.model.curves import Curves, curves
from batch.model.judgement import face_sample, item_sample, known
from batch.model.metrics import Metric, brief, metrics, precision_at, rates
from batch.model.records import JsonDict
from batch.model.slices import FACE_SIZE, FRAME_HEIGHT, PART
from batch.model.thresholds import Thresholds

_FACE_EDGES_PX = (64, 96, 128, 192, 256)
_FRAME_EDGES_PX = (360, 540, 720, 1080)
POINT_NAMES = {"half": "0.5", "equal_error": "equal error", "few_false": "1% false positives"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How predictions are judged."""

    prevalence: float = 0.01
    """Share of fakes where the model is to be used, for precision: an archive has fewer than a benchmark."""
    resamples: int = 1000
    """Of the bootstrap over groups."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence: got {self.prevalence}, expected a share between 0 and 1")
        if not 100 <= self.resamples <= 100_000:
            raise ValueError(f"resamples: got {self.resamples}, expected 100 to 100000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Figures of faces or of items."""

    unit: str
    """`faces` or `videos`."""
    real: int
    fake: int
    groups: int
    metrics: Mapping[str, Metric]
    """By the names of `metrics.NAMES`, in that order."""
    curves: Curves | None
    """None without both classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What saying fake from a threshold on does to the videos."""

    name: str
    """`half`, `equal_error` or `few_false`."""
    threshold: float
    true_real: int
    false_fake: int
    """Real videos that are called fake."""
    false_real: int
    true_fake: int
    tpr: Metric
    fpr: Metric
    accuracy: Metric
    precision: Metric
    """At the prevalence of the options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLevel:
    """Figures of a slice's faces or videos."""

    real: int
    fake: int
    accuracy: Metric
    auc: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of the faces, and the videos that these alone make up."""

    kind: str
    """`part`, `face size`, `frame height`, or a name of the caller's."""
    name: str
    groups: int
    faces: SliceLevel
    videos: SliceLevel
    """A video whose faces lie in several slices of a kind, as by size, counts in each, with those faces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that was measured on one set of predictions."""

    name: str
    """`validation`, `test`, or what the data is called."""
    faces: Level
    videos: Level
    unknown: int
    """Faces without a label, left out."""
    points: tuple[OperatingPoint, ...]
    slices: tuple[Slice, ...]
    options: EvaluationOptions
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> JsonDict:
        """Plain values, curves among them."""
        return asdict(self)

    def headline(self) -> JsonDict:
        """Counts and every figure as `[value, low, high]`, without curves and slices: for `bundle.json` and alerts."""
        return {level.unit: _headline(level) for level in (self.faces, self.videos)}


def evaluate_predictions(
    table: pa.Table, *, name: str, aggregation: Aggregation, thresholds: Thresholds,
    options: EvaluationOptions | None = None, groups: Mapping[str, Sequence[str | None]] | None = None,
    unknown: int = 0,
) -> Evaluation:  # fmt: skip
    """Judges predictions by face and by video, with intervals, at every operating point and slice.

    Args:
        table: schema `schemas.predictions_schema`, probabilities calibrated.
        name: of the split or the data.
        aggregation: from faces to videos.
        thresholds: of videos.
        options: prevalence and bootstrap.
        groups: further slices: a name and a value for each row of the table; None is left out.
        unknown: further faces without a label, which are not in the table.

    Raises:
        ValueError: for an empty table, or values of another length than the table.
    """
    used = options or EvaluationOptions()
    if not table.num_rows:
        raise ValueError(f"{name}: no predictions, expected one row or more")
    for kind, values in (groups or {}).items():
        if len(values) != table.num_rows:
            raise ValueError(f"slices by {kind}: got {len(values)} values for {table.num_rows} predictions")
    mask = np.asarray(table["label"].is_valid())
    rows = known(table)
    unlabelled = unknown + int(table.num_rows - rows.num_rows)
    faces, videos = face_sample(rows), item_sample(rows, aggregation)
    further = {
        kind: [v for v, there in zip(values, mask, strict=True) if there] for kind, values in (groups or {}).items()
    }
    return Evaluation(
        name=name,
        faces=_level(faces, "faces", used),
        videos=_level(videos, "videos", used),
        unknown=unlabelled,
        points=tuple(_point(videos, point, cut, used) for point, cut in thresholds.points()) if len(videos) else (),
        slices=tuple(_slices(rows, aggregation, further, used)),
        options=used,
        notes=_notes(faces, unlabelled),
    )


def _level(sample: Sample, unit: str, options: EvaluationOptions) -> Level:
    both = len(np.unique(sample.labels)) == 2
    found = metrics(sample, unit, resamples=options.resamples, seed=options.seed)
    return Level(
        unit=unit,
        real=int(np.sum(sample.labels == 0)),
        fake=int(np.sum(sample.labels == 1)),
        groups=sample.group_count,
        metrics=found,
        curves=curves(sample, resamples=options.resamples, seed=options.seed) if both else None,
    )


def _point(sample: Sample, name: str, threshold: float, options: EvaluationOptions) -> OperatingPoint:
    found = rates(sample, threshold, "videos", resamples=options.resamples, seed=options.seed)
    said, fake = sample.scores >= threshold, sample.labels == 1
    return OperatingPoint(
        name=name,
        threshold=threshold,
        true_real=int(np.sum(~said & ~fake)),
        false_fake=int(np.sum(said & ~fake)),
        false_real=int(np.sum(~said & fake)),
        true_fake=int(np.sum(said & fake)),
        tpr=found["tpr"],
        fpr=found["fpr"],
        accuracy=found["accuracy"],
        precision=precision_at(found["tpr"], found["fpr"], options.prevalence),
    )


def _slices(
    table: pa.Table, aggregation: Aggregation, further: Mapping[str, Sequence[str | None]], options: EvaluationOptions
) -> list[Slice]:
    longer = np.maximum(table["face_width_px"].to_numpy(), table["face_height_px"].to_numpy())
    kinds: dict[str, tuple[np.ndarray[Any, Any], list[str]]] = {
        PART: _named(table["part"].to_pylist()),
        FACE_SIZE: _binned(longer, _FACE_EDGES_PX),
        FRAME_HEIGHT: _binned(table["frame_height_px"].to_numpy(), _FRAME_EDGES_PX),
        **{kind: _named(values) for kind, values in further.items()},
    }
    found = []
    for kind, (places, names) in kinds.items():
        for place, name in enumerate(names):
            here = table.filter(pa.array(places == place))
            if not here.num_rows:
                continue
            faces, videos = face_sample(here), item_sample(here, aggregation)
            found.append(
                Slice(
                    kind=kind,
                    name=name,
                    groups=faces.group_count,
                    faces=_slice_level(faces, "faces", options),
                    videos=_slice_level(videos, "videos", options),
                )
            )
    return found


def _slice_level(sample: Sample, unit: str, options: EvaluationOptions) -> SliceLevel:
    accuracy, auc = brief(sample, unit, resamples=options.resamples, seed=options.seed)
    return SliceLevel(
        real=int(np.sum(sample.labels == 0)), fake=int(np.sum(sample.labels == 1)), accuracy=accuracy, auc=auc
    )


def _named(values: Sequence[str | None]) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Each row's place among the sorted names; -1 for None."""
    names = sorted({value for value in values if value is not None})
    place = {name: number for number, name in enumerate(names)}
    return np.array([-1 if value is None else place[value] for value in values], np.int64), names


def _binned(values: np.ndarray[Any, Any], edges_px: Sequence[int]) -> tuple[np.ndarray[Any, Any], list[str]]:
    inner = [f"{low} to {high - 1} px" for low, high in pairwise(edges_px)]
    names = [f"under {edges_px[0]} px", *inner, f"{edges_px[-1]} px and more"]
    return np.digitize(values, edges_px), names


def _notes(faces: Sample, unknown: int) -> tuple[str, ...]:
    notes = []
    if unknown:
        notes.append(f"{unknown:,} faces without a label are left out.")
    pairs = min(faces.groups_of(0), faces.groups_of(1))
    if pairs < 20:
        notes.append(
            f"One of the classes has {pairs} independent groups: intervals are wide, and those of a bootstrap over so "
            "few groups are too narrow rather than too wide."
        )
    return tuple(notes)


def _headline(level: Level) -> JsonDict:
    figures = {name: [metric.value, metric.low, metric.high] for name, metric in level.metrics.items()}
    return {"real": level.real, "fake": level.fake, "groups": level.groups, **figures}
