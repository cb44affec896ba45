"""A scoring run in, its `report.html` out: a page that a reviewer can act on in the morning.

Built in fixed memory, whatever the run's size: counts come from the summary, the K most suspicious items are found in
one pass over the tables and opened once more for their pictures, and everything else stays in Parquet. Some 2 MB at
the most.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from batch.faces.isolate import LimitOptions
from batch.faces.options import FaceOptions
from batch.model.bundle import REPORT, Bundle
from batch.records import RgbImage
from batch.reports import score_charts as charts
from batch.reports.accounting import reason_words
from batch.reports.page import render, settings
from batch.reports.score_items import Pictures, input_rows, suspect_views, unscored_groups
from batch.reports.thumbs import thumbnail
from batch.scoring.drift import Drift
from batch.scoring.revisit import RevisitOptions, Seen, revisit
from batch.scoring.summary import ScoreSummary
from batch.scoring.suspicious import Findings
from batch.storage.base import Storage

_CROP_PX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """What the page needs to look at items once more."""

    sources: tuple[Storage, ...]
    """The INPUTs."""
    faces: FaceOptions
    """What the items were scored with."""
    limits: LimitOptions
    revisit: RevisitOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawings:
    """The charts of the page; None where there is nothing to draw."""

    outcomes: Markup | None
    scores: Markup | None
    coverage: Markup | None
    likely_fake: Markup | None


def write_score_report(
    sink: Storage, *, summary: ScoreSummary, findings: Findings, drift: Drift, bundle: Bundle,
    options: Mapping[str, object], pictures: PictureOptions | None,
) -> str:  # fmt: skip
    """Writes the page of a run and gives its uri.

    Args:
        sink: the OUTPUT.
        summary: the run's.
        findings: what of the runs that the summary adds up is named one by one.
        drift: the run beside earlier ones.
        bundle: what it was scored with.
        options: resolved options and versions, nested.
        pictures: None leaves every face and frame out of the page, and opens no file of the INPUTs.

    Raises:
        StorageError: where OUTPUT cannot be written. An INPUT that cannot be read costs pictures alone.
    """
    shown, heat_problem = [Pictures() for _ in findings.suspects], ""
    cells = 0
    if pictures and findings.suspects:
        seen = revisit(findings.suspects, pictures.sources, pictures.faces, pictures.limits, pictures.revisit)
        shown, cells, heat_problem = _pictures(seen, bundle)
    page = render(
        "score.html",
        {
            "title": f"Scores of {summary.night}",
            "root": sink.root,
            "summary": summary,
            "total": summary.total,
            "bundle": bundle,
            "auc": _auc(bundle),
            "pictures": pictures is not None,
            "inputs": input_rows(summary.inputs, summary.listed, {**summary.denied, **summary.failed}),
            "suspects": suspect_views(findings.suspects, shown, bundle.thresholds),
            "wanted": _wanted(summary),
            "heat_cells": cells,
            "heat_problem": heat_problem,
            "unscored": unscored_groups(findings.unscored, {**summary.total.set_aside, **summary.total.faults}),
            "drift": drift,
            "words": _words,
            "charts": _draw(summary, drift, bundle),
            "settings": settings("Run", options),
        },
    )
    sink.put(REPORT, page)
    return sink.uri(REPORT)


def _pictures(seen: Sequence[Seen], bundle: Bundle) -> tuple[list[Pictures], int, str]:
    """With heatmaps; how many cells those have a side, and why there are none."""
    from batch.model.heatmap import HeatMapper, overlay

    crops = [each.crop_rgb for each in seen if each.crop_rgb is not None]
    overlays: list[RgbImage] = []
    cells, problem = 0, ""
    if crops:
        try:
            heat = HeatMapper(bundle.load_model())(np.stack(crops))
            overlays = [overlay(crop, each) for crop, each in zip(crops, heat.maps, strict=True)]
            cells = heat.cells
        except ValueError as error:
            problem = str(error)
    found = iter(overlays)
    made = []
    for each in seen:
        if each.crop_rgb is None:
            made.append(Pictures(problem=each.problem))
            continue
        hot = next(found, None)
        made.append(
            Pictures(
                crop=_data(each.crop_rgb),
                heat=None if hot is None else _data(hot),
                frame=None if each.frame_jpeg is None else _address(each.frame_jpeg),
            )
        )
    return made, cells, problem


def _draw(summary: ScoreSummary, drift: Drift, bundle: Bundle) -> _Drawings:
    several = bool(drift.earlier)
    return _Drawings(
        outcomes=charts.outcomes("outcomes", summary.total) if summary.total.items else None,
        scores=charts.scores("scores", drift, bundle.thresholds) if summary.total.scored else None,
        coverage=charts.coverage("coverage", drift) if several else None,
        likely_fake=charts.likely_fake("likely-fake", drift) if several else None,
    )


def _words(name: str) -> str:
    """A share's name for a person."""
    return "Coverage" if name == "coverage" else reason_words(name)


def _wanted(summary: ScoreSummary) -> int:
    """Items that are not likely real."""
    return summary.total.scored - summary.total.bands.get("likely real", 0)


def _auc(bundle: Bundle) -> tuple[float, ...] | None:
    """The bundle's AUC over test videos with its interval, if it was measured."""
    test = bundle.manifest.metrics.get("test")
    level = test.get("videos") if isinstance(test, Mapping) else None
    found = level.get("auc") if isinstance(level, Mapping) else None
    if not isinstance(found, Sequence) or any(not isinstance(value, int | float) for value in found):
        return None
    return tuple(float(value) for value in found)


def _data(picture: RgbImage) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return thumbnail(out.getvalue(), _CROP_PX)


def _address(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
