"""The page of a tuning run: what it must say, and that names of strangers cannot break it."""

import re
from dataclasses import replace

import numpy as np

from batch.model.records import EpochRecord
from batch.model.tuning.records import Status, Trial, TrialResult
from batch.model.tuning.statistics import by_configuration, chosen, effects
from batch.reports.tune import MOST_ROWS, TuneReport, write_tune_report
from batch.storage.local import LocalStorage

NAMES = ("optimizer", "dense_units")


def trial(configuration: str, seed: int, loss: float | None, name: str = "", **more: object) -> TrialResult:
    history = tuple(
        EpochRecord(
            stage="head", epoch=epoch, step=epoch, loss=0.6, learning_rate=0.1, images_per_second=9.0, seconds=2.0,
            validation={"loss": value, "accuracy": 0.7, "auc": 0.8},
        )
        for epoch, value in enumerate(() if loss is None else (loss + 0.2, loss), 1)
    )  # fmt: skip
    asked = Trial(id=f"{configuration}-{seed}", configuration_id=configuration, name=name, configuration={}, seed=seed)
    made = TrialResult(
        trial=asked, status=Status.FINISHED, history=history, best=len(history) - 1 if history else None, seconds=65.0,
        cpus=2.0, gpus=0.5, attempts=1, device="CPU", shared="features",
    )  # fmt: skip
    return replace(made, **more)


def report(results: list[TrialResult], values: dict[str, dict[str, object]], **more: object) -> TuneReport:
    configurations = by_configuration(results, values, "loss")  # type: ignore[arg-type]
    best = chosen(configurations, "loss")
    made = TuneReport(
        title="Tuning on <b>faces</b>", metric="loss", seeds=2, is_ablation=True, configurations=configurations,
        best=best, names=NAMES, effects=effects(configurations, NAMES, "loss"),
        test={"videos": {"accuracy": [0.71, 0.6, 0.8], "auc": [None, None, None], "log_loss": [0.5, 0.4, 0.6]}},
        splits={"train": {"real": 3, "fake": 4, "unknown": 0}}, features_seconds=12.0, options={"workers": 1},
    )  # fmt: skip
    return replace(made, **more)


VALUES = {
    "a": {"optimizer": "sgd", "dense_units": ()},
    "b": {"optimizer": "adam", "dense_units": ()},
    "c": {"optimizer": "adam", "dense_units": (128,)},
}
RESULTS = [
    trial("a", 0, 0.40, "Xception, SGD 0.1"), trial("a", 1, 0.44, "Xception, SGD 0.1"),
    trial("b", 0, 0.60), trial("b", 1, 0.62),
    trial("c", 0, None, status=Status.FAILED, reason="loss is <script>alert(1)</script> nan"),
    trial("c", 1, 0.5),
]  # fmt: skip


def page(made: TuneReport, folder: object) -> str:
    sink = LocalStorage(str(folder))
    write_tune_report(sink, made, key="report.html")
    return sink.read("report.html").decode()


def test_the_page_says_what_was_chosen_and_that_the_test_was_read_once(tmp_path: object) -> None:
    text = page(report(RESULTS, VALUES), tmp_path)
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))
    assert "Of 3 configurations, Xception, SGD 0.1 has the lowest validation loss: 0.420 (0.166 to 0.674)" in plain
    assert "The test split was read once, at the end, by the chosen model alone" in plain
    assert "accuracy 0.710 (0.600 to 0.800), log loss 0.500" in plain
    for row in ("CNN, Nadam 0.01", "CNN, SGD 0.01", "Xception, Nadam 0.01", "Xception, Adam 0.1", "Xception, SGD 0.01"):
        assert re.search(rf"{row}.*?not run", plain)
    assert "49.6% accuracy" in plain and "82.7% accuracy" in plain and "cannot be compared" in plain
    assert "adam → sgd" in plain and "-0.190" in plain
    assert "loss is <script>" not in text and "loss is &lt;script&gt;" in text and "<b>faces" not in text
    assert text.count("<svg") == 2 and text.count('<tr class="best">') == 1
    assert all(f'id="{name}"' in text for name in ("table", "reference", "curves", "effects", "failed", "data", "run"))
    assert not re.search(r"<(script|link rel=.stylesheet|img src=.http)", text)


def test_a_run_in_which_nothing_finished_has_a_page(tmp_path: object) -> None:
    failed = [trial("a", seed, None, status=Status.FAILED, reason="out of memory") for seed in (0, 1)]
    text = page(report(failed, VALUES, test={}, is_ablation=False), tmp_path)
    assert "none was chosen" in text and "out of memory" in text and "<svg" not in text


def test_the_page_stays_small_whatever_the_number_of_trials(tmp_path: object) -> None:
    many = {f"c{number}": {"optimizer": "sgd", "dense_units": (number + 1,)} for number in range(2 * MOST_ROWS)}
    rng = np.random.default_rng(0)
    results = [trial(name, seed, float(rng.uniform(0.1, 0.9))) for name in many for seed in (0, 1)]
    text = page(report(results, many), tmp_path)
    assert len(text) < 1_000_000 and f"and {MOST_ROWS} more" in text
