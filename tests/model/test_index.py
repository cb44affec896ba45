"""Outputs as the real writers leave them, and the index of their faces; what cannot be trained on is refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch.model.index import face_options_of, load_index, unfinished
from batch.schemas import face_index_schema, faces_schema
from batch.shards.commit import Commit, read_commits
from batch.shards.write import faces_file
from batch.storage.base import Storage
from batch.storage.local import LocalStorage
from tests.support.face_outputs import FACES, corpus, fake, picture, real, write_output

Change = Callable[[pa.Table], pa.Table]


def output(folder: Path, name: str = "faces", **more: object) -> LocalStorage:
    sink = LocalStorage(str(folder / name))
    clips = [real("p/a.mp4", crops=[picture(1), picture(2)]), fake("p/b.mp4", "a.mp4"), real("q/c.mp4"), *corpus(1)]
    write_output(sink, clips, **more)  # type: ignore[arg-type]
    return sink


def recommit(sink: Storage, change: Change | None, **counts: int) -> str:
    """Replaces the first shard by a changed one that its commit names; gives its uri."""
    commit = next(read_commits(sink))
    assert commit.faces is not None
    data = b"no Parquet"
    if change is not None:
        table, buffer = change(pq.read_table(io.BytesIO(sink.read(commit.faces.key)))), io.BytesIO()
        pq.write_table(table, buffer)
        data = buffer.getvalue()
    file = faces_file("u", data, counts.get("rows", commit.faces.rows))
    sink.put(file.key, data)
    changed: Commit = replace(commit, faces=file)
    sink.put(commit.key, changed.to_json())
    return sink.uri(file.key)


def with_label(label: int) -> Change:
    place = faces_schema().get_field_index("label")
    return lambda table: table.set_column(place, "label", pa.array([0] * (table.num_rows - 1) + [label], pa.int8()))


def with_column(name: str, kind: pa.DataType) -> Change:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))


def test_every_face_stands_once_with_the_place_of_its_crop(tmp_path: Path) -> None:
    sink = output(tmp_path)
    index = load_index([sink])
    assert index.table.schema.equals(face_index_schema())
    assert index.table.num_rows == 7
    assert index.face_options == FACES
    assert index.table["face"].to_pylist()[:3] == ["/in/p/a.mp4#0.0", "/in/p/a.mp4#10.0", "/in/p/b.mp4#0.0"]
    assert index.labels.tolist()[:4] == [0, 0, 1, 0]
    for row in index.table.to_pylist():
        shard = index.shards[row["shard"]]
        stored = pq.read_table(io.BytesIO(sink.read(shard.key))).slice(row["row"], 1).to_pylist()[0]
        assert (stored["video_uri"], stored["frame_index"]) == (row["video_uri"], row["frame_index"])


def test_outputs_are_read_in_the_order_given(tmp_path: Path) -> None:
    first, second = output(tmp_path, "one", root="/one"), output(tmp_path, "two", root="/two")
    index = load_index([second, first])
    assert [shard.sink.root for shard in index.shards] == [second.root] * 2 + [first.root] * 2
    assert index.table["video_uri"][0].as_py().startswith("/two/")
    assert index.digest == load_index([second, first]).digest != load_index([first]).digest


def test_a_retried_unit_counts_with_all_its_generations(tmp_path: Path) -> None:
    from tests.support.built_output import LOOKS, build

    sink = LocalStorage(str(tmp_path / "faces"))
    build(sink, LOOKS)
    index = load_index([sink])
    assert pc.count_distinct(index.table["video_uri"]).as_py() == index.table.num_rows == 9


def test_an_output_that_is_not_finished_is_told(tmp_path: Path) -> None:
    whole, cut_off = output(tmp_path, "whole"), output(tmp_path, "cut", finished=False, root="/cut")
    [line] = unfinished([whole, cut_off])
    assert cut_off.root in line
    assert "6 videos so far" in line
    whole.put("plan.json", b'{"listed": 90, "units": 30}')
    assert "6 of 90 videos" in unfinished([whole])[0]
    assert load_index([whole, cut_off]).table.num_rows == 14


def test_outputs_with_other_crops_are_both_named(tmp_path: Path) -> None:
    options = replace(FACES, crop=replace(FACES.crop, crop_size=32, margin=0.5))
    first, second = output(tmp_path, "one"), output(tmp_path, "two", options=options)
    with pytest.raises(ValueError, match="unlike face options") as refused:
        load_index([first, second])
    for told in (first.root, second.root, "crop_size 64 and 32", "margin 0.15 and 0.5"):
        assert told in str(refused.value)


def test_the_same_face_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"7 faces stand twice, as /in/.*one/faces/.* and .*two/faces/"):
        load_index([output(tmp_path, "one"), output(tmp_path, "two")])


def test_places_without_faces_are_refused(tmp_path: Path) -> None:
    empty = LocalStorage(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"empty: not an output of `fakesift preprocess`"):
        load_index([empty])
    write_output(empty, [])
    with pytest.raises(ValueError, match=r"faces: none in .*empty"):
        load_index([empty])
    with pytest.raises(ValueError, match="got no output"):
        load_index([])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_column("label", pa.string()), "column label is string, expected int8"),
        (with_label(2), "label 2, expected 0 .real., 1 .fake. or null"),
        (with_label(-1), "label -1, expected 0"),
        (lambda table: table.drop_columns(["source_id"]), "column source_id is missing, expected string"),
        (lambda table: table.slice(1), "rows, expected 4 as its commit says"),
        (lambda table: table.replace_schema_metadata({"fakesift.schema": "faces/9"}), "schema faces/9"),
        (None, "magic bytes"),
    ],
)
def test_a_shard_of_another_make_is_named(tmp_path: Path, change: Change | None, told: str) -> None:
    sink = output(tmp_path)
    uri = recommit(sink, change)
    with pytest.raises(ValueError, match=told) as refused:
        load_index([sink])
    assert uri in str(refused.value)


def test_an_empty_or_missing_shard_is_named(tmp_path: Path) -> None:
    sink = output(tmp_path)
    uri = recommit(sink, lambda table: table.slice(0, 0), rows=0)
    with pytest.raises(ValueError, match="0 rows, expected one or more") as refused:
        load_index([sink])
    assert uri in str(refused.value)
    Path(uri).unlink()
    with pytest.raises(ValueError, match="missing, expected the shard that a commit names"):
        load_index([sink])


def test_a_commit_made_with_other_options_is_named(tmp_path: Path) -> None:
    sink = output(tmp_path)
    commit = next(read_commits(sink))
    sink.put(commit.key, replace(commit, options_digest="0" * 16).to_json())
    with pytest.raises(ValueError, match="made with face options 0000") as refused:
        load_index([sink])
    assert sink.uri(commit.key) in str(refused.value)


def test_face_options_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="expected those of this version"):
        face_options_of({"frames": 1, "colour": "red", "detect": {}, "crop": {}})
