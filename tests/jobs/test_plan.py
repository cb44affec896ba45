"""The plan through its command line, on drawn clips."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from batch.model.sizing import TrainSizing
from batch.storage.local import LocalStorage
from jobs.plan import plan
from jobs.plan_options import PreprocessPlan, ScorePlan, TrainPlan
from jobs.plan_train import place_workers, put_requests
from jobs.prices import PRICES, read_prices
from tests.support.job import fakesift
from tests.support.learnable import write_learnable
from tests.support.made_bundle import made_bundle


def figure(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found.group(1))


@pytest.mark.slow
def test_a_plan_scales_with_the_corpus(drawn: DrawnCorpus, tmp_path: Path) -> None:
    whole = fakesift("plan", "preprocess", drawn.folder, "--sample", 12, "--nodes", 2, "--videos", 1_000_000)
    assert whole.returncode == 0, whole.stderr
    assert f"{drawn.files} videos" in whole.stdout
    a_video_ms = figure(r"time +(\d+) ms", whole.stdout)
    hours = figure(r"work +([\d.]+) CPU hours", whole.stdout)
    assert hours == pytest.approx(a_video_ms * 1_000_000 / 3.6e6, rel=0.1)
    wall = figure(r"2 nodes +([\d.]+) h", whole.stdout)
    assert wall == pytest.approx(hours / (2 * 16 * 0.9), rel=0.02, abs=0.01)


@pytest.mark.slow
def test_a_training_run_is_planned_from_steps_of_its_own(tmp_path: Path) -> None:
    write_learnable(LocalStorage(tmp_path / "faces"))
    before = sorted(tmp_path.rglob("*"))
    few = ("--model", "cnn", "--batch-size", 16, "--epochs", 3, "--workers", 2, "--cpus-per-worker", 1, "--sample", 2)
    few = (*few, "--max-faces", 16_000)
    done = fakesift("plan", "train", tmp_path / "faces", *few, "--all-faces", 80_000)
    assert done.returncode == 0, done.stderr
    assert "one of 2 workers, 8 faces of each batch, with 1 CPU cores" in done.stdout
    assert figure(r"an epoch +(\d+) faces", done.stdout) == 16_000
    pace, fed = (figure(rf"{name} +([\d.]+) images/s", done.stdout) for name in ("steps, network", "input"))
    hours = figure(r"  network +([\d.]+) h", done.stdout)
    assert hours == pytest.approx(3 * 16_000 / (2 * min(pace, fed)) / 3600, rel=0.02, abs=0.01)
    assert figure(r"written +(\d+) requests", done.stdout) == pytest.approx(3 * 8 + 12, abs=3)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_night_is_planned_from_real_items_and_the_bundle(
    drawn: DrawnCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_bundle(LocalStorage(tmp_path / "bundle"))
    for name in ("OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "2")  # the plan sets them for the process that it has to itself otherwise
    places = (str(tmp_path / "bundle"), str(drawn.folder))
    options = ScorePlan(places=places, sample=4, frames=2, items=20_000, nodes=(2,), batch_size=8, runtime="keras")
    assert plan(options) == 0
    told = capsys.readouterr()
    assert f"looking at 4 of {drawn.files} items" in told.err
    faces = figure(r"model +[\d.]+ .*: (\d+) faces", told.out)
    assert faces == pytest.approx(20_000 * figure(r"([\d.]+) crops each", told.out), rel=0.1)
    look_ms = figure(r"time +(\d+) ms", told.out)
    assert figure(r"looking +([\d.]+) CPU", told.out) == pytest.approx(look_ms * 20_000 / 3.6e6, rel=0.1, abs=0.01)
    assert figure(r"model +([\d.]+) faces/s", told.out) > 0


def test_prices_are_the_users_to_edit(tmp_path: Path) -> None:
    copy = tmp_path / "prices.yaml"
    shutil.copyfile(PRICES, copy)
    copy.write_text(copy.read_text().replace("currency: USD", "currency: EUR").replace("cpus: 16", "cpus: 32"))
    prices = read_prices(copy)
    assert (prices.currency, prices.cpu_node.cpus) == ("EUR", 32)
    gets = prices.cost(prices.cpu_node, 2, 10.0, gets=5_000, puts=0)
    assert gets == pytest.approx(10 * (2 * 0.30 + 0.10) + 5 * 0.0004)
    copy.write_text("currency: EUR\n")
    with pytest.raises(ValueError, match=r"prices .*prices\.yaml: got KeyError"):
        read_prices(copy)
    copy.write_text("\n".join(line for line in PRICES.read_text().splitlines() if "gpu_node" not in line))
    without = read_prices(copy)
    assert without.node(gpus=False).name.startswith("c7i")
    with pytest.raises(ValueError, match="no gpu_node with a GPU"):
        without.node(gpus=True)
    copy.write_text(PRICES.read_text().replace("cpus: 16", "cpus: 0"))
    with pytest.raises(ValueError, match="expected 1 CPU or more"):
        read_prices(copy)


def test_an_empty_input_and_numbers_that_cannot_be(tmp_path: Path) -> None:
    done = fakesift("plan", "preprocess", tmp_path)
    assert done.returncode == 2
    assert "no mp4" in done.stderr
    with pytest.raises(ValueError, match="sample: got"):
        PreprocessPlan(input="x", sample=0)
    with pytest.raises(ValueError, match=r"videos: got \(0,\)"):
        PreprocessPlan(input="x", videos=0)
    assert PreprocessPlan(input="x").videos is None


def refused(options: PreprocessPlan | TrainPlan | ScorePlan) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        plan(options)
    return str(error.value)


def test_plans_of_training_and_scoring_name_what_is_wrong(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert "got no FACES" in refused(TrainPlan())
    assert "not an output of `fakesift preprocess`" in refused(TrainPlan(places=(nowhere,), model="cnn"))
    assert "workers: got 40" in refused(TrainPlan(places=(nowhere,), workers=40))
    for faces in (-1, 0):
        assert f"all faces: got ({faces},)" in refused(TrainPlan(places=(nowhere,), all_faces=faces))
    assert "sample: got (0,)" in refused(TrainPlan(places=(nowhere,), sample=0))
    assert "expected BUNDLE INPUT..." in refused(ScorePlan(places=(nowhere,)))
    assert "not a model bundle" in refused(ScorePlan(places=(nowhere, nowhere)))
    assert "items: got (0,)" in refused(ScorePlan(places=(nowhere, nowhere), items=0))
    assert "frames: got (0,)" in refused(ScorePlan(places=(nowhere, nowhere), frames=0))
    assert "unknown precision" in refused(TrainPlan(places=(nowhere,), precision="half"))  # type: ignore[arg-type]


def test_what_training_writes_is_counted_and_paid_for() -> None:
    state_bytes = 250_000_000  # of Xception: weights, their average, their best, and two moments
    sizing = TrainSizing(
        epoch_faces=16_000, look_cpu_hours=0, hours={}, exchange_s=0, bytes_read=0, get_requests=0,
        checkpoint_bytes=30.0 * state_bytes,
    )  # fmt: skip
    puts = put_requests(sizing, state_bytes)
    assert puts == 30 * (8 + 25) + 12
    prices = read_prices(PRICES)
    free = prices.cost(prices.cpu_node, 1, 1.0, gets=0, puts=0)
    assert prices.cost(prices.cpu_node, 1, 1.0, gets=0, puts=puts) == pytest.approx(free + puts * 0.005 / 1000)


def test_workers_are_put_where_they_have_room() -> None:
    prices = read_prices(PRICES)
    on_cpus = place_workers(TrainPlan(workers=5), prices.cpu_node, 4)
    assert (on_cpus.nodes, on_cpus.all_cpus) == (2, 32)
    on_gpus = TrainPlan(workers=4, gpus_per_worker=1)
    assert place_workers(on_gpus, prices.node(gpus=True), 1).nodes == 4
    large = replace(prices.node(gpus=True), gpus=8)
    assert place_workers(on_gpus, large, 1).nodes == 1
    assert place_workers(replace(on_gpus, backend="jax"), large, 1).nodes == 4, "each has a node to itself"
    with pytest.raises(ValueError, match="no room on g6"):
        place_workers(TrainPlan(gpus_per_worker=2), prices.node(gpus=True), 1)
