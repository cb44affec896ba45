"""Training and evaluation from the command line, on Ray Train, with real networks on small faces."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.faces.options import CropOptions, FaceOptions
from batch.storage.local import LocalStorage
from jobs.train import train
from jobs.train_options import TrainOptions
from tests.support.face_outputs import real, write_output
from tests.support.job import ROOT, fakesift
from tests.support.learnable import write_learnable

TRAIN = (
    *("--model", "cnn", "--epochs", 5, "--learning-rate", 0.003, "--batch-size", 16, "--augment", "reference"),
    *("--workers", 2, "--ema", 0.8, "--clip-norm", 1.0),
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnable") / "faces"
    write_learnable(LocalStorage(folder))
    return folder


@pytest.fixture(scope="module")
def calm(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("calm") / "model"
    done = fakesift("train", faces, output, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "train        28 real, 28 fake" in done.stdout, done.stdout
    return output


def history(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "history.csv").read_text())))


@pytest.mark.slow
def test_it_learns_and_leaves_a_bundle_that_accounts_for_itself(calm: Path) -> None:
    summary = json.loads((calm / "summary.json").read_text())
    assert summary["metrics"]["test"]["videos"]["auc"][0] > 0.95
    bundle = json.loads((calm / "bundle/bundle.json").read_text())
    assert bundle["digest"] == summary["bundle_digest"]
    assert bundle["split_digest"] and bundle["data_digest"]
    table = pq.read_table(calm / "predictions.parquet")
    assert set(table["split"].to_pylist()) == {"validation", "test"}
    assert table.num_rows == sum(sum(summary["splits"][name].values()) for name in ("validation", "test"))
    for name in ("bundle/report.html", "bundle/MODEL_CARD.md", "augmented.png", "splits.parquet"):
        assert (calm / name).stat().st_size > 1000
    assert len(list((calm / "tensorboard").iterdir())) == 1
    told = fakesift("status", calm)
    assert told.returncode == 0 and "best epoch" in told.stdout and told.stdout.count("validation auc") == 5


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_run_goes_on_to_the_same_curve(faces: Path, calm: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    command = [sys.executable, "-m", "jobs.cli", "train", str(faces), str(output), *map(str, TRAIN)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as job:
        assert job.stderr is not None
        for line in job.stderr:
            if line.startswith("epoch 2 "):
                job.kill()
                break
    done = fakesift("train", faces, output, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 " not in done.stderr
    columns = ("loss", "validation_loss", "validation_auc")
    resumed, whole = ([[float(row[name]) for name in columns] for row in history(each)] for each in (output, calm))
    np.testing.assert_allclose(resumed, whole, atol=1e-3)
    again = fakesift("train", faces, output, *TRAIN)
    assert again.returncode == 0 and "nothing to do" in again.stderr


@pytest.mark.slow
def test_evaluate_refuses_what_was_seen_and_both_backends_agree(faces: Path, calm: Path, tmp_path: Path) -> None:
    seen = fakesift("evaluate", calm / "bundle", faces)
    assert seen.returncode == 2
    assert "the model was trained on" in seen.stderr and "--allow-seen" in seen.stderr
    fresh = tmp_path / "fresh"
    write_learnable(LocalStorage(fresh), sources=8, first=500)
    found = []
    for backend in ("tensorflow", "jax"):
        output = tmp_path / backend
        done = fakesift("evaluate", calm / "bundle", fresh, "--output", output, "--backend", backend)
        assert done.returncode == 0, done.stderr
        assert "8 real and 8 fake videos" in done.stdout
        found.append(pq.read_table(output / "predictions.parquet"))
    assert found[0]["face"].equals(found[1]["face"])
    np.testing.assert_allclose(found[0]["logit"].to_numpy(), found[1]["logit"].to_numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.soak
def test_jax_trains_with_two_workers(faces: Path, tmp_path: Path) -> None:
    short = ("--model", "cnn", "--batch-size", 16, "--augment", "none", "--workers", 2, "--backend", "jax")
    done = fakesift("train", faces, tmp_path / "jax", *short, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "jax")) == 2


def refused(*places: Path, **options: object) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        train(TrainOptions(places=tuple(map(str, places)), model="cnn", **options))  # type: ignore[arg-type]
    return str(error.value)


def test_bad_input_is_named_before_anything_is_written(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    reals, small = tmp_path / "reals", tmp_path / "small"
    write_output(LocalStorage(reals), [real(f"p/{number}.mp4") for number in range(9)])
    options = FaceOptions(crop=CropOptions(crop_size=32))
    write_output(LocalStorage(small), [real("p/1.mp4")], options=options, root="/other")
    assert "no fake face in train" in refused(reals, output)
    assert "crop_size 64 and 32" in refused(faces, small, output)
    assert "not an output of `fakesift preprocess`" in refused(tmp_path / "nowhere", output)
    assert "FACES... OUTPUT" in refused(faces)
    assert "workers: got 17" in refused(faces, output, workers=17)
    assert "lies inside" in refused(faces, faces / "model")
    assert "unknown model: received 'vgg'" in str(_error(lambda: TrainOptions(model="vgg").shaping()))
    assert not output.exists()


def test_an_output_keeps_its_options(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("private")
    assert "not empty and not ours" in refused(faces, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def _error(call: object) -> BaseException:
    with pytest.raises(ValueError, match=r".") as error:
        call()  # type: ignore[operator]
    return error.value
