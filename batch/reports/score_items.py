"""Findings of a run in, what a scoring page says of single items out: why each is shown, its face, frame and curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from batch.model.thresholds import Thresholds
from batch.reports.accounting import UnkeptGroup, UnkeptRow, reason_words, short_detail
from batch.reports.page import duration
from batch.reports.score_charts import BAND_COLOURS, sparkline
from batch.scoring.summary import Tally
from batch.scoring.suspicious import Suspect, Unscored

SMALL_FACE_PX = 64
"""Faces below it are enlarged several times over, and lose the traces that the model looks for."""
_DISAGREEMENT = 0.1
_MIN_CURVE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Of one item, as `data:` addresses; all None where there is none."""

    crop: str | None = None
    heat: str | None = None
    frame: str | None = None
    problem: str = ""
    """Why there is no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxView:
    """Where the face is in the frame, in percent of its width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectView:
    """A suspicious item as the page shows it."""

    number: int
    name: str
    folder: str
    score: str
    spread: str
    """`± 0.02`, or empty."""
    band: str
    colour: str
    """One of `svg.VARIABLES`."""
    facts: str
    why: tuple[str, ...]
    same_as: str | None
    pictures: Pictures
    box: BoxView | None
    at: str
    """When in the clip the frame is; empty for a still picture."""
    curve: Markup | None
    end: str
    """The clip's length, at the right end of the curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRow:
    """An INPUT in the table of coverage."""

    name: str
    listed: int | None
    tally: Tally
    problem: str
    """Why it could not be looked through."""


def suspect_views(
    suspects: Sequence[Suspect], pictures: Sequence[Pictures], thresholds: Thresholds
) -> tuple[SuspectView, ...]:
    """The most suspicious first; `pictures` in the same order."""
    pairs = zip(suspects, pictures, strict=True)
    return tuple(_view(number, each, shown, thresholds) for number, (each, shown) in enumerate(pairs, 1))


def unscored_groups(unscored: Mapping[str, Sequence[Unscored]], counts: Mapping[str, int]) -> tuple[UnkeptGroup, ...]:
    """Items without a score, the most frequent reason first."""
    groups = []
    for code in sorted(counts, key=lambda name: (-counts[name], name)):
        rows = []
        for each in unscored.get(code, ()):
            folder, name = _split(each.uri)
            rows.append(UnkeptRow(folder=folder, name=name, detail=short_detail(each.detail), picture=None))
        total = counts[code]
        rest = max(0, total - len(rows))
        groups.append(UnkeptGroup(code=code, name=reason_words(code), total=total, rest=rest, rows=tuple(rows)))
    return tuple(groups)


def input_rows(
    inputs: Mapping[str, Tally], listed: Mapping[str, int], denied: Mapping[str, str]
) -> tuple[InputRow, ...]:
    """Every INPUT, those with nothing new too."""
    return tuple(
        InputRow(name=name, listed=listed.get(name), tally=inputs.get(name, Tally()), problem=denied.get(name, ""))
        for name in sorted({*inputs, *listed, *denied})
    )


def _view(number: int, suspect: Suspect, pictures: Pictures, thresholds: Thresholds) -> SuspectView:
    folder, name = _split(suspect.uri)
    top = suspect.followed[0].top if suspect.followed else None
    frames = suspect.followed[0].frames if suspect.followed else ()
    end_s = max(suspect.duration_s or 0.0, frames[-1].pts_s) if frames else 0.0
    moving = len(frames) >= _MIN_CURVE
    return SuspectView(
        number=number,
        name=name,
        folder=folder,
        score=_score(suspect.probability),
        spread=_spread(suspect),
        band=suspect.band,
        colour=BAND_COLOURS.get(suspect.band, "unknown"),
        facts=_facts(suspect),
        why=_why(suspect, thresholds),
        same_as=suspect.same_as,
        pictures=pictures,
        box=_box(suspect),
        at=duration(top.pts_s) if top and moving else "",
        curve=sparkline(f"curve-{number}", suspect.followed, thresholds, end_s) if moving else None,
        end=duration(end_s),
    )


def _facts(suspect: Suspect) -> str:
    told = [suspect.media]
    if suspect.duration_s:
        told.append(duration(suspect.duration_s))
    if suspect.width_px and suspect.height_px:
        told.append(f"{suspect.width_px} × {suspect.height_px} px")
    if suspect.frames_seen > 1:
        told.append(f"{suspect.frames_seen} frames looked at")
    return ", ".join(told)


def _why(suspect: Suspect, thresholds: Thresholds) -> tuple[str, ...]:
    """Why it is shown and what to mind, a sentence each."""
    low, high = thresholds.real_below, thresholds.fake_from
    if suspect.band == "likely fake":
        told = [f"Its score is at or above {high:.2f}, where “likely fake” begins."]
    else:
        told = [f"Its score lies between {low:.2f} and {high:.2f}: neither likely real nor likely fake."]
    if suspect.followed:
        told += _of_faces(suspect, thresholds)
    if suspect.others:
        files = "file" if suspect.others == 1 else "files"
        told.append(f"{suspect.others:,} more {files} of this run with the same content.")
    return tuple(told)


def _of_faces(suspect: Suspect, thresholds: Thresholds) -> list[str]:
    told = []
    track = suspect.followed[0]
    if suspect.tracks > 1:
        told.append(f"Of {suspect.tracks} faces, this one scores highest ({_score(track.probability)}).")
    if len(track.frames) > 1:
        hits = sum(frame.probability >= thresholds.fake_from for frame in track.frames)
        many = (
            f"{hits} of its {len(track.frames)} frames score"
            if hits
            else f"None of its {len(track.frames)} frames scores"
        )
        told.append(f"{many} {thresholds.fake_from:.2f} or more.")
    if track.uncertainty is not None and track.uncertainty >= _DISAGREEMENT:
        told.append("Its frames disagree: see the curve.")
    wide = track.top.face_box_px.width
    if wide < SMALL_FACE_PX:
        told.append(f"The face is {wide} px wide: scores of small faces are worth less.")
    return told


def _spread(suspect: Suspect) -> str:
    """Of the face that the score is of: an item's own uncertainty also holds how far its faces differ."""
    error = suspect.followed[0].uncertainty if suspect.followed else suspect.uncertainty
    return "" if error is None else f"± {error:.2f}"


def _box(suspect: Suspect) -> BoxView | None:
    if not suspect.followed or not suspect.width_px or not suspect.height_px:
        return None
    box = suspect.followed[0].top.face_box_px

    def percent(start: int, end: int, whole: int) -> tuple[float, float]:
        low, high = max(0, start) / whole * 100, min(whole, end) / whole * 100
        return round(low, 2), round(max(0.0, high - low), 2)

    left, width = percent(box.left, box.right, suspect.width_px)
    top, height = percent(box.top, box.bottom, suspect.height_px)
    return BoxView(left=left, top=top, width=width, height=height)


def _score(value: float) -> str:
    """Two digits, never a rounded 0 or 1."""
    text = f"{value:.2f}"
    return ">0.99" if text == "1.00" else "<0.01" if text == "0.00" else text


def _split(uri: str) -> tuple[str, str]:
    place = uri.rfind("/") + 1
    return uri[:place], uri[place:]
