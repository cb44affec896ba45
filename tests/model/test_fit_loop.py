"""The loop on TensorFlow in one process: it learns, resumes exactly, stops at a NaN, and keeps the best weights."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from batch.faces.options import digest_of
from batch.model.augment import apply
from batch.model.fit.engine import use_backend
from batch.model.fit.feed import ReaderFeed
from batch.model.fit.loop import Hooks, StepReport, TrainingDivergedError, fit
from batch.model.fit.options import FitOptions
from batch.model.fit.scoring import LabelledScores, quick_metrics
from batch.model.network import NetworkOptions, build_network, check_network, logits_of
from batch.model.plan import DataOptions
from batch.model.reader import FaceReader
from batch.model.records import UNUSED, EpochRecord, Scores
from batch.model.sheet import augmented_sheet
from batch.storage.local import LocalStorage
from tests.support.drawn_faces import DrawnFeed
from tests.support.face_shards import write_index
from tests.support.fit_run import FitSpec, outcome, run

CNN = NetworkOptions(model="cnn")
QUICK = FitOptions(epochs=2, learning_rate=3e-3, checkpoint_minutes=None)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a CNN's backbone in a file, so that there is a head stage."""
    path = tmp_path_factory.mktemp("weights") / "cnn.weights.h5"
    build_network(CNN, 32).get_layer("backbone").save_weights(path)
    return str(path)


def test_it_learns_and_its_model_says_what_its_scores_say() -> None:
    feed = DrawnFeed(lanes=(40,) * 4, lane_batch=4)
    reports: list[StepReport] = []
    options = replace(QUICK, epochs=5, ema=0.8, warmup_epochs=0.5)
    result = fit(CNN, feed, options, hooks=Hooks(on_step=reports.append))
    assert [record.epoch for record in result.history] == [1, 2, 3, 4, 5]
    assert result.history[result.best].validation["auc"] > 0.95
    assert [(report.epoch, report.step) for report in reports] == [(e, s) for e in range(1, 6) for s in range(1, 11)]
    found = result.score(feed.validation())
    assert len(found.scores.rows) == 160
    batch = next(feed.validation().batches(0))
    expected = dict(zip(found.scores.rows.tolist(), found.scores.logits.tolist(), strict=True))
    probabilities = result.model().predict_on_batch(batch.images)[:, 0]
    logits = np.array([expected[row] for row in batch.rows.tolist()])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probabilities, atol=1e-5)


def test_scores_that_are_kept_are_those_of_the_saved_network() -> None:
    """Training may round to bfloat16; calibration and thresholds are of the network that the bundle holds."""
    feed = DrawnFeed(lanes=(12,) * 4, lane_batch=3)
    result = fit(replace(CNN, precision="mixed"), feed, replace(QUICK, epochs=2))
    [found] = result.saved_scores(feed.validation())
    rounded = result.score(feed.validation())
    assert np.array_equal(found.scores.rows, rounded.scores.rows)
    logits = dict(zip(found.scores.rows.tolist(), found.scores.logits.tolist(), strict=True))
    network = logits_of(result.model())
    for batch in feed.validation().batches(0):
        expected = network.predict_on_batch(batch.images.astype(np.float32))[:, 0]
        np.testing.assert_allclose([logits[row] for row in batch.rows.tolist()], expected, atol=1e-5)
    assert 1e-4 < np.abs(found.scores.logits - rounded.scores.logits).max() < 0.3


@pytest.mark.parametrize("stop_at", [6, 10], ids=["between the stages", "within an epoch"])
def test_a_resumed_run_is_the_uninterrupted_one(stop_at: int, pretrained: str, tmp_path: Path) -> None:
    spec = FitSpec(
        out=str(tmp_path / "whole"),
        network={"model": "cnn", "weights": pretrained, "dropout": 0.3, "dense_units": (8,)},
        options={
            "head_epochs": 1, "epochs": 2, "optimizer": "nadam", "ema": 0.9, "clip_norm": 0.5, "unfreeze": 2,
            "warmup_epochs": 0.5, "weight_decay": 0.01, "checkpoint_minutes": None, "checkpoint_steps": 4,
        },
    )  # fmt: skip
    run(spec)
    run(replace(spec, out=str(tmp_path / "first"), stop_at=stop_at))
    assert not (tmp_path / "first" / "history.json").exists()
    run(replace(spec, out=str(tmp_path / "second"), restore=str(tmp_path / "first" / "checkpoint")))
    whole, resumed = outcome(tmp_path / "whole"), outcome(tmp_path / "second")
    assert [record.stage for record in whole.history] == ["head", "whole", "whole"]
    for mine, theirs in zip(whole.history, resumed.history, strict=True):
        assert (mine.epoch, mine.step, mine.stage) == (theirs.epoch, theirs.step, theirs.stage)
        assert (mine.loss, mine.learning_rate) == pytest.approx((theirs.loss, theirs.learning_rate), abs=1e-6)
        assert mine.validation == pytest.approx(theirs.validation, abs=1e-6)
    for mine, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


