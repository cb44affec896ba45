"""Figures of predictions: equal to scikit-learn's and Keras', with intervals that hold what they should."""

import json
from dataclasses import replace

import keras
import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from batch.model.aggregate import Aggregation
from batch.model.bootstrap import Sample, draw_counts, ranked, resampled_sums
from batch.model.evaluation import EvaluationOptions, evaluate_predictions
from batch.model.judgement import face_sample
from batch.model.metrics import NAMES, metrics, precision_at, rates
from batch.model.thresholds import Thresholds
from batch.schemas import predictions_schema
from tests.support.predicted import predictions

FAST = EvaluationOptions(resamples=200)


def judged(table: pa.Table, **further):
    return evaluate_predictions(
        table, name="test", aggregation=Aggregation(), thresholds=Thresholds(equal_error=0.4), options=FAST, **further
    )


def sample(seed: int = 0, groups: int = 30, ties: bool = False) -> Sample:
    found = face_sample(predictions(groups=groups, seed=seed))
    return replace(found, scores=np.round(found.scores, 1)) if ties else found


@pytest.mark.parametrize("ties", [False, True])
def test_resamples_by_rank_equal_scikit_learn_on_the_rows_they_stand_for(ties: bool) -> None:
    found = sample(ties=ties)
    counts, grid = draw_counts(found.groups, 6, 3), np.linspace(0, 1, 11)
    drawn = ranked(found, counts, grid)
    for row in range(6):
        rows = np.repeat(np.arange(len(found)), counts[row].astype(int)[found.groups])
        y, p = found.labels[rows], found.scores[rows]
        assert drawn.auc[row] == pytest.approx(roc_auc_score(y, p))
        assert drawn.average_precision[row] == pytest.approx(average_precision_score(y, p))
        fpr, tpr, _ = roc_curve(y, p, drop_intermediate=False)
        assert drawn.tpr_at[0][row] == pytest.approx(tpr[fpr <= 0.01].max())
        np.testing.assert_allclose(drawn.tpr_on_grid[row], np.interp(grid, fpr, tpr))
        below, above = np.interp([drawn.equal_error_rate[row] - 1e-6, drawn.equal_error_rate[row] + 1e-6], fpr, 1 - tpr)
        assert above - 1e-6 <= drawn.equal_error_rate[row] <= below + 1e-6


def test_resamples_draw_whole_groups() -> None:
    groups = np.array([0, 0, 2, 2, 2])
    counts = draw_counts(groups, 50, 0)
    assert counts.shape == (50, 3)
    assert (counts.sum(axis=1) == 2).all(), "as many groups as there are"
    assert (counts[:, 1] == 0).all()
    sums = resampled_sums(np.ones((5, 1)), groups, counts)[:, 0]
    assert set(sums) == {4.0, 5.0, 6.0}


