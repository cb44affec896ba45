"""A preprocessing output and a record of a takedown in, the output without the record's videos out.

The order makes a kill at any point harmless, since the next purge goes on with every record that is not finished:
the record; then, highest generation first, for each commit with such rows its new files, the new commit in the place
of the old one, and the old files deleted; then files that no commit names and hidden ones of killed writers, which
may hold the same faces; then page, plan and summary; then the record once more, as finished.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.shards.commit import FACES, OUTCOMES, Commit, DataFile, read_commits, sha256, unit_name
from batch.shards.purged import Purged, PurgeRecord, load_purged
from batch.shards.read import latest_outcomes, outcome_tables
from batch.shards.runfile import RunFile
from batch.shards.summary import PLAN, SUMMARY, summarize
from batch.shards.verify_unit import label_counts
from batch.shards.write import faces_file, outcomes_file, parquet_bytes
from batch.storage.base import MissingObjectError, Storage, under_way
from batch.storage.leftovers import remove_all_hidden

T = TypeVar("T")
_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReport:
    """What a purge did to one output."""

    output: str
    videos: int
    """Taken out by this call."""
    faces: int
    record: str | None
    """Uri of the new record; None if all of it was asked before."""


def purge_faces(sink: Storage, run: RunFile, record: PurgeRecord | None) -> PurgeReport:
    """Takes out what this and all earlier records cover. Memory: three times a shard, and the commits.

    Raises:
        ValueError: for a damaged commit or record, before anything is touched.
        AccessError: where nothing may be written, likewise.
        RuntimeError: for a file that is not the one that was committed, and for both of the above once it has begun.
    """
    commits = list(read_commits(sink))
    purged = load_purged(sink)
    gone = _covered(sink, commits, purged if record is None else purged.with_record(record))
    videos = len({(commit.unit, key) for commit, keys in gone for key in keys})
    if record is not None:
        record = replace(record, found_videos=videos)
        sink.put(record.key, record.to_json())
        purged = purged.with_record(record)
    unfinished = purged.unfinished
    with under_way():
        faces = sum(_take_out(sink, commit, keys, commits) for commit, keys in gone)
        if gone or unfinished:
            commits = list(read_commits(sink))
            _remove_unnamed(sink, commits)
            _rewrite_accounting(sink, run, commits)
        for done in unfinished:
            sink.put(done.key, done.finished().to_json())
    uri = None if record is None else sink.uri(record.key)
    return PurgeReport(output=sink.root, videos=videos, faces=faces, record=uri)


def _covered(sink: Storage, commits: Sequence[Commit], purged: Purged) -> list[tuple[Commit, list[str]]]:
    """The commits with rows to remove and the keys of these, highest generation first.

    A retry's commit counts its videos by what they were before: to correct that, the generation before must be
    there still.
    """

    def keys_in(table: pa.Table) -> list[str]:
        rows = zip(table["video_key"].to_pylist(), table["source_id"].to_pylist(), strict=True)
        return [key for key, source in rows if purged.covers_row(key, source)]

    ordered = sorted(commits, key=lambda commit: -commit.generation) if purged else []
    found = zip(ordered, each_names(sink, ordered, keys_in), strict=True)
    return [(commit, keys) for commit, keys in found if keys]


def each_names(sink: Storage, commits: Iterable[Commit], look: Callable[[pa.Table], T]) -> list[T]:
    """What `look` gives for each commit's table of `video_key` and `source_id`, read side by side."""

    def read(commit: Commit) -> T:
        [table] = outcome_tables(sink, [commit], ["video_key", "source_id"])
        return look(table)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, commits))


def _take_out(sink: Storage, commit: Commit, keys: Sequence[str], commits: Iterable[Commit]) -> int:
    """Replaces a commit and its files by ones without these videos; gives the number of faces removed."""
    outcomes = _without(sink, commit.outcomes, keys)
    faces = None if commit.faces is None else _without(sink, commit.faces, keys)
    before = [other for other in commits if other.unit == commit.unit and other.generation < commit.generation]
    if outcomes.num_rows:
        _replace(sink, commit, outcomes, faces, _outcomes_of(sink, before, keys))
    else:
        sink.delete(commit.key)
    _remove_replaced(sink, commit)
    return 0 if commit.faces is None or faces is None else commit.faces.rows - faces.num_rows


