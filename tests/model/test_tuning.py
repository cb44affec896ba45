"""Grids are checked wholly and expand as they say; statistics of trials are those of a textbook."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
import yaml
from scipy import stats

from batch.model.fit.frozen import needed_ids
from batch.model.fit.options import FitOptions
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions
from batch.model.records import EpochRecord
from batch.model.tuning.ablation import REFERENCE_ROWS, ablation_grid
from batch.model.tuning.grid import Grid
from batch.model.tuning.parse import parse_grid
from batch.model.tuning.recipe import Configuration, Recipe
from batch.model.tuning.records import Progress, Status, Trial, TrialResult
from batch.model.tuning.sharing import feature_groups, group_of
from batch.model.tuning.statistics import Mean, by_configuration, chosen, effects
from batch.model.tuning.table import as_csv, trials_table
from batch.storage.local import LocalStorage
from tests.support.face_shards import write_index

RECIPE = Recipe(network=NetworkOptions(), data=DataOptions(), fit=FitOptions())


def grid(text: str) -> Grid:
    return parse_grid(yaml.safe_load(text))


CONDITIONAL = """
fixed: {augment: none}
rows:
  - {name: plain, model: cnn, learning_rate: 1e-3}
grid:
  model: [cnn, xception]
  optimizer:
    - {choices: [sgd, adam], when: {model: cnn}}
    - {choices: [nadam], when: {model: xception}}
  momentum: {choices: [0, 0.9], when: {optimizer: sgd}}
  dense_units: [[], [64, 32]]
