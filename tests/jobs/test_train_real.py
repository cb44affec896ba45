"""Xception on the faces of real clips, from the weights that lie beside: killed, gone on with, evaluated."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.job import fakesift
from tests.support.processes import started, told_until

SHARED = Path(__file__).parents[3] / "shared"
CLIPS, WEIGHTS = SHARED / "corpus", SHARED / "weights/xception_imagenet_notop.weights.h5"


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(not (CLIPS.is_dir() and WEIGHTS.is_file()), reason="clips or weights of ../shared are not there")
def test_real_clips_train_two_workers_that_are_killed_and_go_on(tmp_path: Path) -> None:
    faces, model = tmp_path / "faces", tmp_path / "model"
    done = fakesift("preprocess", CLIPS, faces)
    assert done.returncode == 0, done.stderr
    asked = (
        *("train", faces, model, "--weights", WEIGHTS, "--features", "multi", "--workers", 2),
        *("--batch-size", 8, "--head-epochs", 1, "--epochs", 2, "--augment", "reference"),
    )
    job = started(*asked)
    try:
        told_until(job, "epoch 2 ")
    finally:
        job.kill()
        job.communicate()
    done = fakesift(*asked)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 " not in done.stderr
    with (model / "history.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["head", "whole", "whole"]
    asked = ("evaluate", model / "bundle", faces, "--output", tmp_path / "judged")
    assert "belong to what the model was trained on" in fakesift(*asked).stderr
    done = fakesift(*asked, "--allow-seen")
    assert done.returncode == 0, done.stderr
    judged = json.loads((tmp_path / "judged/summary.json").read_text())
    assert judged["seen_faces"] > 0
    table = pq.read_table(tmp_path / "judged/predictions.parquet", columns=["face", "label"])
    assert set(table["label"].to_pylist()) == {0, 1}
    assert (tmp_path / "judged/report.html").stat().st_size > 10_000
