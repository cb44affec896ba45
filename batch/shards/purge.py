"""Sources and videos by name in, outputs without them out, each with a record of the takedown under `purged/`.

No job may write into the outputs meanwhile. Out of reach here: older versions that a bucket keeps, backups, and
copies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batch.shards.commit import read_commits
from batch.shards.purge_faces import PurgeReport, each_names, purge_faces
from batch.shards.purged import Purged, PurgeRecord, load_purged, source_digest, utc_now, video_digest
from batch.shards.runfile import RUN, RunFile, read_run
from batch.storage.base import MissingObjectError, Storage, under_way

_PREPROCESS = "preprocess"
_PURGES: Mapping[str, Callable[[Storage, RunFile, PurgeRecord | None], PurgeReport]] = {_PREPROCESS: purge_faces}
"""How an output of each kind of job is purged."""

Row = tuple[str, str]
"""A video's key and its source id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRequest:
    """What a person asks to be taken out."""

    sources: tuple[str, ...] = ()
    """Source ids; or a video's uri or key, which stands for the source that the outputs say it has."""
    videos: tuple[str, ...] = ()
    """Uris or keys of single videos."""

    def __post_init__(self) -> None:
        """Refuses a request that names nothing."""
        names = (*self.sources, *self.videos)
        if not names or not all(name.strip() for name in names):
            raise ValueError(f"nothing to purge: got {list(names)}, expected names of sources or videos")


def purge_outputs(sinks: Sequence[Storage], request: PurgeRequest) -> list[PurgeReport]:
    """Takes what was asked out of every output; none is touched before all of them were looked through.

    A name among `request.sources` is taken as a source id if an output of the same input has such a source, and as
    a video's uri or key only otherwise. What is found nowhere is recorded by the name as it was given, so that the
    next run refuses it. Done again, it finishes what was cut off and changes nothing else.

    Raises:
        ValueError: if a place is no output of a kind that can be purged, or has damaged commits or records.
        RuntimeError: if a file is not the one that was committed; what was done until then stays done.
    """
    if not sinks:
        raise ValueError("nowhere to purge: got no output, expected one or more")
    runs = [(sink, _read_run(sink)) for sink in sinks]
    rows = _rows_by_input(runs, request)
    records = [_record(run, rows[run.input], request, load_purged(sink)) for sink, run in runs]
    reports: list[PurgeReport] = []
    for (sink, run), record in zip(runs, records, strict=True):
        with under_way() if reports else nullcontext():
            reports.append(_PURGES[run.kind](sink, run, record))
    return reports


def named_uris(sinks: Sequence[Storage], request: PurgeRequest) -> set[str]:
    """Uris of the videos in outputs of preprocessing that a purge of them would take out. Changes nothing.

    What was made of those outputs knows videos by uri alone: it is purged by these, and before them.
    """
    runs = [(sink, _read_run(sink)) for sink in sinks]
    rows = _rows_by_input(runs, request)
    uris: set[str] = set()
    for sink, run in runs:
        record = _record(run, rows[run.input], request, Purged())
        asked = Purged() if record is None else Purged().with_record(record)

        def keys_in(table: pa.Table, asked: Purged = asked) -> list[str]:
            found = zip(table["video_key"].to_pylist(), table["source_id"].to_pylist(), strict=True)
            return [key for key, source in found if asked.covers_row(key, source)]

        for keys in each_names(sink, read_commits(sink), keys_in):
            uris.update(f"{run.input}/{key}" for key in keys)
    return uris


def _rows_by_input(runs: Sequence[tuple[Storage, RunFile]], request: PurgeRequest) -> dict[str, set[Row]]:
    rows: dict[str, set[Row]] = {}
    for sink, run in runs:
        rows.setdefault(run.input, set()).update(_matching(sink, run, request))
    return rows


def _read_run(sink: Storage) -> RunFile:
    try:
        kind = json.loads(sink.read(RUN))["kind"]
    except (MissingObjectError, ValueError, KeyError, TypeError):
        kind = None
    return read_run(sink, kind if kind in _PURGES else _PREPROCESS)  # which says what is wrong


def _matching(sink: Storage, run: RunFile, request: PurgeRequest) -> Iterator[Row]:
    """Rows of the outcomes whose key or source id is one of the names."""
    names = [spelling for name in (*request.sources, *request.videos) for spelling in _spellings(name, run.input)]
    wanted = pa.array(names, pa.string())

    def look(table: pa.Table) -> pa.Table:
        key, source = (pc.is_in(table[column], value_set=wanted) for column in ("video_key", "source_id"))
        return table.filter(pc.or_(key, source))

    for found in each_names(sink, read_commits(sink), look):
        yield from zip(found["video_key"].to_pylist(), found["source_id"].to_pylist(), strict=True)


def _spellings(name: str, root: str) -> tuple[str, ...]:
    """The name as it is, and relative to INPUT where it is an address in it; a local path may be a relative one."""
    addresses = [name] if "://" in root else [name, os.path.abspath(name)]  # noqa: PTH100 - without following links
    inside = [address.removeprefix(f"{root}/") for address in addresses if address.startswith(f"{root}/")]
    return tuple(dict.fromkeys([name, *inside]))


def _record(run: RunFile, rows: set[Row], request: PurgeRequest, purged: Purged) -> PurgeRecord | None:
    """What is asked and was not asked before, as a record; None if there is nothing of that kind."""
    sources: set[str] = set()
    videos: set[str] = set()
    for name in request.sources:
        spelt = _spellings(name, run.input)
        named = {source for _, source in rows if source in spelt}
        keys = {(key, source) for key, source in rows if key in spelt}
        if named:
            sources |= named
        elif keys:
            sources.update(source for _, source in keys)
            videos.update(key for key, _ in keys)
        elif not purged.asked_for(spelt):
            sources.update(spelt)
            videos.update(spelt)
    for name in request.videos:
        spelt = _spellings(name, run.input)
        there = {key for key, _ in rows if key in spelt}
        if there or not purged.asked_for(spelt):
            videos.update(there or spelt)
    new_sources = set(map(source_digest, sources)) - purged.sources
    new_videos = set(map(video_digest, videos)) - purged.videos
    if not new_sources and not new_videos:
        return None
    return PurgeRecord(
        asked_at=utc_now(), sources=tuple(sorted(new_sources)), videos=tuple(sorted(new_videos)), found_videos=0
    )
