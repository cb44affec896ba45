"""A unit's tables in, its commit out."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batch.scoring.commit import ScoreCommit, commit_unit, file_name, places
from batch.scoring.records import Looked, ScoreUnit
from batch.scoring.runs import check_held, now
from batch.scoring.tables import BINS, Recipe, UnitTables
from batch.shards.commit import DataFile
from batch.shards.write import data_file, faces_table, parquet_bytes
from batch.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What travels back to the driver: small, whatever the unit's size."""

    commit: ScoreCommit
    won: bool
    """False if the unit had been committed already."""


def write_unit(
    sink: Storage, unit: ScoreUnit, looked: Looked, tables: UnitTables, recipe: Recipe, seconds: Mapping[str, float]
) -> UnitReport:
    """Writes and commits a scored unit. Done twice, it leaves what one time leaves.

    Raises:
        RuntimeError: if a later run has taken OUTPUT over.
    """
    keeps = recipe.keep_crops and not looked.recalled
    crops = None
    if keeps and len(looked.crops):
        crops = faces_table(looked.results, recipe.roots[unit.input], recipe.crops_options)
    return _commit(
        sink, unit, tables.items, tables.tracks, crops, recipe,
        keeps_crops=keeps,
        crop_count=len(looked.crops),
        bytes_read=sum(result.cost.bytes_read for result in looked.results),
        requests=sum(result.cost.requests for result in looked.results),
        seconds={**looked.seconds, **seconds},
    )  # fmt: skip


def write_twins(sink: Storage, unit: ScoreUnit, items: pa.Table, recipe: Recipe) -> UnitReport:
    """Commits items whose content was scored under other names: rows alone, no tracks."""
    return _commit(
        sink, unit, items, None, None, recipe, keeps_crops=False, crop_count=0, bytes_read=0, requests=0, seconds={}
    )


def _commit(
    sink: Storage,
    unit: ScoreUnit,
    items: pa.Table,
    tracks: pa.Table | None,
    crops: pa.Table | None,
    recipe: Recipe,
    *,
    keeps_crops: bool,
    crop_count: int,
    bytes_read: int,
    requests: int,
    seconds: Mapping[str, float],
) -> UnitReport:
    name = file_name(recipe.run, unit.id)
    contents: dict[str, bytes] = {}

    def named(prefix: str, table: pa.Table | None) -> DataFile | None:
        if table is None or not table.num_rows:
            return None
        data = parquet_bytes(table)
        file = data_file(prefix, name, data, table.num_rows)
        contents[file.key] = data
        return file

    at_items, at_tracks, at_faces = places(recipe.night)
    item_file = named(at_items, items)
    assert item_file is not None, "a unit has items"
    commit = ScoreCommit(
        run=recipe.run,
        unit=unit.id,
        night=recipe.night,
        input=recipe.roots[unit.input],
        bundle=recipe.bundle,
        options=recipe.options,
        crops_options=recipe.crops_options,
        items=item_file,
        tracks=named(at_tracks, tracks),
        faces=named(at_faces, crops),
        keeps_crops=keeps_crops,
        **count_rows(items),
        why=dict(Counter(str(item.why) for item in unit.items)),
        crops=crop_count,
        bytes_listed=sum(item.size_bytes for item in unit.items),
        bytes_read=bytes_read,
        requests=requests,
        seconds={stage: round(spent, 6) for stage, spent in seconds.items()},
        started_at=now(),
        host=socket.gethostname(),
    )
    check_held(sink, recipe.run)
    won = commit_unit(sink, commit, contents, lambda: check_held(sink, recipe.run))
    return UnitReport(commit=commit, won=won)


def count_rows(items: pa.Table) -> dict[str, Any]:
    """What a commit counts of its rows: `kinds`, `same`, `reasons`, `bands`, `histogram`."""
    scores = items["probability"].drop_null().to_numpy()
    return {
        "kinds": dict(Counter(items["kind"].to_pylist())),
        "same": len(items["same_as"].drop_null()),
        "reasons": dict(Counter(reason for reason in items["reason"].to_pylist() if reason)),
        "bands": dict(Counter(band for band in items["band"].to_pylist() if band)),
        "histogram": tuple(int(n) for n in np.histogram(scores, BINS, (0.0, 1.0))[0]),
    }
