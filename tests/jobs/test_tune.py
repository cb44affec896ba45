"""Tuning from the command line, on Ray Tune: it is killed, goes on, and ends with every configuration once."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest

from batch.model.fit.options import FitOptions
from batch.model.network import NetworkOptions, build_network
from batch.model.plan import DataOptions
from batch.model.records import EpochRecord
from batch.model.tuning.recipe import option_types
from batch.model.tuning.records import Progress, Status, Trial, TrialResult
from batch.model.tuning.store import TrialStore, trials_of
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.train_config import with_config
from jobs.train_options import TrainOptions
from jobs.tune import tune
from jobs.tune_options import Resources, TuneOptions
from jobs.tune_optuna import OptunaSource
from jobs.tune_plan import plan_configurations
from tests.support.face_outputs import SIDE
from tests.support.job import ROOT, fakesift
from tests.support.learnable import write_learnable
from tests.support.processes import family, kill_all

GRID = """
fixed: {{model: cnn, augment: reference, batch_size: 16, schedule: constant}}
rows:
  - {{name: too fast, weights: none, epochs: 2, optimizer: sgd, learning_rate: 1e18}}
grid:
  weights: [none, "{weights}"]
  epochs:
    - {{choices: [8], when: {{weights: none}}}}
    - {{choices: [0], when: {{weights: "{weights}"}}}}
  head_epochs: {{choices: [3], when: {{weights: "{weights}"}}}}
  head_learning_rate: {{choices: [0.01], when: {{weights: "{weights}"}}}}
  learning_rate: {{choices: [0.003], when: {{weights: none}}}}
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnable") / "faces"
    write_learnable(LocalStorage(folder))
    return folder


def rows_of(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "trials.csv").read_text())))


class Killed(NamedTuple):
    """What a command came to whose trials were killed, and then its driver."""

    command: list[str]
    output: LocalStorage
    trial: str
    """One that ran when the trials were killed."""
    progress: Progress
    """Of that trial, by then."""


def under_way(output: LocalStorage) -> tuple[str, Progress] | None:
    """A trial that has done two epochs, and goes on."""
    for name in trials_of(output):
        store = TrialStore(output, name)
        progress = store.progress()
        if len(progress.history) >= 2 and store.result() is None:
            return name, progress
    return None


