"""The order of an epoch: independent of workers, each face at most once, balanced as the options say."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.model.plan import DataOptions, EpochPlan, plan_epoch, plan_scan
from batch.model.records import FaceIndex
from batch.storage.local import LocalStorage
from tests.support.face_shards import write_index

SIZES = (40, 3, 17, 1, 29, 64, 2, 11, 23, 5)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    """Uneven shards, one real face of four."""
    labels = [[int((row + shard) % 4 != 0) for row in range(size)] for shard, size in enumerate(SIZES)]
    return write_index(LocalStorage(tmp_path_factory.mktemp("faces")), labels, side=16)


def everything(index: FaceIndex) -> np.ndarray:
    return np.arange(index.table.num_rows)


def used(plan: EpochPlan) -> np.ndarray:
    return np.concatenate([lane.rows for lane in plan.lanes])


def step_rows(plan: EpochPlan, step: int, rank: int, workers: int) -> list[int]:
    parts = slice(step * plan.lane_batch, (step + 1) * plan.lane_batch)
    return [int(row) for lane in plan.owned(rank, workers) for row in plan.lanes[lane].rows[parts]]


@pytest.mark.parametrize("batch_size", [1, 7, 8, 12, 32, 48])
@pytest.mark.parametrize("balance", ["downsample", "weights", "none"])
def test_each_face_comes_at_most_once_and_lanes_are_even(index: FaceIndex, batch_size: int, balance: str) -> None:
    options = DataOptions(batch_size=batch_size, balance=balance, seed=3)
    plan = plan_epoch(index, everything(index), options, 1)
    assert len(set(used(plan).tolist())) == len(used(plan)) == plan.faces
    lengths = [len(lane) for lane in plan.lanes]
    assert max(lengths) - min(lengths) <= 1
    assert plan.batch_size == batch_size
    assert plan.steps == -(-max(lengths) // plan.lane_batch)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_workers_share_the_same_global_batches(index: FaceIndex, workers: int) -> None:
    plan = plan_epoch(index, everything(index), DataOptions(batch_size=32, balance="weights"), 4)
    for step in range(plan.steps):
        parts = [step_rows(plan, step, rank, workers) for rank in range(workers)]
        whole = step_rows(plan, step, 0, 1)
        assert sorted(row for part in parts for row in part) == sorted(whole)
        assert max(map(len, parts)) <= plan.places(workers)
        weight = sum(float(lane.weights[np.isin(lane.rows, whole)].sum()) for lane in plan.lanes)
        assert plan.total_weights[step] == pytest.approx(weight)


def test_epochs_differ_and_repeat(index: FaceIndex) -> None:
    options = DataOptions(batch_size=8, seed=5)
    first, again, second, other = (
        plan_epoch(index, everything(index), replace(options, seed=seed), epoch)
        for seed, epoch in ((5, 1), (5, 1), (5, 2), (6, 1))
    )
    assert np.array_equal(used(first), used(again))
    for plan in (second, other):
        assert not np.array_equal(used(first), used(plan))
    assert set(used(first).tolist()) != set(used(second).tolist()), "fakes are drawn anew"


def test_row_order_of_the_split_does_not_matter(index: FaceIndex) -> None:
    shuffled = np.random.default_rng(0).permutation(everything(index))
    options = DataOptions(batch_size=8)
    assert np.array_equal(
        used(plan_epoch(index, shuffled, options, 1)), used(plan_epoch(index, everything(index), options, 1))
    )


def test_downsample_takes_all_of_the_smaller_class(index: FaceIndex) -> None:
    labels = index.labels
    plan = plan_epoch(index, everything(index), DataOptions(), 1)
    counts = Counter(labels[used(plan)].tolist())
    assert counts[0] == counts[1] == (labels == 0).sum()
    few_fakes = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:9]])
    plan = plan_epoch(index, few_fakes, DataOptions(), 1)
    assert Counter(labels[used(plan)].tolist()) == {0: 9, 1: 9}


def test_weights_make_classes_equal(index: FaceIndex) -> None:
    plan = plan_epoch(index, everything(index), DataOptions(balance="weights"), 1)
    labels = np.concatenate([lane.labels for lane in plan.lanes])
    weights = np.concatenate([lane.weights for lane in plan.lanes])
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum(), rel=1e-5)
    assert weights.mean() == pytest.approx(1)
    assert plan.total_weights.sum() == pytest.approx(weights.sum())


def test_max_faces_is_one_balanced_draw_for_the_run(index: FaceIndex) -> None:
    labels = index.labels
    options = DataOptions(max_faces=40, balance="none")
    plans = [plan_epoch(index, everything(index), options, epoch) for epoch in (1, 2)]
    assert set(used(plans[0]).tolist()) == set(used(plans[1]).tolist()) == set(plans[0].pool.tolist())
    assert Counter(labels[plans[0].pool].tolist()) == {0: 20, 1: 20}
    reals = int((labels == 0).sum())
    plan = plan_epoch(index, everything(index), replace(options, max_faces=4 * reals - 20), 1)
    counts = Counter(labels[plan.pool].tolist())
    assert counts == {0: reals, 1: 3 * reals - 20}, "the larger class fills up"


def test_without_a_bound_every_real_face_is_blended(tmp_path: Path) -> None:
    mostly_real = write_index(LocalStorage(tmp_path), [[0] * 11, [1]], side=16)
    plan = plan_epoch(mostly_real, np.arange(12), DataOptions(batch_size=4, synthetic="self-blended"), 1)
    assert plan.pool.tolist() == list(range(11))
    bounded = DataOptions(batch_size=4, synthetic="self-blended", max_faces=8)
    assert len(plan_epoch(mostly_real, np.arange(12), bounded, 1).pool) == 4


def test_self_blended_pairs_stay_in_one_batch(index: FaceIndex) -> None:
    for batch_size in (2, 16, 32, 36):
        options = DataOptions(batch_size=batch_size, synthetic="self-blended", max_faces=None)
        plan = plan_epoch(index, everything(index), options, 2)
        assert plan.faces == 2 * (index.labels == 0).sum()
        assert plan.lane_batch % 2 == 0
        for lane in plan.lanes:
            assert np.array_equal(lane.rows[0::2], lane.rows[1::2])
            assert lane.labels.tolist() == lane.synthetic.tolist() == [0, 1] * (len(lane) // 2)
            assert (index.labels[lane.rows] == 0).all()


def test_scan_takes_each_face_once_in_order(index: FaceIndex) -> None:
    rows = np.flatnonzero(np.arange(index.table.num_rows) % 3)
    plan = plan_scan(index, rows[::-1], 12)
    assert used(plan).tolist() == rows.tolist()
    assert plan.total_weights.sum() == len(rows)


def test_a_shards_faces_lie_in_one_window(index: FaceIndex) -> None:
    shards = index.table["shard"].to_numpy()
    for plan in (
        plan_epoch(index, everything(index), DataOptions(batch_size=2), 1),
        plan_scan(index, everything(index), 2),
    ):
        for lane in plan.lanes:
            assert lane.windows[-1] == len(lane)
            seen = [set(shards[lane.rows[a:b]]) for a, b in itertools.pairwise(lane.windows)]
            assert sum(map(len, seen)) == len(set().union(*seen))


def test_fewer_faces_than_lanes(index: FaceIndex) -> None:
    rows = np.concatenate([np.flatnonzero(index.labels == 0)[:1], np.flatnonzero(index.labels == 1)[:2]])
    plan = plan_epoch(index, rows, DataOptions(batch_size=32, balance="none"), 1)
    assert sorted(used(plan)) == sorted(rows)
    assert plan.steps == 1
    assert plan.total_weights.tolist() == [3]


def test_bad_input_is_named(index: FaceIndex, tmp_path: Path) -> None:
    rows, labels = everything(index), index.labels
    for wrong, message in (
        (rows[labels == 0], "real and 0 fake"),
        (rows[labels == 1], "got 0 real"),
        (np.append(rows, rows[5]), "row 5 more than once"),
        (np.append(rows, len(rows)), f"expected 0 to {len(rows) - 1}"),
        (rows[:0], "0 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_epoch(index, wrong, DataOptions(), 1)
    with pytest.raises(ValueError, match="no real faces"):
        plan_epoch(index, rows[labels == 1], DataOptions(synthetic="self-blended"), 1)
    unknown = write_index(LocalStorage(tmp_path), [[0, 1, None]], side=16)
    with pytest.raises(ValueError, match=r"1 faces have no label .*00002"):
        plan_epoch(unknown, np.arange(3), DataOptions(), 1)
    assert plan_scan(unknown, np.arange(3), 4).total_weights.tolist() == [2]
    assert plan_scan(unknown, np.array([0, 2]), 4, even=True).total_weights.tolist() == [1], (
        "one class: nothing to even"
    )
    plan = plan_epoch(index, rows, DataOptions(batch_size=12), 1)
    with pytest.raises(ValueError, match="workers: got 5, expected at most 4"):
        plan.owned(0, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"max_faces": 1},
        {"batch_size": 5, "synthetic": "self-blended"},
        {"seed": -1},
        {"cache_mb": -1},
    ],
)
def test_options_refuse_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DataOptions(**wrong)