def keep_last(folder: Path) -> tuple[list[EpochRecord | None], Hooks]:
    """A list of what on_checkpoint was given, and the hook that copies the folder."""
    seen: list[EpochRecord | None] = []

    def on_checkpoint(made: Path | None, record: EpochRecord | None) -> None:
        assert made is not None
        folder.mkdir(exist_ok=True)
        for path in made.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        seen.append(record)

    return seen, Hooks(on_checkpoint=on_checkpoint)


def test_a_finished_run_gives_its_result_again_and_trains_nothing(tmp_path: Path) -> None:
    seen, hooks = keep_last(tmp_path / "kept")
    first = fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), hooks=hooks)
    again = fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), hooks=hooks, restore=tmp_path / "kept")
    assert len(seen) == 1
    assert again.history == first.history
    for mine, theirs in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_clock_makes_checkpoints_within_an_epoch(tmp_path: Path) -> None:
    seen, hooks = keep_last(tmp_path / "kept")
    feed = DrawnFeed(lanes=(25, 25))
    fit(CNN, feed, replace(QUICK, epochs=1, checkpoint_minutes=0.0), hooks=hooks)
    assert [record and record.epoch for record in seen] == [None, 1]


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    seen, hooks = keep_last(tmp_path / "kept")

    class Poisoned(DrawnFeed):
        def training(self, epoch: int) -> Any:
            made = super().training(epoch)
            if epoch < 2:
                return made
            return replace(made, batches=lambda start: (replace(b, total_weight=0.0) for b in made.batches(start)))

    with pytest.raises(TrainingDivergedError, match="at step 1 of epoch 2"):
        fit(CNN, Poisoned(), QUICK, hooks=hooks)
    assert [record and record.epoch for record in seen] == [1]
    resumed = fit(CNN, DrawnFeed(), QUICK, restore=tmp_path / "kept")
    assert [record.epoch for record in resumed.history] == [1, 2]


def test_weights_that_are_no_numbers_are_never_a_checkpoint(pretrained: str, tmp_path: Path) -> None:
    seen, hooks = keep_last(tmp_path / "kept")
    network = replace(CNN, weights=pretrained)
    # No float32 is as large as this rate: the network's first step spoils its weights, and the loss before it is good.
    options = replace(QUICK, head_epochs=1, learning_rate=1e41, checkpoint_steps=1)
    with pytest.raises(TrainingDivergedError, match="weights are not finite after step 7 of the run"):
        fit(network, DrawnFeed(), options, hooks=hooks)
    assert [record and record.epoch for record in seen] == [*[None] * 5, 1]
    with np.load(tmp_path / "kept" / "network.npz") as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files)


@pytest.mark.parametrize("stage", ["head", "whole"])
def test_a_wrong_number_of_blocks_shows_before_the_first_step(stage: str, pretrained: str) -> None:
    network = replace(CNN, weights=pretrained if stage == "head" else "none")
    reports: list[StepReport] = []
    options = replace(QUICK, head_epochs=1, unfreeze=9)
    with pytest.raises(ValueError, match="unfreeze: received 9, expected 'whole' or 1 to "):
        fit(network, DrawnFeed(), options, hooks=Hooks(on_step=reports.append))
    assert not reports
    with pytest.raises(ValueError, match="unfreeze: received 9"):
        check_network(network, 32, 9)
    check_network(network, 32, 2)


def test_the_best_epoch_is_the_result_and_patience_ends_the_stage() -> None:
    # From the second epoch on the labels are wrong.
    class Turning(DrawnFeed):
        def training(self, epoch: int) -> Any:
            made = super().training(epoch)
            if epoch == 1:
                return made
            return replace(made, batches=lambda start: (replace(b, labels=1 - b.labels) for b in made.batches(start)))

    feed = Turning(lanes=(60,) * 4, lane_batch=4)
    options = replace(QUICK, epochs=9, patience=2, schedule="constant")
    result = fit(CNN, feed, options)
    assert result.best < len(result.history) - 1 < 8
    found = result.score(feed.validation())
    losses = np.logaddexp(0, found.scores.logits) - found.labels * found.scores.logits
    assert np.average(losses, weights=found.weights) == pytest.approx(
        result.history[result.best].validation["loss"], abs=1e-5
    )