def trial_processes(job: int) -> list[int]:
    """Those of Ray that run trials, as they name themselves."""
    return [pid for pid in family(job) if b"ImplicitFunc" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def killed_twice(command: list[str], output: LocalStorage, said: Path) -> tuple[str, Progress]:
    """Kills all trials once one is under way, and the driver at the first end that follows."""
    with said.open("w") as stderr, subprocess.Popen(command, cwd=ROOT, stderr=stderr, stdout=stderr) as job:
        try:
            while (found := under_way(output)) is None:
                assert job.poll() is None, said.read_text()
                time.sleep(0.05)
            kill_all(trial_processes(job.pid))
            while not re.search(rf"(?s){found[0]}: its process was lost.*\n[0-9]/6 ", said.read_text()):
                assert job.poll() is None, said.read_text()
                time.sleep(0.05)
        finally:
            kill_all(family(job.pid))
    return found


@pytest.fixture(scope="module")
def search(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("search")
    weights = folder / "cnn.weights.h5"
    build_network(NetworkOptions(model="cnn"), SIDE).get_layer("backbone").save_weights(weights)
    (folder / "grid.yaml").write_text(GRID.format(weights=weights))
    arguments = ["tune", str(faces), str(folder / "tuned"), "--grid", str(folder / "grid.yaml"), "--seeds", "2"]
    output = LocalStorage(folder / "tuned")
    trial, progress = killed_twice([sys.executable, "-m", "jobs.cli", *arguments], output, folder / "said")
    return Killed(arguments, output, trial, progress)


@pytest.fixture(scope="module")
def tuned(search: Killed) -> Path:
    """What the same command made of it."""
    output = Path(search.output.root)
    ended = {path: path.read_bytes() for path in output.glob("trials/*/result.json")}
    assert len(ended) >= 1 and not (output / "summary.json").exists()
    told = fakesift("status", output)
    assert told.returncode == 0 and re.search(r"trials +[1-5] of 6 ended", told.stdout) and "unfinished" in told.stdout
    done = fakesift(*search.command)
    assert done.returncode == 0, done.stderr
    assert "of 6 trials had ended before" in done.stderr
    assert all(path.read_bytes() == data for path, data in ended.items())
    return output


@pytest.mark.slow
def test_a_search_ends_with_a_table_a_page_and_a_bundle(faces: Path, tmp_path: Path) -> None:
    grid, output = tmp_path / "grid.yaml", tmp_path / "tuned"
    grid.write_text("fixed: {model: cnn, epochs: 1, batch_size: 16}\ngrid:\n  learning_rate: [0.003, 1e18]\n")

    done = fakesift("tune", faces, output, "--grid", grid)

    assert done.returncode == 0, done.stderr
    assert sorted((row["status"], float(row["option_learning_rate"])) for row in rows_of(output)) == [
        ("failed", 1e18),
        ("finished", 0.003),
    ]
    summary = json.loads((output / "summary.json").read_text())
    assert json.loads((output / "bundle/bundle.json").read_text())["digest"] == summary["bundle_digest"]
    assert "test split was read once" in (output / "report.html").read_text()
    assert "learning_rate: 0.003" in (output / "best.yaml").read_text()


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_trial_goes_on_after_its_last_epoch(search: Killed, tuned: Path) -> None:
    result = TrialStore(search.output, search.trial).result()
    assert result is not None and result.status == Status.FINISHED
    assert result.attempts >= 2 and result.attempts > search.progress.attempts
    done = len(search.progress.history)
    # To the microsecond: none of them was trained again.
    assert result.history[:done] == search.progress.history
    assert [record.epoch for record in result.history] == list(range(1, len(result.history) + 1))
    row = next(row for row in rows_of(tuned) if row["trial"] == search.trial)
    assert (int(row["attempts"]), int(row["epochs"])) == (result.attempts, len(result.history))


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_search_goes_on_to_every_configuration_once(search: Killed, tuned: Path) -> None:
    rows = rows_of(tuned)
    assert len(rows) == 6 == len({(row["configuration"], row["seed"]) for row in rows})
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["name"] for row in failed] == ["too fast"] * 2 and all("loss is" in row["reason"] for row in failed)
    assert sorted(row["shared"] for row in rows if row not in failed) == ["features"] * 2 + ["pixels"] * 2
    assert not list(tuned.glob("trials/*/weights")) and not list(tuned.glob("trials/*/checkpoint*"))
    assert len(list(tuned.glob("tensorboard/*/events*"))) == 4
    summary = json.loads((tuned / "summary.json").read_text())
    assert summary["trials"] == {"finished": 4, "stopped": 0, "failed": 2, "skipped": 0}
    page = (tuned / "report.html").read_text()
    assert "test split was read once" in page and "too fast" in page
    bundle = json.loads((tuned / "bundle/bundle.json").read_text())
    assert bundle["digest"] == summary["bundle_digest"]
    assert "nothing to do" in fakesift(*search.command).stderr


@pytest.mark.slow
@pytest.mark.soak
def test_the_best_configuration_trained_again_gives_its_figure(faces: Path, tuned: Path, tmp_path: Path) -> None:
    done = fakesift("train", "--config", tuned / "best.yaml", faces, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model/splits.parquet").read_bytes() == (tuned / "splits.parquet").read_bytes()
    mine, theirs = (json.loads((each / "summary.json").read_text()) for each in (tuned, tmp_path / "model"))
    best = mine["best"]["configuration"]
    row = next(row for row in rows_of(tuned) if row["configuration"] == best and row["seed"] == "0")
    losses = [float(each["validation_loss"]) for each in csv.DictReader((tmp_path / "model/history.csv").open())]
    mean, low, high = mine["best"]["validation"]["loss"]
    assert low <= min(losses) <= high and low < mean < high, "the interval of the table"
    assert min(losses) == pytest.approx(float(row["validation_loss"]), abs=2e-3), "the same seed's own figure"
    figures = (each["metrics"]["test"]["videos"]["auc"] for each in (mine, theirs))
    assert next(figures) == pytest.approx(next(figures), abs=0.02)


BEHIND = """
fixed: {model: cnn, weights: none, augment: none, batch_size: 16, schedule: constant, epochs: 4}
rows: [{name: learns, optimizer: adam, learning_rate: 0.003}]
grid:
  optimizer: [sgd]
  momentum: [0]
  learning_rate: {log: [1e-10, 1e-9]}
"""


@pytest.mark.slow
@pytest.mark.soak
def test_a_budget_ends_and_asha_stops_trials_of_two_workers_in_s3(faces: Path, s3_bucket: str, tmp_path: Path) -> None:
    output = open_storage(f"s3://{s3_bucket}/tuned", S3Options(endpoint=os.environ["AWS_ENDPOINT_URL"]))
    (tmp_path / "grid.yaml").write_text(BEHIND)
    command = ("tune", faces, output.root, "--grid", tmp_path / "grid.yaml", "--search", "random", "--trials", 2,
               "--scheduler", "asha", "--workers", 2, "--resources-per-trial", "cpu=2")  # fmt: skip
    short = fakesift(*command, "--budget-minutes", 0.01)
    assert short.returncode == 1 and "no configuration finished" in short.stderr
    rows = list(csv.DictReader(io.StringIO(output.read("trials.csv").decode())))
    assert [row["status"] for row in rows] == ["skipped"] * 2
    assert {row["reason"] for row in rows} == {"the budget of 0.01 minutes was used up: never ran"}
    done = fakesift(*command)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(output.read("trials.csv").decode())))
    assert [(row["status"], row["epochs"]) for row in rows] == [("finished", "4"), ("stopped", "1")]
    assert rows[1]["reason"] == "by the scheduler, after epoch 1: others were better by then"
    summary = json.loads(output.read("summary.json"))
    assert summary["best"]["name"] == "learns" and output.exists("bundle/bundle.json")
    assert not [item.key for item in output.list("trials/") if "checkpoint" in item.key]
    told = fakesift("status", output.root)
    assert told.returncode == 0 and "finished 1, stopped 1" in told.stdout


