"""Calibration, aggregation, thresholds: what is fitted on validation, and how a score is read after."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from batch.model.aggregate import Aggregation, choose_aggregation, pool, score_items
from batch.model.calibration import MIN_ISOTONIC_FACES, Calibration, fit_calibration
from batch.model.judgement import (
    fit_judgement,
    item_sample,
    predictions_table,
    recalibrated,
    worst_mistakes,
)
from batch.model.records import Scores
from batch.model.thresholds import Thresholds, fit_thresholds
from batch.schemas import face_index_schema, predictions_schema
from tests.support.predicted import predictions


def drawn_faces(count: int, warmth: float, seed: int = 0):
    """Logits whose true probability, at even odds, is the sigmoid of a warmth-th of them."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, count)
    return honest * warmth, (rng.random(count) < expit(honest)).astype(int), rng.integers(0, count // 4, count)


def test_the_temperature_of_an_overconfident_network_is_found() -> None:
    logits, labels, groups = drawn_faces(900, 3.0)
    found = fit_calibration(logits, labels, groups)
    assert found.kind == "temperature"
    assert found.temperature == pytest.approx(3.0, rel=0.2)
    assert "isotonic regression wants 1,000 faces" in found.why
    np.testing.assert_allclose(found(np.array([-3.0, 0.0, 3.0])), expit(np.array([-3, 0, 3]) / found.temperature))


def test_isotonic_regression_is_taken_where_a_temperature_cannot_do_it() -> None:
    logits, labels, groups = drawn_faces(6000, 1.0)
    bent = np.sign(logits) * np.abs(logits) ** 3 + 4.0  # shifted and bent: no division mends that
    found = fit_calibration(bent, labels, groups)
    assert np.bincount(labels).min() >= MIN_ISOTONIC_FACES
    assert found.kind == "isotonic"
    rising = found(np.linspace(bent.min(), bent.max(), 500))
    assert (np.diff(rising) > 0).all(), "unlike logits keep unlike probabilities"
    assert rising[0] > 0
    assert rising[-1] < 1
    assert np.abs(found(bent) - expit(logits)).mean() < 0.05
    again, labels_again, groups_again = drawn_faces(6000, 2.0, seed=1)
    assert fit_calibration(again, labels_again, groups_again).kind == "temperature"


def test_the_mix_of_the_classes_does_not_shift_a_score() -> None:
    logits, labels, groups = drawn_faces(4000, 2.0)
    kept = (labels == 1) | (np.arange(4000) % 6 == 0)  # six fakes for one real, as in a corpus
    found = fit_calibration(logits[kept], labels[kept], groups[kept])
    assert found.temperature == pytest.approx(2.0, rel=0.25)


def test_classes_that_are_fully_parted_do_not_become_certainties() -> None:
    logits = np.r_[np.full(15, -1.0), np.full(15, 1.0)]
    found = fit_calibration(logits, (logits > 0).astype(int), np.arange(30))
    assert 0.9 < found(np.array([1.0]))[0] < 0.999


def test_a_network_that_is_worse_than_chance_is_flattened_and_known_as_such() -> None:
    logits, labels, groups = drawn_faces(900, 1.0)
    found = fit_calibration(-logits, labels, groups)
    assert found.flattened
    assert np.abs(found(logits) - 0.5).max() < 0.01
    assert not fit_calibration(logits, labels, groups).flattened


def test_a_network_that_is_far_too_sure_is_cooled_as_far_as_it_needs() -> None:
    logits, labels, groups = drawn_faces(900, 40.0)
    found = fit_calibration(logits, labels, groups)
    assert found.temperature == pytest.approx(40.0, rel=0.2)
    assert not found.flattened


def test_one_class_gives_no_calibration_and_says_why() -> None:
    found = fit_calibration(np.zeros(4), np.ones(4, int), np.arange(4))
    assert found.kind == "none"
    assert "one class only" in found.why


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "platt"},
        {"temperature": 0.0},
        {"kind": "isotonic"},
        {"kind": "isotonic", "logits": (0.0, 1.0), "probabilities": (0.5, 0.4)},
        {"kind": "isotonic", "logits": (0.0, 1.0), "probabilities": (0.5,)},
        {"kind": "isotonic", "logits": (0.0, 1.0), "probabilities": (0.5, 1.4)},
    ],
)
def test_a_calibration_that_cannot_be_is_refused(values) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(**values)