def test_epochs_are_judged_at_the_odds_they_are_trained_at(tmp_path: Path) -> None:
    """Four fakes to a real: an epoch that calls all fake is no good one, unless nothing is balanced."""
    index = write_index(LocalStorage(tmp_path), [[0, 1, 1, 1, 1] * 4])
    rows = np.arange(20)
    for balance, accuracy in (("downsample", 0.5), ("weights", 0.5), ("none", 0.8)):
        data = DataOptions(batch_size=8, balance=balance, augment="none")  # type: ignore[arg-type]
        with FaceReader(index, data) as reader:
            batches = list(ReaderFeed(reader, index, rows, rows, data).validation().batches(0))  # type: ignore[union-attr]
        used = np.concatenate([batch.rows for batch in batches]) != UNUSED
        labels, weights = (np.concatenate([getattr(b, name) for b in batches])[used] for name in ("labels", "weights"))
        scores = Scores(rows=rows, logits=np.full(20, 3, np.float32))
        found = quick_metrics(LabelledScores(scores=scores, labels=labels, weights=weights))
        assert found["accuracy"] == pytest.approx(accuracy)
        assert found["loss"] == pytest.approx(np.log1p(np.exp(-3)) + 3 * (1 - accuracy), abs=1e-6)


def test_a_checkpoint_of_other_options_or_in_pieces_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    _, hooks = keep_last(kept)
    fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), hooks=hooks)
    with pytest.raises(ValueError, match=r"learning_rate: received 0.5, expected 0.003"):
        fit(CNN, DrawnFeed(), replace(QUICK, epochs=1, learning_rate=0.5), restore=kept)
    state = (kept / "state.json").read_text()
    other = {**json.loads(state), "version": 0}
    other["digest"] = digest_of({name: value for name, value in other.items() if name != "digest"})
    (kept / "state.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="received version 0, expected 2"):
        fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), restore=kept)
    (kept / "state.json").write_text(state.replace('"step": ', '"step": 1'))
    with pytest.raises(ValueError, match=r"damaged checkpoint: received .*kept.*digest"):
        fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), restore=kept)
    (kept / "state.json").write_text(state[:-9])
    with pytest.raises(ValueError, match=r"damaged checkpoint: received .*kept"):
        fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), restore=kept)
    (kept / "state.json").write_text(state)
    (kept / "optimizer.npz").write_bytes((kept / "optimizer.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"damaged checkpoint: received .*kept"):
        fit(CNN, DrawnFeed(), replace(QUICK, epochs=1), restore=kept)


def test_it_trains_on_shards_through_the_reader_with_augmentation(tmp_path: Path) -> None:
    labels = [[0, 1] * 6, [1] * 7 + [0] * 4]
    index = write_index(LocalStorage(tmp_path), labels)
    data = DataOptions(batch_size=4, augment="robust")
    train, held_out = np.arange(12), np.arange(12, 23)
    with FaceReader(index, data) as reader:
        feed = ReaderFeed(reader, index, train, held_out, data)
        seen: list[StepReport] = []
        sheets: list[bytes] = []

        def on_step(report: StepReport) -> None:  # the same reader gives a sheet while the epoch goes on
            seen.append(report)
            if len(seen) == 1:
                sheets.append(augmented_sheet(reader, index, train, data))

        result = fit(CNN, feed, QUICK, hooks=Hooks(on_step=on_step), augment=partial(apply, recipe="robust"))
        found = result.score(feed.scan(held_out))
    assert [(report.step, report.steps) for report in seen] == [(1, 3), (2, 3), (3, 3)] * 2
    assert sheets[0].startswith(b"\x89PNG")
    assert found.scores.rows.tolist() == held_out.tolist()
    assert found.labels.tolist() == labels[1]
    assert set(result.history[-1].validation) == {"loss", "accuracy", "auc"}


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.model.fit.engine.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"jax is not installed; expected it .jax is the extra fakesift\[jax\]"):
        use_backend("jax")


def test_a_keras_of_another_backend_is_refused() -> None:
    assert keras.backend.backend() == "tensorflow"
    with pytest.raises(ValueError, match="received tensorflow, expected jax; set KERAS_BACKEND=jax"):
        use_backend("jax")