def refused(*places: Path, **options: object) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        tune(TuneOptions(places=tuple(map(str, places)), **options))  # type: ignore[arg-type]
    return str(error.value)


def test_bad_input_is_named_before_anything_is_written(faces: Path, tmp_path: Path) -> None:
    output, grid = tmp_path / "out", tmp_path / "grid.yaml"
    assert "lies inside" in refused(faces, faces / "tuned")
    assert "FACES... OUTPUT" in refused(faces)
    assert "expected ablation or a YAML file" in refused(faces, output, grid=str(tmp_path / "none.yaml"))
    grid.write_text("grid: [")
    assert "not YAML" in refused(faces, output, grid=str(grid))
    grid.write_text("grid: {optimizer: [adam, adamw]}")
    assert "adamw without weight_decay" in refused(faces, output, grid=str(grid))
    grid.write_text("grid: {dropout: {range: [0, 0.5]}}")
    assert "dropout: received a range" in refused(faces, output, grid=str(grid))
    assert "expected --trials N" in refused(faces, output, grid=str(grid), search="random")
    assert "expected 1 or more" in refused(faces, output, seeds=0)
    assert "minutes" in refused(faces, output, budget_minutes=-1.0)
    assert "multiple of their number of cores" in refused(faces, output, workers=2)
    for wrong in ("cpu", "cpu=0", "cpu=1,cpu=2", "tpu=1", "gpu=1.5", "cpu=-1"):
        with pytest.raises(ValueError, match="resources per trial"):
            Resources.parse(wrong)
    assert Resources.parse("gpu=0.25, cpu=2") == Resources(cpus=2.0, gpus=0.25)
    assert not output.exists()