def test_loss_and_accuracy_are_those_of_keras() -> None:
    table = predictions(groups=20, warmth=3)
    probabilities = expit(table["logit"].to_numpy())
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile(loss="binary_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(probabilities[:, None], table["label"].to_numpy()[:, None], verbose=0)
    found = judged(table).faces.metrics
    assert found["loss"].value == pytest.approx(loss, rel=1e-5)
    assert found["accuracy"].value == pytest.approx(accuracy)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = metrics(sample(seed=99, groups=4000), "faces", resamples=100, seed=0)
    held = dict.fromkeys(("auc", "accuracy", "log_loss", "balanced_accuracy", "equal_error_rate"), 0)
    for seed in range(60):
        found = metrics(sample(seed=seed, groups=60), "faces", resamples=200, seed=seed)
        for name in held:
            held[name] += found[name].low <= truth[name].value <= found[name].high
    # 95% of 60 is 57; a share under 50 of 60 comes up once in some thousand such tests.
    assert min(held.values()) >= 50, held


def test_faces_of_a_group_are_not_taken_for_independent() -> None:
    found = sample(groups=40)
    alone = replace(found, groups=np.arange(len(found)))
    together, apart = (metrics(s, "faces", resamples=400, seed=0)["accuracy"] for s in (found, alone))
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_a_figure_that_cannot_be_told_says_why() -> None:
    fakes = predictions(groups=6)
    fakes = fakes.filter(pa.compute.equal(fakes["label"], 1))
    found = judged(fakes)
    for name in ("auc", "average_precision", "equal_error_rate", "balanced_accuracy", "expected_calibration_error"):
        assert found.faces.metrics[name].value is None
        assert found.faces.metrics[name].reason == "only fake faces"
    assert found.videos.metrics["accuracy"].value is not None
    assert found.videos.curves is None
    assert found.points[0].fpr.reason == "no real videos"
    assert found.points[0].precision.value is None
    few = judged(predictions(groups=6)).videos.metrics
    assert few["tpr_at_fpr_1pct"].reason == "needs 100 real videos, there are 6"
    assert few["tpr_at_fpr_0_1pct"].value is None


def test_no_error_among_few_groups_is_no_proof_of_none() -> None:
    found = judged(predictions(groups=8, apart=60, frames=1)).faces.metrics
    assert found["auc"].value == found["accuracy"].value == 1.0
    # 0.025 ** (1 / 8): eight independent groups without an error.
    assert found["auc"].low == pytest.approx(0.6306, abs=1e-4)
    assert found["accuracy"].low == pytest.approx(0.6306, abs=1e-4)
    assert found["equal_error_rate"].high == pytest.approx(1 - 0.6306, abs=1e-4)


def test_one_group_has_no_interval() -> None:
    found = judged(predictions(groups=1)).faces.metrics["accuracy"]
    assert found.value is not None
    assert (found.low, found.reason) == (None, "one group alone")


def test_calibration_error_is_zero_for_honest_scores_whatever_the_mix() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(60_000)
    labels = (rng.random(60_000) < scores).astype(int)
    kept = (labels == 1) | (rng.random(60_000) < 0.2)
    honest = Sample(scores=scores[kept], raw=scores[kept], labels=labels[kept], groups=np.arange(int(kept.sum())))
    assert metrics(honest, "faces", resamples=100, seed=0)["expected_calibration_error"].value < 0.02
    bold = replace(honest, scores=np.clip((honest.scores - 0.5) * 3 + 0.5, 0, 1))
    assert metrics(bold, "faces", resamples=100, seed=0)["expected_calibration_error"].value > 0.1


def test_precision_at_a_prevalence_is_bayes() -> None:
    found = rates(sample(groups=80), 0.5, "faces", resamples=200, seed=0)
    tpr, fpr = found["tpr"], found["fpr"]
    rare = precision_at(tpr, fpr, 0.01)
    assert rare.value == pytest.approx(0.01 * tpr.value / (0.01 * tpr.value + 0.99 * fpr.value))
    assert rare.low < rare.value < rare.high
    assert precision_at(tpr, fpr, 0.5).value > rare.value


def test_videos_are_scored_by_the_rule_and_counted_once() -> None:
    table = predictions(groups=30, clips=2, frames=5)
    mean = judged(table)
    assert (mean.faces.real, mean.faces.fake) == (150, 300)
    assert (mean.videos.real, mean.videos.fake, mean.videos.groups) == (30, 60, 30)
    assert mean.videos.metrics["auc"].value > mean.faces.metrics["auc"].value
    most = evaluate_predictions(
        table, name="test", aggregation=Aggregation(frames="max"), thresholds=Thresholds(), options=FAST
    )
    assert most.points[0].false_fake > mean.points[0].false_fake
    half = mean.points[0]
    assert half.true_real + half.false_fake == 30
    assert half.true_fake + half.false_real == 60
    assert [point.name for point in mean.points] == ["half", "equal_error"]


def test_slices_part_the_faces_and_take_groups_of_the_caller() -> None:
    table = predictions(groups=30)
    kinds = ["swap" if label else None for label in table["label"].to_pylist()]
    found = judged(table, groups={"method": kinds})
    for kind in ("part", "face size", "frame height"):
        own = [entry for entry in found.slices if entry.kind == kind]
        assert len(own) > 1
        assert sum(entry.faces.real + entry.faces.fake for entry in own) == table.num_rows
    (method,) = [entry for entry in found.slices if entry.kind == "method"]
    assert (method.name, method.faces.real, method.faces.fake) == ("swap", 0, 360)
    assert method.faces.auc.reason == "only fake faces"
    assert (method.videos.fake, method.videos.auc.reason) == (90, "only fake videos")
    with pytest.raises(ValueError, match="slices by method: got 1 values for 480 predictions"):
        judged(table, groups={"method": ["swap"]})


def test_a_slice_judges_the_videos_that_its_faces_make_up() -> None:
    table = predictions(groups=30)
    frames = [face.rsplit("#", 1)[1] for face in table["face"].to_pylist()]
    found = judged(table, groups={"frame": frames, "all": ["all"] * table.num_rows})
    (whole,) = [entry for entry in found.slices if entry.kind == "all"]
    assert whole.videos.accuracy == found.videos.metrics["accuracy"]
    assert whole.videos.auc == found.videos.metrics["auc"]
    assert whole.faces.auc == found.faces.metrics["auc"]
    first, *_ = [entry for entry in found.slices if entry.kind == "frame"]
    assert (first.videos.real, first.videos.fake) == (first.faces.real, first.faces.fake) == (30, 90)
    assert first.videos.auc == first.faces.auc, "one face of each video"


def test_faces_without_a_label_are_left_out_and_told() -> None:
    table = predictions(groups=30)
    unknown = table.slice(0, 16).set_column(3, predictions_schema().field("label"), pa.nulls(16, pa.int8()))
    found = judged(pa.concat_tables([table, unknown]))
    assert found.unknown == 16
    assert found.faces.metrics == judged(table).faces.metrics
    assert found.notes == ("16 faces without a label are left out.",)
    assert judged(table, unknown=16) == found, "as where the table does not hold them"
    none = judged(unknown)
    assert none.faces.metrics["auc"].reason == "no faces with a label"
    assert none.points == ()


def test_an_evaluation_is_plain_values_and_the_same_each_time() -> None:
    table = predictions(groups=10)
    first, again = judged(table), judged(table)
    assert first == again
    text = json.dumps(first.to_json(), allow_nan=False)
    assert json.loads(text)["videos"]["metrics"]["auc"]["value"] == first.videos.metrics["auc"].value
    auc = first.videos.metrics["auc"]
    assert first.headline()["videos"]["auc"] == [auc.value, auc.low, auc.high]
    assert set(first.faces.metrics) == set(NAMES)


def test_bad_options_and_empty_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="prevalence: got 0"):
        EvaluationOptions(prevalence=0)
    with pytest.raises(ValueError, match="resamples: got 1"):
        EvaluationOptions(resamples=1)
    with pytest.raises(ValueError, match="no predictions"):
        judged(predictions().slice(0, 0))