def test_pooling_by_each_rule() -> None:
    values = np.array([0.9, 0.95, 0.85, 0.1, 0.3, 0.1, 0.05, 0.6])
    keys = np.array(["a"] * 5 + ["b"] * 2 + ["c"])
    mean, most, sure = (pool(values, keys, rule) for rule in ("mean", "max", "confident"))
    assert mean.keys.tolist() == ["a", "b", "c"]
    assert mean.counts.tolist() == [5, 2, 1]
    np.testing.assert_allclose(mean.scores, [0.62, 0.075, 0.6])
    np.testing.assert_allclose(most.scores, [0.95, 0.1, 0.6])
    # Three of five surely fake: their mean. All surely real: the mean of those. Else the mean of all.
    np.testing.assert_allclose(sure.scores, [0.9, 0.075, 0.6])
    np.testing.assert_allclose(mean.errors[:2], [np.std(values[:5], ddof=1) / 5**0.5, 0.025])
    assert np.isnan(mean.errors[2])


def test_two_surely_fake_frames_do_not_decide_alone() -> None:
    assert pool([0.99, 0.99, 0.4], ["a"] * 3, "confident").scores[0] == pytest.approx(0.7933, abs=1e-4)


def test_a_probability_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="got nan, expected probabilities"):
        pool([0.5, np.nan], ["a", "a"], "mean")
    with pytest.raises(ValueError, match="expected one of mean, max, confident"):
        Aggregation(frames="median")


def test_one_suspicious_face_makes_the_item_suspicious() -> None:
    scored = score_items([0.1, 0.2, 0.9, 0.7, 0.3], ["x", "x", "x", "x", "w"], [0, 0, 7, 7, 0], Aggregation())
    assert scored.track_items.tolist() == ["w", "x", "x"]
    assert scored.track_ids.tolist() == [0, 0, 7]
    np.testing.assert_allclose(scored.tracks.scores, [0.3, 0.15, 0.8])
    assert scored.items.keys.tolist() == ["w", "x"]
    np.testing.assert_allclose(scored.items.scores, [0.3, 0.8])
    assert scored.items.counts.tolist() == [1, 4]
    assert scored.items.errors[1] == pytest.approx(np.std([0.1, 0.2, 0.9, 0.7], ddof=1) / 2)


def test_the_rule_is_the_one_that_validation_prefers() -> None:
    rng = np.random.default_rng(0)
    items, labels = np.repeat(np.arange(200), 8), np.repeat(np.arange(200) % 2, 8)
    noisy = np.clip(0.5 + (labels - 0.5) * 0.4 + rng.normal(0, 0.2, 1600), 0.21, 0.79)
    assert choose_aggregation(noisy, labels, items, np.zeros(1600)).frames == "mean"
    # A fake shows itself in one frame of eight, and the others look real.
    rare = np.where((labels == 1) & (np.arange(1600) % 8 == 3), 0.97, 0.05)
    chosen = choose_aggregation(rare, labels, items, np.zeros(1600))
    assert chosen.frames == "max"
    assert "max" in chosen.why
    assert choose_aggregation(rare[::8], labels[::8], items[::8], np.zeros(200)).frames == "mean", "a tie"


def test_thresholds_keep_what_they_promise_on_validation() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [1000, 3000])
    scores = expit(rng.normal(np.where(labels, 2, -2), 1.5))
    found = fit_thresholds(scores, labels)
    reals, fakes = scores[labels == 0], scores[labels == 1]
    assert np.mean(reals >= found.few_false) == 0.01
    assert np.mean(reals >= found.equal_error) == pytest.approx(np.mean(fakes < found.equal_error), abs=2e-3)
    assert np.mean(reals >= found.fake_from) <= 0.01
    assert np.mean(fakes < found.real_below) <= 0.01
    assert [found.band(score) for score in (0.0, 0.5, 1.0)] == ["likely real", "uncertain", "likely fake"]
    assert found.band(found.fake_from) == "likely fake"
    assert found.band(found.real_below) == "uncertain"


def test_the_uncertain_band_never_vanishes() -> None:
    labels = np.repeat([0, 1], 200)
    found = fit_thresholds(np.where(labels, 0.99, 0.01), labels)
    assert (found.real_below, found.fake_from) == (0.2, 0.8)
    assert found.equal_error == 0.5, "in the middle of the gap"


def test_reals_that_score_a_certain_fake_leave_nothing_that_is_likely_fake() -> None:
    labels = np.repeat([0, 1], 200)
    scores = np.where(labels, 0.9, 0.1)
    scores[:3] = 1.0  # three of 200 reals, one more than 1%
    found = fit_thresholds(scores, labels)
    assert found.few_false > 1
    assert found.band(1.0) == "uncertain"
    certain = np.where(labels, 1.0, 0.1)
    certain[0] = 1.0
    assert fit_thresholds(certain, labels).band(1.0) == "likely fake"


