"""Tallies in, the accounting of a preprocessing page out: every outcome, and the videos that gave no face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from batch.records import Reason
from batch.reports.charts import LegendRow, proportions
from batch.reports.page import count, share
from batch.reports.tally import Outcomes
from batch.reports.thumbs import thumbnail
from batch.shards.summary import Summary

_MAX_DETAIL, _EXAMPLE_PX = 300, 256

_WORDS = {
    Reason.KEPT: "Kept",
    Reason.NO_FACE: "No face",
    Reason.SEVERAL_FACES: "Several faces",
    Reason.FACE_TOO_SMALL: "Face too small",
    Reason.EMPTY_FILE: "Empty file",
    Reason.UNREADABLE: "Unreadable",
    Reason.TRUNCATED: "Cut off",
    Reason.NO_VIDEO_STREAM: "No video stream",
    Reason.FRAME_TOO_LARGE: "Frame too large",
    Reason.DECODER_CRASHED: "Decoder crashed",
    Reason.TIMEOUT: "Took too long",
    Reason.OUT_OF_MEMORY: "Out of memory",
    Reason.STORAGE_ERROR: "Storage error",
}
_REMARKS = {
    "unlabelled": "videos have no label in the corpus. They are kept, with an unknown one.",
    "missing_files": "labelled files are not in the corpus.",
    "vanished": "videos of an earlier run are no longer in the corpus.",
    "changed": "videos changed since an earlier run looked at them.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What became of every listed video."""

    bar: Markup
    rows: tuple[LegendRow, ...]
    problems: tuple[str, ...]
    """Why the accounting does not close; empty if it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnkeptRow:
    """A video that gave no face."""

    folder: str
    """Of its uri, with the slash."""
    name: str
    detail: str
    picture: str | None
    """A `data:` address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnkeptGroup:
    """All videos of one reason, some of them by name."""

    code: str
    name: str
    total: int
    rest: int
    """How many are not named."""
    rows: tuple[UnkeptRow, ...]


def accounting(summary: Summary, outcomes: Outcomes) -> Accounting:
    """The bar of all outcomes, checked against the sum and against the tables themselves."""
    colours = {str(Reason.KEPT): "kept"}
    colours |= {str(r): f"aside-{i}" for i, r in enumerate((r for r in Reason if r.is_content), 1)}
    ranked = sorted(summary.faults, key=lambda name: -summary.faults[name])
    colours |= {name: f"fault-{i % 3 + 1}" for i, name in enumerate(ranked)}
    counts = {str(Reason.KEPT): summary.kept, **summary.set_aside, **summary.faults}
    rows = tuple(
        LegendRow(
            colour=colours[code],
            name=reason_words(code),
            code=code,
            value=counts[code],
            text=count(counts[code]),
            share=share(counts[code], summary.listed),
        )
        for code in colours
        if counts.get(code)
    )
    bar = proportions("accounting", "Outcomes of all listed videos", [row.part for row in rows])
    return Accounting(bar=bar, rows=rows, problems=_problems(summary, counts, outcomes))


def _problems(summary: Summary, counts: Mapping[str, int], outcomes: Outcomes) -> tuple[str, ...]:
    problems = []
    if not summary.closes:
        total = sum(counts.values())
        problems.append(f"{summary.listed:,} videos were listed, but {total:,} outcomes are counted.")
    for code in sorted({*counts, *outcomes.reasons}):
        told, found = counts.get(code, 0), outcomes.reasons[code]
        if told != found:
            problems.append(f"{code}: the summary counts {told:,} videos, the outcome tables hold {found:,}.")
    return tuple(problems)


def unkept(outcomes: Outcomes, counts: Mapping[str, int]) -> tuple[UnkeptGroup, ...]:
    """The videos of some reasons, most frequent reason first."""
    groups = []
    for code in sorted(counts, key=lambda name: (-counts[name], name)):
        found = [video for _, video in outcomes.unkept[code].in_key_order()] if code in outcomes.unkept else []
        rows = tuple(
            UnkeptRow(
                folder=video.uri[: video.uri.rfind("/") + 1],
                name=video.uri[video.uri.rfind("/") + 1 :],
                detail=short_detail(video.detail),
                picture=thumbnail(video.example, _EXAMPLE_PX) if video.example else None,
            )
            for video in found
        )
        total = counts[code]
        groups.append(
            UnkeptGroup(code=code, name=reason_words(code), total=total, rest=max(0, total - len(rows)), rows=rows)
        )
    return tuple(groups)


def remarks(corpus: Mapping[str, int]) -> tuple[tuple[int, str], ...]:
    """What the listing told, as counts with a sentence each; nothing for a count of zero."""
    return tuple((number, _REMARKS.get(name, name.replace("_", " "))) for name, number in corpus.items() if number)


def reason_words(code: str) -> str:
    """A reason in words; a code that this version does not know stays as it is."""
    return next((words for reason, words in _WORDS.items() if reason == code), code)


def short_detail(text: str) -> str:
    """At most 300 letters of it."""
    return text if len(text) <= _MAX_DETAIL else f"{text[: _MAX_DETAIL - 1]}…"
