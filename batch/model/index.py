"""Outputs of preprocessing in, the index of their faces out: all columns that training needs, and no picture."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.faces.detect import DetectOptions
from batch.faces.options import CropOptions, FaceOptions, digest_of
from batch.model.records import FaceIndex, Shard
from batch.schemas import face_index_schema, faces_schema
from batch.shards.commit import Commit, DataFile, read_commits
from batch.shards.read import face_tables
from batch.shards.runfile import read_run
from batch.shards.summary import PLAN, summarize
from batch.storage.base import MissingObjectError, Storage

_READERS = 16
_TAKEN = [name for name in face_index_schema().names if name not in {"face", "shard", "row"}]
_READ = ["face_id", "video_key", *_TAKEN]


def load_index(sinks: Sequence[Storage]) -> FaceIndex:
    """The faces of one or several outputs of `fakesift preprocess`, in the order of outputs, shards and rows.

    An output whose job has not ended is read as far as it is; `unfinished` tells. Reads the columns of 16 shards
    side by side and no crop. Memory: about 200 bytes a face.

    Raises:
        ValueError: for no output, one that is none of this job, outputs with unlike face options (both are named),
            a shard that is missing, empty, damaged or has columns of other types or unknown labels, a face that stands
            twice, or no face at all.
    """
    if not sinks:
        raise ValueError("faces: got no output, expected one or more outputs of `fakesift preprocess`")
    options = _face_options(sinks)
    digest = options.digest()
    committed = [entry for sink in sinks for entry in _committed(sink, digest)]
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(_read_shard, committed, itertools.count()))
    shards = tuple(
        Shard(sink=sink, key=file.key, sha256=file.sha256, size_bytes=file.size_bytes, rows=file.rows)
        for sink, _, file in committed
    )
    table = pa.concat_tables([face_index_schema().empty_table(), *tables]).combine_chunks()
    if not table.num_rows:
        raise ValueError(f"faces: none in {', '.join(sink.root for sink in sinks)}; expected committed face shards")
    _refuse_twice(table, shards)
    return FaceIndex(
        table=table,
        shards=shards,
        face_options=options,
        digest=digest_of([shard.sha256 for shard in shards]),
    )


def unfinished(sinks: Sequence[Storage]) -> list[str]:
    """One line for every output whose job has not ended: its uri and how far it is. Training on it is allowed."""
    lines = []
    for sink in sinks:
        done = summarize(read_commits(sink)).listed
        try:
            listed = int(json.loads(sink.read(PLAN))["listed"])
        except MissingObjectError:
            lines.append(f"{sink.root}: not finished, {done} videos so far; `fakesift preprocess` goes on with it")
            continue
        if listed != done:
            lines.append(f"{sink.root}: not finished, {done} of {listed} videos; `fakesift preprocess` goes on with it")
    return lines


def face_options_of(raw: Mapping[str, Any]) -> FaceOptions:
    """Face options from `asdict(options)`, as `run.json` and bundles keep them.

    Raises:
        ValueError: for an option that is unknown here, or a value that cannot be.
    """
    try:
        rest = {name: value for name, value in raw.items() if name not in {"detect", "crop"}}
        return FaceOptions(detect=DetectOptions(**raw["detect"]), crop=CropOptions(**raw["crop"]), **rest)
    except (KeyError, TypeError) as error:
        raise ValueError(f"face options: got {dict(raw)}, expected those of this version ({error})") from error


def _face_options(sinks: Sequence[Storage]) -> FaceOptions:
    """The options that all outputs share."""
    first: FaceOptions | None = None
    for sink in sinks:
        shaping = read_run(sink, "preprocess").shaping
        if not isinstance(shaping.get("faces"), Mapping):
            raise ValueError(f"{sink.root}: damaged run.json: no face options, expected them under shaping.faces")
        options = face_options_of(shaping["faces"])
        if first is None:
            first = options
        elif options != first:
            unlike = "; ".join(_unlike(asdict(first), asdict(options)))
            raise ValueError(
                f"outputs with unlike face options: {sinks[0].root} and {sink.root}: {unlike}; "
                "a model learns from crops of one kind: run preprocess on one of them with the other's options"
            )
    assert first is not None
    return first


def _unlike(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[str]:
    for name, value in left.items():
        if isinstance(value, Mapping):
            yield from _unlike(value, right[name])
        elif value != right[name]:
            yield f"{name} {value!r} and {right[name]!r}"


def _committed(sink: Storage, options_digest: str) -> list[tuple[Storage, Commit, DataFile]]:
    """An output's commits that have faces, in the order of the shards' keys."""
    found = []
    for commit in read_commits(sink):
        if commit.options_digest != options_digest:
            raise ValueError(
                f"{sink.uri(commit.key)}: made with face options {commit.options_digest}, expected {options_digest} "
                "as in run.json; see `fakesift verify`"
            )
        if commit.faces is not None:
            found.append((sink, commit, commit.faces))
    return sorted(found, key=lambda entry: entry[2].key)


def _read_shard(entry: tuple[Storage, Commit, DataFile], number: int) -> pa.Table:
    """A shard's rows of the index."""
    sink, commit, file = entry
    uri = sink.uri(file.key)
    try:
        table = next(face_tables(sink, [commit], _READ))
    except MissingObjectError:
        raise ValueError(f"{uri}: missing, expected the shard that a commit names; see `fakesift verify`") from None
    _check_columns(uri, table.schema)
    if table.num_rows != file.rows or not table.num_rows:
        expected = f"{file.rows} as its commit says" if file.rows else "one or more"
        raise ValueError(f"{uri}: {table.num_rows} rows, expected {expected}; see `fakesift verify`")
    strange = table["label"].filter(pc.invert(pc.is_in(table["label"], pa.array([0, 1, None], pa.int8()))))
    if len(strange):
        raise ValueError(f"{uri}: label {strange[0]}, expected 0 (real), 1 (fake) or null; see `fakesift verify`")
    places = {
        "shard": pa.array(np.full(file.rows, number, np.int32)),
        "row": pa.array(np.arange(file.rows, dtype=np.int32)),
    }
    columns = {"face": _faces(uri, table), **places, **{name: table[name] for name in _TAKEN}}
    return pa.table(columns, schema=face_index_schema())


