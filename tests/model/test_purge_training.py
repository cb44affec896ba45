"""A takedown from faces and the training made of them: by source, by video, cut off at any change, and once more."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.model.calibration import NO_CALIBRATION
from batch.model.encodings import ENCODINGS, LENGTH, Encodings
from batch.model.index import load_index
from batch.model.judgement import predictions_table
from batch.model.landmarks import KEY, LANDMARKS, Found, Landmarks, write_landmarks
from batch.model.parquet import zstd_parquet
from batch.model.purge import PICTURES, purge_training
from batch.model.records import BLENDED, Scores
from batch.model.scan import PREDICTIONS
from batch.model.split import SPLITS, SplitOptions, make_split
from batch.shards.commit import read_commits
from batch.shards.purged import load_purged
from batch.shards.read import face_tables
from batch.shards.runfile import RunFile, claim_output
from batch.storage.base import Storage
from batch.storage.local import LocalStorage
from jobs.purge import main
from tests.shards.test_purge import Killed, Mortal
from tests.support.face_outputs import corpus, write_output

PEOPLE = f"{ENCODINGS.removesuffix('.parquet')}/0123-2.parquet"
TABLES = (SPLITS, PREDICTIONS, KEY, PEOPLE)


def write_training(output: Storage, faces: Storage) -> None:
    """What `fakesift train` leaves of faces, with made-up scores."""
    index = load_index([faces])
    split = make_split(index, SplitOptions())
    rows = np.arange(index.table.num_rows)
    claim_output(output, RunFile(kind="train", input=faces.root, shaping={}, versions={}))
    output.put(SPLITS, split.to_parquet())
    scores = Scores(
        rows=np.repeat(rows, 2), logits=np.linspace(-1, 1, 2 * len(rows), dtype=np.float32),
        made=np.tile([False, True], len(rows)),
    )  # fmt: skip
    columns = {name: split.table[name].combine_chunks() for name in ("group", "split")}
    made = predictions_table(index, scores, NO_CALIBRATION, groups=columns["group"], splits=columns["split"])
    output.put(PREDICTIONS, zstd_parquet(made))
    landmarks = Landmarks(index)
    landmarks._known.update({int(row): Found(points=np.zeros((LANDMARKS, 2), np.float32), score=1.0) for row in rows})
    write_landmarks(output, [landmarks.to_table()])
    names = index.table["face"].combine_chunks()
    output.put(PEOPLE, Encodings(faces=names, values=np.zeros((len(rows), LENGTH), np.float32)).to_parquet())
    for key in (*PICTURES, "bundle/model.keras"):
        output.put(key, b"made of faces")


@pytest.fixture
def places(tmp_path: Path) -> tuple[LocalStorage, LocalStorage]:
    """Faces of six sources with two fakes each, and a training of them."""
    faces, model = LocalStorage(tmp_path / "faces"), LocalStorage(tmp_path / "model")
    write_output(faces, corpus(6))
    write_training(model, faces)
    return faces, model


def columns(sink: Storage, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(sink.read(key)))


def faces_of(sink: Storage, key: str) -> list[str]:
    """The face of each row; that which a fake was made of."""
    return [face.removesuffix(BLENDED) for face in columns(sink, key)["face"].to_pylist()]


def source_of(faces: Storage) -> tuple[str, set[str]]:
    """A source, and the faces that came from it."""
    index = load_index([faces])
    source = index.table["source_id"][0].as_py()
    named = [row["face"] for row in index.table.to_pylist() if row["source_id"] == source]
    return source, set(named)


def test_a_source_goes_from_faces_and_from_what_was_made_of_them(
    places: tuple[LocalStorage, LocalStorage], capsys: pytest.CaptureFixture[str]
) -> None:
    faces, model = places
    source, gone = source_of(faces)
    before = {key: faces_of(model, key) for key in TABLES}
    assert len(gone) == 3
    assert main(["--source", source, faces.root, model.root]) == 0
    for key in TABLES:
        assert faces_of(model, key) == [face for face in before[key] if face not in gone]
        assert columns(model, key).schema.metadata[b"fakesift.schema"]
    assert not any(model.exists(key) for key in PICTURES)
    assert model.exists("bundle/model.keras")
    assert sum(table.num_rows for table in face_tables(faces, list(read_commits(faces)))) == len(before[SPLITS]) - 3
    shown = capsys.readouterr()
    assert f"{model.root}: 3 videos, 3 faces removed" in shown.out
    assert "train anew" in shown.err
    [record] = load_purged(model).records
    assert record.finished_at and source.encode() not in model.read(record.key)

    assert main(["--source", source, faces.root, model.root]) == 0
    assert capsys.readouterr().out.count("nothing of it here") == 2
    assert len(load_purged(model).records) == 1


@pytest.mark.parametrize("of", ["uri", "key"])
def test_a_video_alone(places: tuple[LocalStorage, LocalStorage], of: str) -> None:
    _, model = places
    uri = columns(model, SPLITS)["video_uri"][4].as_py()
    name = uri if of == "uri" else uri.removeprefix("/in/")
    assert main(["--video", name, model.root]) == 0
    for key in TABLES:
        assert uri not in {face.split("#")[0] for face in faces_of(model, key)}
        assert len(set(faces_of(model, key))) == 17


def test_cut_off_at_any_change_it_goes_on(places: tuple[LocalStorage, LocalStorage], tmp_path: Path) -> None:
    faces, _ = places
    uri = load_index([faces]).table["video_uri"][0].as_py()
    for lives in range(100):
        output = LocalStorage(tmp_path / f"cut{lives}")
        write_training(output, faces)
        mortal = Mortal(output.root, lives)
        try:
            purge_training(mortal, [uri])
            cut = False
        except Killed:
            cut = True
            purge_training(output, [uri])
        assert all(len(set(faces_of(output, key))) == 17 for key in TABLES)
        assert not any(output.exists(key) for key in PICTURES)
        assert all(record.finished_at for record in load_purged(output).records)
        if not cut:
            break
    assert 5 < lives < 100
