"""Which nights raise an alarm, and which small or early ones do not."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from batch.scoring.drift import BINS, coarse, compare, population_stability_index
from batch.scoring.summary import ScoreSummary, Tally, read_history, write_summary
from batch.storage.local import LocalStorage

USUAL = (0.45, 0.2, 0.1, 0.05, 0.05, 0.03, 0.02, 0.02, 0.03, 0.05)


def tally(
    items: int,
    seed: int,
    shares: tuple[float, ...] = USUAL,
    coverage: float = 0.9,
    faults: dict[str, int] | None = None,
) -> Tally:
    rng = np.random.default_rng(seed)
    broken = sum((faults or {}).values())
    scored = min(items - broken, int(rng.binomial(items, coverage)))
    by_bin = rng.multinomial(scored, shares)
    histogram = tuple(int(n) for count in by_bin for n in (count, 0))
    bands = {"likely real": int(by_bin[:2].sum()), "uncertain": int(by_bin[2:8].sum()), "likely fake": 0}
    return Tally(
        items=items, scored=scored, set_aside={"no_face": items - scored - broken}, faults=faults or {}, bands=bands,
        histogram=histogram,
    )  # fmt: skip


def summary(run: int, total: Tally, *, bundle: str = "b", options: str = "o", **inputs: Tally) -> ScoreSummary:
    return ScoreSummary(
        run=run, runs=(run,), night=f"2026-03-{run:02}", started_at="", ended_at="", bundle=bundle, bundle_uri="",
        options=options, total=total, inputs=inputs or {"one": total}, listed={}, denied={}, filtered=0,
        pending=total.items, left={}, vanished=0, units=1, bytes_listed=0, bytes_read=0, requests=0, seconds={},
        rates={},
    )  # fmt: skip


def history(runs: int = 14, items: int = 400, **more) -> list[ScoreSummary]:
    return [summary(run, tally(items, run, **more)) for run in range(1, runs + 1)]


def test_a_night_like_the_others_raises_no_alarm() -> None:
    alarms = []
    for seed in range(200, 300):
        found = compare(history(), summary(15, tally(400, seed)))
        alarms += found.alarms
        assert found.notes == ()
        assert found.psi is not None
        assert found.psi < 0.1
        assert found.psi_limit == 0.25
    assert len(alarms) <= 2, "three standard deviations are passed by chance now and then"


def test_scores_that_moved_raise_one() -> None:
    moved = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    found = compare(history(), summary(15, tally(400, 99, moved)))
    assert found.psi == pytest.approx(population_stability_index(coarse(found.current.total.histogram), found.usual))
    assert found.psi > 0.25
    assert len(found.alarms) == 1
    assert found.alarms[0].startswith("scores are spread otherwise than usual: population stability index 1.")


def test_the_index_is_that_of_the_definition() -> None:
    p, q = np.array([30.5, 50.5, 20.5]), np.array([20.5, 50.5, 30.5])
    p, q = p / p.sum(), q / q.sum()
    assert population_stability_index([30, 50, 20], [20, 50, 30]) == pytest.approx(np.sum((p - q) * np.log(p / q)))
    assert population_stability_index([3, 5, 2], [3, 5, 2]) == 0
    assert math.isfinite(population_stability_index([0, 10], [10, 0]))


def test_small_nights_need_more_than_chance() -> None:
    """The limit is passed by chance once in a thousand times, whatever the night's size."""
    found = compare(history(), summary(15, tally(60, 5)))
    usual = sum(found.usual)
    scored = found.current.total.scored
    assert found.psi_limit == pytest.approx(stats.chi2.ppf(0.999, BINS - 1) * (1 / scored + 1 / usual), rel=1e-4)
    assert found.psi_limit > 0.25
    alarms = [compare(history(), summary(15, tally(60, seed))).alarms for seed in range(300, 400)]
    assert sum(map(bool, alarms)) <= 2


def test_coverage_that_falls_raises_an_alarm() -> None:
    found = compare(history(), summary(15, tally(400, 7, coverage=0.7)))
    assert [line.split(" is ")[0] for line in found.alarms] == ["coverage", "no_face"]
    assert "usually 90." in found.alarms[0] or "usually 89." in found.alarms[0]


def test_one_bucket_that_fails_is_named() -> None:
    def night(run: int, coverage: float = 0.9) -> ScoreSummary:
        one, two = tally(2000, run), tally(60, 1000 + run, coverage=coverage)
        both = replace(
            one, items=2060, scored=one.scored + two.scored,
            set_aside={"no_face": one.set_aside["no_face"] + two.set_aside["no_face"]},
            histogram=tuple(a + b for a, b in zip(one.histogram, two.histogram, strict=True)),
        )  # fmt: skip
        return summary(run, both, one=one, two=two)

    found = compare([night(run) for run in range(1, 10)], night(10, coverage=0.3))
    assert [line.split(" is ")[0] for line in found.alarms] == ["coverage of two"]


def test_a_new_kind_of_fault_raises_an_alarm() -> None:
    faulty = tally(400, 8, coverage=0.87, faults={"unreadable": 40})
    found = compare(history(), summary(15, faulty))
    assert "unreadable is 10.0%, usually 0.0% ± 5.0 points" in found.alarms


def test_nights_that_vary_much_have_a_wider_tolerance() -> None:
    restless = [summary(run, tally(400, run, coverage=0.95 if run % 2 else 0.75)) for run in range(1, 15)]
    tonight = summary(15, tally(400, 7, coverage=0.75))
    assert compare(restless, tonight).alarms == ()
    assert compare(history(), tonight).alarms != ()


def test_early_runs_other_bundles_and_few_items_are_not_compared() -> None:
    first = compare([], summary(1, tally(400, 1)))
    assert (first.psi, first.alarms, first.earlier) == (None, (), ())
    assert first.notes[0] == "scores: no earlier runs with this bundle and these options, 3 are needed"
    other = compare(history(), summary(15, tally(400, 9, coverage=0.5), bundle="c"))
    assert other.psi is None
    assert [line.split(" is ")[0] for line in other.alarms] == ["coverage", "no_face"], "coverage needs no bundle"
    options = compare(history(), summary(15, tally(400, 9, coverage=0.5), options="p"))
    assert options.alarms == ()
    few = compare(history(), summary(15, tally(20, 9, coverage=0.2)))
    assert few.alarms == ()
    assert len(few.notes) == 2


def test_the_last_fourteen_runs_that_looked_at_something_count() -> None:
    runs = [*history(20), summary(21, Tally())]
    found = compare(runs, summary(22, tally(400, 3)))
    assert [each.run for each in found.earlier] == list(range(7, 21))
    again = compare(runs, summary(10, tally(400, 3)))
    assert [each.run for each in again.earlier] == list(range(1, 10)), "later runs are no history"


def test_alarms_travel_with_the_summary(tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path)
    for each in history(16):
        write_summary(sink, replace(each, drift=("a", "b"), psi=0.5))
    found = read_history(sink, 14)
    assert [each.run for each in found] == list(range(3, 17))
    assert found[-1].drift == ("a", "b")
    assert found[-1].psi == 0.5
