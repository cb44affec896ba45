"""A bundle and its evaluations in, `report.html` out: one page that says how good a model is and where it fails.

Holds the curves of training, the figures with their intervals, the worst mistakes as pictures. Stays under some 2 MB
whatever the number of faces. Equal values give equal pages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from batch.model.bundle import REPORT, Bundle
from batch.model.curves import Curves
from batch.model.evaluation import Evaluation, Slice, SliceLevel
from batch.model.judgement import Mistake
from batch.model.records import EpochRecord
from batch.model.thresholds import MIN_REALS
from batch.reports import train_charts as charts
from batch.reports.figures import Figure, figure_of, figure_rows, largest_slices, lead, point_rows
from batch.reports.page import render, settings
from batch.reports.thumbs import thumbnail
from batch.storage.base import Storage

_THUMB_PX, _SHEET_PX = 144, 1200
_MAX_SLICES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeView:
    """A mistake as the page shows it."""

    label: str
    name: str
    folder: str
    score: str
    width_px: int
    height_px: int
    picture: str | None
    """A `data:` address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceCells:
    """A slice's videos or faces as they are written."""

    real: int
    fake: int
    accuracy: Figure
    auc: Figure
    low: float | None
    """Of the accuracy, in percent, for the bar beside it."""
    value: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow:
    """A slice as it is written."""

    name: str
    groups: int
    videos: SliceCells
    faces: SliceCells


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTable:
    """The slices of one kind."""

    kind: str
    rows: tuple[SliceRow, ...]
    rest: int
    """Slices that are not shown: the smallest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawings:
    """The charts of the page; None where there is nothing to draw."""

    roc: Markup | None
    roc_few: Markup | None
    precision_recall: Markup | None
    reliability: Markup | None
    scores: Markup | None
    losses: Markup | None
    validation: Markup | None


def write_train_report(
    sink: Storage, *, title: str, bundle: Bundle, evaluations: Sequence[Evaluation], pictures: bool,
    options: Mapping[str, object], history: Sequence[EpochRecord] = (),
    split_counts: Mapping[str, Mapping[str, int]] | None = None, mistakes: Sequence[Mistake] = (),
    crops: Mapping[str, npt.NDArray[np.uint8]] | None = None, contact_sheet: bytes | None = None,
    warning: str = "", key: str = REPORT,
) -> str:  # fmt: skip
    """Writes the page and gives its uri.

    Args:
        sink: where to.
        title: the page's heading.
        bundle: that was judged.
        evaluations: the one that counts first (test), then others (validation).
        pictures: False leaves every face out of the page.
        options: resolved options and versions, nested.
        history: the epochs; none for a page of `evaluate`.
        split_counts: faces by split and label (`real`, `fake`, `unknown`).
        mistakes: of the first evaluation, by `judgement.worst_mistakes`.
        crops: pictures of the mistakes by face, RGB uint8 (side, side, 3).
        contact_sheet: PNG or JPEG of augmented faces.
        warning: stands at the top, such as that the data was seen in training.
        key: under the sink.

    Raises:
        ValueError: without an evaluation.
        StorageError: where the page cannot be written.
    """
    if not evaluations:
        raise ValueError("report: got no evaluation, expected one or more")
    main = evaluations[0]
    shown = [_mistake(entry, crops or {}, pictures=pictures) for entry in mistakes]
    page = render(
        "train.html",
        {
            "title": title,
            "root": bundle.uri,
            "bundle": bundle,
            "pictures": pictures,
            "warning": warning,
            "lead": lead(main),
            "main": main,
            "evaluations": evaluations,
            "totals": {name: figure_of(main.videos.metrics[name]) for name in ("auc", "accuracy", "log_loss")},
            "figures": figure_rows([level for each in evaluations for level in (each.videos, each.faces)]),
            "points": point_rows(main),
            "charts": _draw(main, bundle, history),
            "slices": _slice_tables(main.slices),
            "several": main.faces.real + main.faces.fake > main.videos.real + main.videos.fake,
            "suspected": [entry for entry in shown if entry.label == "real"],
            "missed": [entry for entry in shown if entry.label == "fake"],
            "sheet": thumbnail(contact_sheet, _SHEET_PX) if contact_sheet and pictures else None,
            "history": history,
            "split_counts": split_counts or {},
            "settings": settings("Run", options),
        },
    )
    sink.put(key, page)
    return sink.uri(key)


def _draw(main: Evaluation, bundle: Bundle, history: Sequence[EpochRecord]) -> Drawings:
    curves: dict[str, Curves] = {
        level.unit: level.curves for level in (main.faces, main.videos) if level.curves is not None
    }
    videos = main.videos.curves
    return Drawings(
        roc=charts.roc("roc", curves, few=False) if curves else None,
        roc_few=charts.roc("roc-few", curves, few=True) if curves and main.videos.real >= MIN_REALS else None,
        precision_recall=charts.precision_recall("pr", curves) if curves else None,
        reliability=charts.reliability("reliability", videos, "videos") if videos else None,
        scores=charts.scores("scores", videos, bundle.thresholds) if videos else None,
        losses=charts.losses("losses", history) if history else None,
        validation=charts.validation_curves("validation", history) if history else None,
    )


def _slice_tables(slices: Sequence[Slice]) -> list[SliceTable]:
    return [
        SliceTable(kind=kind, rows=tuple(map(_slice_row, kept)), rest=rest)
        for kind, kept, rest in largest_slices(slices, _MAX_SLICES)
    ]


def _slice_row(entry: Slice) -> SliceRow:
    return SliceRow(
        name=entry.name or "(top folder)",
        groups=entry.groups,
        videos=_slice_cells(entry.videos),
        faces=_slice_cells(entry.faces),
    )


def _slice_cells(level: SliceLevel) -> SliceCells:
    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 1)

    return SliceCells(
        real=level.real,
        fake=level.fake,
        accuracy=figure_of(level.accuracy, percent=True),
        auc=figure_of(level.auc),
        low=percent(level.accuracy.low),
        value=percent(level.accuracy.value),
        high=percent(level.accuracy.high),
    )


def _mistake(entry: Mistake, crops: Mapping[str, npt.NDArray[np.uint8]], *, pictures: bool) -> MistakeView:
    crop = crops.get(entry.face) if pictures else None
    place = entry.video_uri.rfind("/") + 1
    return MistakeView(
        label="fake" if entry.label else "real",
        name=entry.video_uri[place:],
        folder=entry.video_uri[:place],
        score=f"{entry.probability:.2f}",
        width_px=entry.face_width_px,
        height_px=entry.face_height_px,
        picture=None if crop is None else _picture(crop),
    )


def _picture(crop: npt.NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "PNG", compress_level=1)
    return thumbnail(out.getvalue(), _THUMB_PX)