def _without(sink: Storage, file: DataFile, keys: Sequence[str]) -> pa.Table:
    """A table without the rows of these videos."""
    data = sink.read(file.key)
    found = sha256(data)
    if found != file.sha256:  # rewritten, the damage would get a digest that fits
        raise RuntimeError(f"{sink.uri(file.key)}: sha256 {found}, expected {file.sha256}; see `fakesift verify`")
    table = pq.read_table(io.BytesIO(data))
    drop = pc.is_in(table["video_key"], value_set=pa.array(keys, pa.string()))
    return table.filter(pc.invert(drop)).combine_chunks()


def _outcomes_of(sink: Storage, commits: Sequence[Commit], keys: Sequence[str]) -> Counter[str]:
    """These videos by their outcome in the highest generation of `commits`."""
    counts: Counter[str] = Counter()
    for table in latest_outcomes(sink, commits, ["video_key", "outcome"]):
        hit = table.filter(pc.is_in(table["video_key"], value_set=pa.array(keys, pa.string())))
        counts.update(hit["outcome"].to_pylist())
    return counts


def _replace(
    sink: Storage, commit: Commit, outcomes: pa.Table, faces: pa.Table | None, unreplaced: Counter[str]
) -> None:
    """Puts the files, then the commit in the place of the old one. What the unit has cost stays as it is."""
    name = unit_name(commit.unit, commit.generation)
    outcomes_bytes = parquet_bytes(outcomes)
    file = commit.faces
    if file is not None and faces is not None and faces.num_rows != file.rows:
        faces_bytes = parquet_bytes(faces)
        file = faces_file(name, faces_bytes, faces.num_rows) if faces.num_rows else None
        if file is not None:
            sink.put(file.key, faces_bytes)
    changed = replace(
        commit,
        faces=file,
        outcomes=outcomes_file(name, outcomes_bytes, outcomes.num_rows),
        listed=outcomes.num_rows,
        reasons=dict(Counter(outcomes["outcome"].to_pylist())),
        replaces=dict(Counter(commit.replaces) - unreplaced),
        labels=label_counts(faces) if faces is not None else {},
        bytes_listed=pc.sum(outcomes["size_bytes"]).as_py(),
    )
    sink.put(changed.outcomes.key, outcomes_bytes)
    sink.put(commit.key, changed.to_json())


def _remove_replaced(sink: Storage, old: Commit) -> None:
    """Deletes the files that the old commit named and the one in its place, if there is one, does not."""
    named = {file.key for new in read_commits(sink, [old.key]) for file in (new.faces, new.outcomes) if file}
    for file in (old.faces, old.outcomes):
        if file is not None and file.key not in named:
            sink.delete(file.key)


def _remove_unnamed(sink: Storage, commits: Iterable[Commit]) -> None:
    """Deletes files that no commit names: a purge or a job that was cut off may have left them."""
    named = {file.key for commit in commits for file in (commit.faces, commit.outcomes) if file is not None}
    for key in [item.key for prefix in (FACES, OUTCOMES) for item in sink.list(prefix)]:
        if key not in named:
            sink.delete(key)
    remove_all_hidden(sink)


def _rewrite_accounting(sink: Storage, run: RunFile, commits: Sequence[Commit]) -> None:
    """Page, plan and summary from the commits that are left, where a job has written them; the summary last.

    The plan follows only where it agrees with the summary that is still the old one: else a job is not finished.
    """
    from batch.reports.preprocess import REPORT, write_preprocess_report

    old = _read_json(sink, SUMMARY)
    summary = summarize(commits, (old or {}).get("corpus"))
    if sink.exists(REPORT):
        write_preprocess_report(
            sink,
            summary=summary,
            commits=commits,
            title=f"Faces from {run.input}",
            options={**run.shaping, "versions": dict(run.versions)},
            pictures=bool(run.shaping.get("pictures", True)),
        )
    if old is None:
        return
    if _read_json(sink, PLAN) == {name: old.get(name) for name in ("listed", "units")}:
        sink.put(PLAN, b'{"listed": %d, "units": %d}' % (summary.listed, summary.units))
    sink.put(SUMMARY, summary.to_json())


def _read_json(sink: Storage, key: str) -> dict[str, Any] | None:
    """An object, empty where it is damaged; None where there is none."""
    try:
        raw = json.loads(sink.read(key))
    except MissingObjectError:
        return None
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}
