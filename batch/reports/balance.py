"""Tallies in, what a preprocessing page says of the faces out: the balance of their labels and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from batch.reports.bounded import Tally, binned, nice_edges
from batch.reports.charts import Mark, Part, histogram, proportions, stacked_rows
from batch.reports.page import share
from batch.reports.tally import MAX_PARTS, FaceSizes, Outcomes
from batch.shards.summary import Summary

LABEL_NAMES = ("real", "fake", "unknown")
_MAX_PART_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One label's videos and faces."""

    name: str
    listed: int
    kept: int
    faces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """How many faces are real and how many are fake."""

    bar: Markup
    rows: tuple[LabelRow, ...]
    by_part: Markup | None
    """None with one part or with too many for a chart."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the faces are in the original frames; sides in pixels."""

    chart: Markup
    median_px: float
    low_px: float
    high_px: float
    """The middle four fifths lie between `low_px` and `high_px`."""
    crop_px: int | None
    enlarged: str
    reduced: str
    same: str


def labels(summary: Summary, outcomes: Outcomes) -> Labels:
    """The balance of the labels over faces and videos, and over the corpus's parts if they are few."""
    rows = tuple(
        LabelRow(
            name=name,
            listed=outcomes.videos[name],
            kept=outcomes.kept[name],
            faces=summary.labels.get(name, 0),
        )
        for name in LABEL_NAMES
    )
    parts = [Part(value=row.faces, colour=row.name, tip=f"{row.name}: {row.faces:,} faces") for row in rows]
    real, fake = summary.labels.get("real", 0), summary.labels.get("fake", 0)
    ratio = "" if not real or not fake else f"{fake / real:.1f} fake faces for one real."
    by_part = _by_part(outcomes.parts)
    return Labels(
        bar=proportions("labels", "Faces by label", parts),
        rows=tuple(row for row in rows if row.listed or row.faces),
        by_part=by_part,
        note=f"{ratio} {'' if by_part else _across_parts(outcomes.parts)}".strip(),
    )


def _by_part(parts: Tally[tuple[str, str]]) -> Markup | None:
    names = sorted({part for part, _ in parts.counts})
    if parts.rest or not 2 <= len(names) <= _MAX_PART_ROWS:
        return None
    rows = [(name, {label: parts.counts[name, label] for label in LABEL_NAMES}) for name in names]
    told = "; ".join(f"{name}: {', '.join(f'{n:,} {label}' for label, n in row.items() if n)}" for name, row in rows)
    return stacked_rows("parts", "Faces by part of the corpus and label", told, rows)


def _across_parts(parts: Tally[tuple[str, str]]) -> str:
    """How the share of fakes differs between parts that are too many to draw; nothing for a single part."""
    if parts.rest:
        return f"More than {MAX_PARTS} parts, too many to tell apart."
    fakes = {part: parts.counts[part, "fake"] for part, _ in sorted(parts.counts)}
    known = {part: fakes[part] + parts.counts[part, "real"] for part in fakes}
    ranked = sorted((part for part in fakes if known[part]), key=lambda part: fakes[part] / known[part])
    if len(ranked) < 2:
        return ""
    low, high = ranked[0], ranked[-1]
    return (
        f"Fakes are {share(fakes[low], known[low])} of the faces of {low or 'the top folder'} and"
        f" {share(fakes[high], known[high])} of those of {high or 'the top folder'}; the other"
        f" {len(ranked) - 2} parts lie between."
    )


def sizes(found: FaceSizes, crop_px: int | None) -> Sizes | None:
    """The histogram of face sizes; None without faces."""
    merged = found.all_faces
    if not merged.total:
        return None
    median = merged.quantile(0.5)
    edges = nice_edges(max(merged.quantile(0.995), 1), merged.step, 36)
    layers = {name: binned(d, edges) for name, d in found.by_label.items() if d.total}
    marks = [Mark(value=median, text=f"median {median:g} px")]
    if crop_px is not None:
        marks.append(Mark(value=crop_px, text=f"crop {crop_px} px", dashed=True))
    scaled = found.enlarged + found.reduced + found.same
    return Sizes(
        chart=histogram(
            "face-sizes", "Sizes of the faces in the original frames",
            f"{merged.total:,} faces, median {median:g} px", layers, marks, "longer side of the face, px",
        ),
        median_px=median,
        low_px=merged.quantile(0.1),
        high_px=merged.quantile(0.9),
        crop_px=crop_px,
        enlarged=share(found.enlarged, scaled),
        reduced=share(found.reduced, scaled),
        same=share(found.same, scaled),
    )  # fmt: skip