def test_a_threshold_holds_for_scores_that_were_stored_in_half_the_digits() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    for _ in range(20):
        scores = np.where(labels, 0.9, rng.uniform(0.5, 1, 400))
        reals = scores[labels == 0].astype(np.float32).astype(np.float64)
        assert np.mean(reals >= fit_thresholds(scores, labels).few_false) <= 0.01


def test_too_few_reals_give_no_threshold_for_few_false_positives() -> None:
    found = fit_thresholds([0.1, 0.2, 0.9], [0, 0, 1])
    assert found.few_false is None
    assert "wants 100 real ones" in found.why
    assert [name for name, _ in found.points()] == ["half", "equal_error"]
    assert fit_thresholds([0.1], [0]).points() == (("half", 0.5),)
    with pytest.raises(ValueError, match="expected a probability"):
        Thresholds(equal_error=1.5)
    with pytest.raises(ValueError, match="likely real below"):
        Thresholds(real_below=0.9)


def test_validation_as_a_whole() -> None:
    table = predictions(groups=150, warmth=3.0, split="validation")
    unlabelled = table.slice(0, 8).set_column(3, predictions_schema().field("label"), pa.nulls(8, pa.int8()))
    judged = fit_judgement(pa.concat_tables([table, unlabelled]))
    assert judged == fit_judgement(table), "faces without a label play no part"
    # Normal logits 2 apart with a variance of 1.23 are 1.63 times too small, and here 3 times too large.
    assert judged.calibration.temperature == pytest.approx(3 / 1.63, rel=0.25)
    again = recalibrated(table, judged.calibration)
    assert again.schema == table.schema
    np.testing.assert_allclose(
        again["probability"].to_numpy(), judged.calibration(table["logit"].to_numpy()), atol=1e-6
    )  # fmt: skip
    assert len(item_sample(again, judged.aggregation)) == 600
    assert fit_judgement(table.slice(0, 0)).calibration.kind == "none"


def test_worst_mistakes_are_one_a_clip_worst_first() -> None:
    table = predictions(groups=60)
    found = worst_mistakes(table, per_class=5)
    reals, fakes = [m for m in found if m.label == 0], [m for m in found if m.label == 1]
    assert len(reals) == len(fakes) == 5
    assert [m.probability for m in reals] == sorted((m.probability for m in reals), reverse=True)
    assert [m.probability for m in fakes] == sorted(m.probability for m in fakes)
    assert len({m.video_uri for m in found}) == 10
    assert all(m.probability >= 0.5 for m in reals)
    assert all(m.probability < 0.5 for m in fakes)
    perfect = table.set_column(11, table.schema.field(11), pa.array(table["label"].to_numpy(), pa.float32()))
    assert worst_mistakes(perfect) == ()


class _Index:
    """Two faces, as far as predictions need an index."""

    table = pa.Table.from_pylist(
        [
            {
                "face": f"v{n}#0", "shard": 0, "row": n, "video_uri": f"v{n}", "part": "p", "source_id": "s",
                "label": n, "split": None, "frame_index": 0, "track_id": 0, "face_width_px": 50, "face_height_px": 60,
                "frame_width_px": 640, "frame_height_px": 360,
            }
            for n in range(2)
        ],
        schema=face_index_schema(),
    )  # fmt: skip


def test_predictions_name_face_group_and_split() -> None:
    scores = Scores(rows=np.array([1, 0]), logits=np.array([2.0, -2.0], np.float32))
    groups, splits = pa.array(["ga", "gb"]), pa.array(["test", "train"])
    table = predictions_table(
        _Index, scores, Calibration(kind="temperature", temperature=2), groups=groups, splits=splits
    )
    assert table.schema == predictions_schema()
    first = table.to_pylist()[0]
    assert (first["face"], first["group"], first["split"], first["label"]) == ("v1#0", "gb", "train", 1)
    assert first["probability"] == pytest.approx(expit(1.0))
    bad = Scores(rows=np.array([1, 0]), logits=np.array([1.0, np.nan], np.float32))
    with pytest.raises(ValueError, match="logit nan for v0#0"):
        predictions_table(_Index, bad, Calibration(), groups=groups)
    with pytest.raises(ValueError, match="1 groups for 2 faces"):
        predictions_table(_Index, scores, Calibration(), groups=groups[:1])