"""


def test_a_cross_product_follows_its_conditions() -> None:
    found = grid(CONDITIONAL)
    made = found.product()
    assert len(made) == 8
    assert all(("momentum" in each) == (each["optimizer"] == "sgd") for each in made)
    assert {each["optimizer"] for each in made if each["model"] == "xception"} == {"nadam"}
    assert {each["dense_units"] for each in made} == {(), (64, 32)}
    assert all(each["augment"] == "none" for each in made)
    assert found.row_configuration(found.rows[0]) == {"augment": "none", "model": "cnn", "learning_rate": 0.001}
    assert len({RECIPE.changed(each).digest() for each in made}) == 8
    assert found.followers["model"] == {"optimizer", "momentum"}
    assert (found.highest("learning_rate"), found.highest("momentum"), found.highest("epochs")) == (0.001, 0.9, 0.0)


def test_options_without_effect_are_not_told() -> None:
    made = grid(
        "grid: {schedule: [cosine, plateau], plateau_factor: {choices: [0.1], when: {schedule: plateau}}, "
        "plateau_patience: {choices: [1, 3], when: {schedule: plateau}}, optimizer: [sgd], momentum: [0.5]}"
    ).product()
    told = [{name: RECIPE.changed(each).shown(name) for name in ("plateau_factor", "momentum")} for each in made]
    assert told == [{"plateau_factor": None, "momentum": 0.5}] + [{"plateau_factor": 0.1, "momentum": 0.5}] * 2
    assert len({RECIPE.changed(each).digest() for each in made}) == 3
    assert RECIPE.changed({"optimizer": "adam"}).shown("momentum") is None


def test_draws_stay_within_their_ranges_and_repeat() -> None:
    found = grid("grid: {learning_rate: {log: [1e-5, 1e-1]}, dropout: {range: [0, 0.5]}, batch_size: {range: [8, 64]}}")
    made = found.drawn(400, 7)
    assert made[:50] == found.drawn(50, 7) != found.drawn(50, 8)
    rates = np.array([each["learning_rate"] for each in made], np.float64)
    assert rates.min() >= 1e-5 and rates.max() <= 1e-1
    assert stats.kstest(np.log10(rates), stats.uniform(-5, 4).cdf).pvalue > 1e-3
    assert {each["batch_size"] for each in made} <= set(range(8, 65))
    assert all(isinstance(each["batch_size"], int) for each in made)
    assert len(grid("grid: {dropout: [0, 0.1]}").drawn(5, 0)) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("grid: {learning_rat: [0.1]}", ["learning_rat", "learning_rate"]),
        ("grid: {seed: [1, 2]}", ["seed", "--seeds"]),
        ("fixed: {split: part}", ["split", "every trial has the same"]),
        ("grid: {learning_rate: [fast]}", ["learning_rate", "'fast'", "a number"]),
        ("grid: {optimizer: [rmsprop]}", ["optimizer", "'rmsprop'", "nadam"]),
        ("grid: {dropout: []}", ["dropout", "no choice"]),
        ("grid: {dropout: [0.1, 0.1]}", ["dropout", "once"]),
        ("grid: {dropout: {range: [0.5, 0.1]}}", ["dropout", "low below high"]),
        ("grid: {learning_rate: {log: [0, 1]}}", ["learning_rate", "above 0"]),
        ("grid: {optimizer: {range: [1, 2]}}", ["optimizer", "no number"]),
        ("grid: {dropout: {chioces: [0]}}", ["dropout", "chioces", "choices"]),
        ("grid: {dropout: {choices: [0], when: {model: cnn}}}", ["dropout", "model", "before it"]),
        ("grid: {model: [cnn], dropout: {choices: [0], when: {model: xception}}}", ["dropout", "xception", "cnn"]),
        ("fixed: {dropout: 0.1}\ngrid: {dropout: [0, 0.2]}", ["dropout", "fixed too"]),
        ("rows: [{name: a, droput: 0.1}]", ["droput", "dropout"]),
        ("rows: 3", ["rows", "3", "a list"]),
        ("options: {}", ["options", "fixed, rows or grid"]),
        ("fixed: {dropout: 0.1}", ["nothing to try"]),
        ("[1, 2]", ["[1, 2]", "a mapping"]),
    ],
)
def test_a_wrong_grid_is_refused_by_its_key(text: str, named: list[str]) -> None:
    with pytest.raises(ValueError, match="grid") as error:
        grid(text)
    assert all(part in str(error.value) for part in named), str(error.value)


def test_ranges_have_no_cross_product() -> None:
    with pytest.raises(ValueError, match=r"dropout: received a range .* --search random"):
        grid("grid: {dropout: {range: [0, 0.5]}}").product()


def test_the_ablation_holds_the_six_rows_of_the_reference() -> None:
    made = ablation_grid(5, "auto")
    product = {RECIPE.changed(each).digest(): each for each in made.product()}
    assert len(product) == 24
    rows = [RECIPE.changed(made.row_configuration(row)) for row in made.rows]
    assert [row.digest() in product for row in rows] == [True] * 6
    for recipe, row in zip(rows, REFERENCE_ROWS, strict=True):
        rate = recipe.fit.head_learning_rate if recipe.is_frozen else recipe.fit.learning_rate
        assert (recipe.network.model, recipe.fit.optimizer, rate) == (row.model, row.optimizer, row.rate)
        assert recipe.epochs == 5 and recipe.data.augment == "reference"
        assert recipe.network.source_of_weights == ("imagenet" if row.model == "xception" else "none")


def test_heads_that_see_the_same_share_their_features(tmp_path: Path) -> None:
    index = write_index(LocalStorage(tmp_path), [[0, 1] * 6] * 3)
    train, validation = np.arange(24), np.arange(24, 36)
    network = NetworkOptions(weights="imagenet", dropout=0.2)
    frozen = Recipe(network=network, data=DataOptions(batch_size=8), fit=FitOptions(epochs=0, head_epochs=2))
    same: list[Configuration] = [
        {"dropout": 0.5}, {"dense_units": (64,)}, {"optimizer": "sgd"}, {"head_learning_rate": 0.1}, {"head_epochs": 1},
    ]  # fmt: skip
    heads = [frozen, *(frozen.changed(each) for each in same)]
    (group,) = feature_groups(index, train, validation, heads).values()
    wanted = needed_ids(index, train, validation, frozen.data, 2)
    assert {epoch: ids.tolist() for epoch, ids in group.ids.items()} == {
        epoch: ids.tolist() for epoch, ids in wanted.items()
    }
    assert group.faces == sum(map(len, wanted.values())) and group_of(frozen.changed({"epochs": 1})) is None
    other: list[Configuration] = [{"augment": "none"}, {"features": "multi"}, {"precision": "float32"}]
    apart = [frozen, frozen.changed({}, 1), *(frozen.changed(each) for each in other)]
    assert len({group_of(each) for each in apart}) == 5
    plain = frozen.changed({"augment": "none"})
    assert group_of(plain) == group_of(plain.changed({}, 1)), "without augmentation a seed changes no face"


def result(configuration: str, seed: int, losses: list[float], **more: object) -> TrialResult:
    history = tuple(
        EpochRecord(
            stage="whole", epoch=number, step=number, loss=0.5, learning_rate=0.1, images_per_second=1.0, seconds=1.0,
            validation={"loss": loss, "accuracy": 1 - loss / 2, "auc": 0.5},
        )
        for number, loss in enumerate(losses, 1)
    )  # fmt: skip
    trial = Trial(
        id=f"{configuration}-{seed}", configuration_id=configuration, name="", configuration={"dropout": 0.1}, seed=seed
    )
    made = TrialResult(
        trial=trial, status=Status.FINISHED, history=history, best=int(np.argmin(losses)) if losses else None,
        seconds=10.0, cpus=2.0, gpus=0.25, attempts=1,
    )  # fmt: skip
    return replace(made, **more)


VALUES = {
    "a": {"optimizer": "sgd", "dropout": 0.0}, "b": {"optimizer": "adam", "dropout": 0.0},
    "c": {"optimizer": "sgd", "dropout": 0.5}, "d": {"optimizer": "adam", "dropout": 0.5},
    "e": {"optimizer": "nadam", "dropout": 0.0},
}  # fmt: skip
RESULTS = [
    *(result("a", seed, [0.9, loss]) for seed, loss in enumerate((0.50, 0.54, 0.46))),
    *(result("b", seed, [0.9, loss]) for seed, loss in enumerate((0.30, 0.34, 0.35))),
    *(result("c", seed, [loss]) for seed, loss in enumerate((0.60, 0.61, 0.62))),
    *(result("d", seed, [loss]) for seed, loss in enumerate((0.40, 0.41, 0.42))),
    result("e", 0, [0.1]),
    result("e", 1, [], status=Status.FAILED, reason="loss is nan", best=None),
    result("e", 2, [0.1]),
]


def test_means_have_students_intervals() -> None:
    values = [0.2, 0.5, 0.4, 0.35]
    found = Mean.of(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert Mean.of([0.3]).low is None and Mean.of([]).value is None
    assert Mean.of([0.0, 1.0], 0.0, 1.0).high == 1.0


def test_the_best_configuration_has_all_its_seeds() -> None:
    ordered = by_configuration(RESULTS, VALUES, "loss")
    assert [entry.id for entry in ordered] == ["b", "d", "a", "c", "e"]
    best = chosen(ordered, "loss")
    assert best is not None and best.id == "b"
    assert best.metrics["loss"].value == pytest.approx(0.33)
    assert ordered[-1].status == "failed, finished" and not ordered[-1].complete
    assert chosen(ordered[-1:], "loss") is None


def test_effects_are_paired() -> None:
    ordered = by_configuration(RESULTS, VALUES, "loss")
    found = {(effect.name, effect.before, effect.after): effect.difference for effect in effects(
        ordered, ["optimizer", "dropout"], "loss")}  # fmt: skip
    assert set(found) == {("optimizer", "adam", "sgd"), ("dropout", 0.0, 0.5)}
    optimizer = found["optimizer", "adam", "sgd"]
    assert (optimizer.value, optimizer.count) == (pytest.approx(0.185), 2)
    assert found["dropout", 0.0, 0.5].value == pytest.approx(0.095)
    tied = by_configuration(RESULTS[:6], {"a": {"model": "x", "rate": 1}, "b": {"model": "y", "rate": 2}}, "loss")
    assert effects(tied, ["model"], "loss") == []
    (model,) = effects(tied, ["model"], "loss", {"model": frozenset({"rate"})})
    assert model.difference.value == pytest.approx(-0.17)


def test_the_table_has_a_row_a_trial_and_records_survive_their_files() -> None:
    table = trials_table(RESULTS, ["optimizer", "dropout"], VALUES)
    assert table["trial"].to_pylist() == [each.trial.id for each in RESULTS]
    assert table["core_seconds"].to_pylist()[0] == 20.0 and table["gpu_seconds"].to_pylist()[0] == 2.5
    assert json.loads(table["option_dropout"][3].as_py()) == 0.0
    assert table["validation_loss"].to_pylist()[13] is None and table["reason"].to_pylist()[13] == "loss is nan"
    read = pyarrow.csv.read_csv(io.BytesIO(as_csv(table)))
    assert read.num_rows == table.num_rows and read.column_names == table.column_names
    for each in RESULTS:
        assert TrialResult.from_json(each.to_json()) == each
    deep = replace(RESULTS[0].trial, configuration={"dense_units": (64, 32), "max_faces": None})
    assert Trial.from_json(deep.to_json()) == deep
    progress = Progress(history=RESULTS[0].history, seconds=1.5, attempts=2)
    assert Progress.from_json(progress.to_json()) == progress
