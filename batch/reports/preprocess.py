"""A preprocessing output in, its `report.html` out: one page that shows what became of every video.

The page is built in fixed memory from the summary and the committed tables, holds a sample of the pictures, and stays
under some 3 MB whatever the size of the corpus. Equal outputs give equal pages, but for the timings they show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batch.reports.accounting import accounting, remarks, unkept
from batch.reports.balance import labels, sizes
from batch.reports.clips import clips, stages
from batch.reports.faces import FaceGrid, face_grid
from batch.reports.page import render, settings
from batch.reports.tally import tally_faces, tally_outcomes
from batch.shards.commit import Commit
from batch.shards.summary import Summary
from batch.storage.base import Storage

REPORT = "report.html"
_NO_FACES = FaceGrid(pairs=(), loose=())


def write_preprocess_report(
    sink: Storage,
    *,
    summary: Summary,
    commits: Sequence[Commit],
    title: str,
    options: Mapping[str, object],
    pictures: bool,
) -> str:
    """Writes `report.html` under the OUTPUT and gives its uri.

    Args:
        sink: the OUTPUT.
        summary: its accounting.
        commits: all commits of the run, retries of faults among them.
        title: the page's heading.
        options: resolved options and versions, nested as in `run.json`; `crop_size` is looked for at any depth.
        pictures: False leaves every face and frame out of the page, unread.

    Raises:
        StorageError: where a table cannot be read or the page cannot be written.
        ValueError: for a table of another schema version.
    """
    crop_size = _find(options, "crop_size")
    crop_px = crop_size if isinstance(crop_size, int) else None
    outcomes = tally_outcomes(sink, commits, pictures=pictures)
    page = render(
        "preprocess.html",
        {
            "title": title,
            "root": sink.root,
            "summary": summary,
            "pictures": pictures,
            "accounting": accounting(summary, outcomes),
            "labels": labels(summary, outcomes),
            "sizes": sizes(tally_faces(sink, commits, crop_px), crop_px),
            "grid": face_grid(sink, commits, outcomes.sources) if pictures else _NO_FACES,
            "clips": clips(outcomes),
            "stages": stages(summary),
            "set_aside": unkept(outcomes, summary.set_aside),
            "faults": unkept(outcomes, summary.faults),
            "remarks": remarks(summary.corpus),
            "settings": settings("Run", options),
        },
    )
    sink.put(REPORT, page)
    return sink.uri(REPORT)


def _find(values: Mapping[str, object], name: str) -> object:
    """The first value of this name at any depth."""
    if name in values:
        return values[name]
    nested = (_find(value, name) for value in values.values() if isinstance(value, Mapping))
    return next((value for value in nested if value is not None), None)