def _check_columns(uri: str, schema: pa.Schema) -> None:
    for name in _READ:
        wanted = faces_schema().field(name).type
        got = schema.field(name).type if name in schema.names else None
        if got != wanted:
            raise ValueError(f"{uri}: column {name} is {got or 'missing'}, expected {wanted}; see `fakesift verify`")


def _faces(uri: str, table: pa.Table) -> pa.Array:
    """Names of faces: the video's uri, then what the face's id has after the video's key."""
    names = []
    columns = (table[name].to_pylist() for name in ("face_id", "video_key", "video_uri"))
    for face_id, key, video_uri in zip(*columns, strict=True):
        if not face_id.startswith(f"{key}#"):
            raise ValueError(
                f"{uri}: face_id {face_id!r}, expected {key!r}, #, frame and number; see `fakesift verify`"
            )
        names.append(video_uri + face_id[len(key) :])
    return pa.array(names, pa.string())


def _refuse_twice(table: pa.Table, shards: Sequence[Shard]) -> None:
    """Two outputs of one input, or an output that grew and whose last run did not end, hold a face twice."""
    counts = pc.value_counts(table["face"]).flatten()
    twice = counts[0].filter(pc.greater(counts[1], 1))
    if not len(twice):
        return
    rows = table.filter(pc.equal(table["face"], twice[0]))["shard"].to_pylist()
    where = " and ".join(shards[row].sink.uri(shards[row].key) for row in rows[:2])
    raise ValueError(
        f"{len(twice)} faces stand twice, as {twice[0]} in {where}; expected each once: give one output of an input, "
        "and let `fakesift preprocess` end"
    )