def test_options_of_a_file_hold_where_the_command_line_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("model: cnn\nlearning_rate: 1e-2\ndense_units: [64, 8]\nmax_faces: null\nseed: 3\n")
    found = with_config(TrainOptions, ["--config", str(path), "faces", "out"])
    assert found == TrainOptions(model="cnn", learning_rate=0.01, dense_units=(64, 8), max_faces=None, seed=3)
    assert with_config(TrainOptions, ["faces", "out"]) is None
    overridden = with_config(TrainOptions, ["--config", str(path), "--dense-units", "16"])
    assert overridden is not None and overridden.dense_units == ()
    for text, named in (
        ("modle: cnn", "unknown option modle"), ("epochs: many", "bad epochs: received 'many'"), ("- a", "a mapping"),
        ("{", "not YAML"), ("places: [a, b]", "unknown option places"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=named):
            with_config(TrainOptions, ["--config", str(path)])


def test_every_option_that_shapes_a_model_is_an_axis_that_train_takes() -> None:
    parts = (NetworkOptions, DataOptions, FitOptions)
    shaping = {field.name for part in parts for field in fields(part)} & set(TrainOptions.__dataclass_fields__)
    assert shaping - set(option_types()) == {"seed", "backend", "cache", "cache_mb", "checkpoint_minutes"}
    assert set(option_types()) <= set(TrainOptions.__dataclass_fields__), "best.yaml names them"


def made_of(trial: Trial) -> TrialResult:
    """A loss that is least for adam at a rate of 0.01."""
    rate = float(str(trial.configuration["learning_rate"]))
    loss = abs(math.log10(rate) + 2) + (0.0 if trial.configuration["optimizer"] == "adam" else 1.0) + 0.01 * trial.seed
    record = EpochRecord(
        stage="whole", epoch=1, step=1, loss=loss, learning_rate=rate, images_per_second=1.0, seconds=1.0,
        validation={"loss": loss},
    )  # fmt: skip
    return TrialResult(trial=trial, status=Status.FINISHED, history=(record,), best=0)


def test_optuna_suggests_what_the_space_holds_and_knows_what_was_found(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    path = tmp_path / "grid.yaml"
    path.write_text(
        "fixed: {model: cnn}\nrows: [{name: usual, optimizer: adam, learning_rate: 1e-4}]\n"
        "grid: {optimizer: [sgd, adam], learning_rate: {log: [1e-5, 1]}, "
        "momentum: {range: [0, 0.9], when: {optimizer: sgd}}}"
    )
    options = TuneOptions(places=("a", "b"), grid=str(path), search="optuna", trials=40, seeds=2)
    rows = plan_configurations(options, options.tried())
    source = OptunaSource(options, options.tried(), rows, [])
    found: list[tuple[Trial, TrialResult | None]] = []
    while len(found) < 41 and (trial := source.next()):
        found.append((trial, made_of(trial)))
        source.told(made_of(trial))
    assert [trial.name for trial, _ in found[:3]] == ["usual", "usual", ""]
    found[-1] = (found[-1][0], None)  # was asked, and then the driver died
    resumed = OptunaSource(options, options.tried(), rows, found)
    while trial := resumed.next():
        assert len(found) > 41 or trial == found[40][0] or trial.seed == 1
        found.append((trial, made_of(trial)))
        resumed.told(made_of(trial))
    configurations = [trial.configuration for trial, _ in found if trial.seed == 1]
    assert len(configurations) == 40 == len({str(each) for each in configurations})
    assert all(("momentum" in each) == (each["optimizer"] == "sgd") for each in configurations)
    last = configurations[-10:]
    assert sum(each["optimizer"] == "adam" for each in last) >= 7
    assert min(made_of(trial).validation["loss"] for trial, _ in found) < 0.15
