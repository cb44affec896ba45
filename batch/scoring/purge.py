"""Items by name in, a scoring output without them out, and a record of digests by which the next run refuses them.

Taken out: every row, track and kept crop of the items, over all nights; those of others that were found to have the
same content; their rows in the ledger; their names in summaries, of which counts stay, since they name nobody; and the
page, which may show them. The record is written first and finished last, so that a purge which was cut off goes on with
the next one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.scoring.commit import ScoreCommit, commit_keys, file_name, read_commits
from batch.scoring.ledger import LedgerFile, put_part, read_ledger_files
from batch.scoring.runs import check_free, run_numbers
from batch.scoring.summary import forget
from batch.scoring.write import count_rows
from batch.shards.commit import DataFile, sha256
from batch.shards.purge_faces import PurgeReport
from batch.shards.purged import Purged, ask_for, load_purged, video_digest
from batch.shards.runfile import read_run
from batch.shards.write import data_file, parquet_bytes
from batch.storage.base import DamagedError, Storage

_PAGE = "report.html"


def purge_scores(sink: Storage, names: Sequence[str]) -> PurgeReport:
    """Takes items out of an output.

    Args:
        sink: an output of scoring at which no run is at work.
        names: uris, or keys under an INPUT. What is not there is recorded as it is given, so that a uri is refused.

    Raises:
        ValueError: if it is no output of scoring, a run is at work there, or a file is not the one that was committed.
    """
    read_run(sink, "score")
    check_free(sink)
    purged = load_purged(sink)
    uris = _uris(sink, names)
    purged, record = ask_for(sink, purged, {*uris, *names}, len(uris))
    faces = 0
    if purged.unfinished:
        for commit in list(read_commits(sink, commit_keys(sink, run_numbers(sink)))):
            faces += _take_out(sink, commit, purged)
        for file in read_ledger_files(sink):
            _take_out_of_ledger(sink, file, purged)
        forget(sink, lambda uri: video_digest(uri) in purged.videos)
        sink.delete(_PAGE)
    for each in purged.unfinished:
        sink.put(each.key, each.finished().to_json())
    return PurgeReport(output=sink.root, videos=len(uris), faces=faces, record=record)


def _uris(sink: Storage, names: Sequence[str]) -> set[str]:
    """The uris of the named items, and of all with the content of one of them, whichever of them was scored first."""
    wanted = pa.array(list(names), pa.string())
    found: set[str] = set()
    content: set[str] = set()
    for table in _items(sink):
        hit = table.filter(pc.or_(pc.is_in(table["uri"], value_set=wanted), pc.is_in(table["key"], value_set=wanted)))
        found.update(hit["uri"].to_pylist())
        # All empty files are one content: an upload that broke off says nothing of other people's.
        content.update(hit.filter(pc.greater(hit["size_bytes"], 0))["fingerprint"].drop_null().to_pylist())
    for table in _items(sink) if content else ():
        same = pc.is_in(table["fingerprint"], value_set=pa.array(list(content)))
        found.update(table.filter(same)["uri"].to_pylist())
    return found


def _items(sink: Storage) -> Iterator[pa.Table]:
    """Names and content of the items, a unit at a time."""
    for commit in read_commits(sink, commit_keys(sink, run_numbers(sink))):
        yield _read(sink, commit.items, ["uri", "key", "size_bytes", "fingerprint"])


def _take_out(sink: Storage, commit: ScoreCommit, purged: Purged) -> int:
    """Rewrites a unit without the purged items; gives the number of crops that went."""
    items = _read(sink, commit.items)
    left = _without(items, "uri", purged)
    if left.num_rows == items.num_rows:
        return 0
    went = int(sum(items["faces"].to_pylist()) - sum(left["faces"].to_pylist()))
    name = file_name(commit.run, commit.unit)

    def rewritten(file: DataFile | None, column: str) -> DataFile | None:
        table = None if file is None else _without(_read(sink, file), column, purged)
        if file is None or table is None or not table.num_rows:
            return None
        data = parquet_bytes(table)
        made = data_file(file.key[: file.key.rindex("/") + 1], name, data, table.num_rows)
        sink.put(made.key, data)
        return made

    kept = rewritten(commit.items, "uri")
    if kept is None:
        sink.delete(commit.key)
        made: tuple[DataFile, ...] = ()
    else:
        fresh = replace(
            commit, items=kept, tracks=rewritten(commit.tracks, "uri"), faces=rewritten(commit.faces, "video_uri"),
            crops=max(0, commit.crops - went), **count_rows(left),
        )  # fmt: skip
        sink.put(commit.key, fresh.to_json())
        made = fresh.files
    for file in commit.files:
        if file.key not in {each.key for each in made}:
            sink.delete(file.key)
    return went


def _take_out_of_ledger(sink: Storage, file: LedgerFile, purged: Purged) -> None:
    parts: list[DataFile] = []
    for number, part in enumerate(file.parts):
        table = _read(sink, part)
        left = _without(table, "uri", purged)
        if left.num_rows == table.num_rows:
            parts.append(part)
        elif left.num_rows:
            parts.append(put_part(sink, file.run, number, [left]))
    fresh = replace(file, parts=tuple(parts))
    if fresh != file:
        sink.put(fresh.key, fresh.to_json())
        for part in file.parts:
            if part not in parts:
                sink.delete(part.key)


def _without(table: pa.Table, column: str, purged: Purged) -> pa.Table:
    keep = [video_digest(uri) not in purged.videos for uri in table[column].to_pylist()]
    return table.filter(pa.array(keep, pa.bool_()))


def _read(sink: Storage, file: DataFile, columns: list[str] | None = None) -> pa.Table:
    data = sink.read(file.key)
    if sha256(data) != file.sha256:
        raise DamagedError(f"{sink.uri(file.key)}: not the file that was committed; see `fakesift verify`")
    return pq.read_table(io.BytesIO(data), columns=columns)
