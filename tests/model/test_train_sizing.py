"""What a training run takes, from a sample."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.model.fit.options import FitOptions
from batch.model.plan import DataOptions, plan_epoch
from batch.model.sizing import FaceCounts, Rate, TrainSample, epoch_faces, size_training
from batch.storage.local import LocalStorage
from tests.support.face_shards import write_index

COUNTS = FaceCounts(all=10_000, train_real=1_000, train_fake=6_000, validation=1_500, test=1_500)
FIT = FitOptions(epochs=4, head_epochs=2)
DATA = DataOptions(batch_size=100, max_faces=None)


def rate(faces_per_s: float) -> Rate:
    return Rate(faces_per_s=faces_per_s, error=0.0, steps=10)


SAMPLE = TrainSample(
    device="GPU", places=50, start_s=36.0, input=rate(400), stages={"head": rate(500), "whole": rate(100)},
    scan=rate(200), look_s=0.001, weights_bytes=80_000_000, state_bytes=300_000_000,
)  # fmt: skip


def sized(counts: FaceCounts = COUNTS, data: DataOptions = DATA, **more: Any) -> Any:
    given = {"workers": 2, "nodes": 1, "gbit": 10.0, "shard_bytes": 1e9, "shards": 40.0, **more}
    return size_training(SAMPLE, counts, data, FIT, **given)


def test_an_epoch_has_as_many_faces_as_its_plan(tmp_path: Path) -> None:
    choices = [("downsample", "none"), ("weights", "none"), ("none", "none"), ("downsample", "self-blended")]
    for number, (real, fake) in enumerate([(12, 48), (12, 12), (20, 5)]):
        index = write_index(LocalStorage(tmp_path / str(number)), [[0] * real, [1] * fake], side=16)
        for (balance, synthetic), most in itertools.product(choices, (None, 10, 25, 31, 1000)):
            options = DataOptions(batch_size=4, balance=balance, synthetic=synthetic, max_faces=most)  # type: ignore[arg-type]
            plan = plan_epoch(index, np.arange(real + fake), options, 1)
            assert epoch_faces(real, fake, options) == plan.faces, options


def test_hours_follow_the_slower_of_input_and_steps() -> None:
    found = sized()
    assert found.epoch_faces == 2_000  # in 20 steps of 100, 50 of them on each worker
    assert found.hours["start"] == pytest.approx(0.01)
    assert found.hours["head"] == pytest.approx(2 * 20 * 50 / 400 / 3600)
    assert found.hours["whole"] == pytest.approx(4 * 20 * 50 / 100 / 3600)
    assert found.hours["validation"] == pytest.approx(6 * 1_500 / (2 * 200) / 3600)
    assert found.hours["final"] == pytest.approx(3_000 / (2 * 200) / 3600)
    assert found.total_hours == pytest.approx(sum(found.hours.values()))
    assert found.look_cpu_hours == pytest.approx(10 / 3600)
    assert found.checkpoint_bytes == 6 * 300_000_000


def test_gradients_go_between_nodes_alone_and_slow_the_whole_network() -> None:
    one, four = sized(), sized(nodes=4)
    assert one.exchange_s == 0
    assert four.exchange_s == pytest.approx(2 * 3 / 4 * 80_000_000 * 8 / 10e9)
    assert four.hours["whole"] - one.hours["whole"] == pytest.approx(4 * 20 * four.exchange_s / 3600)
    assert four.hours["head"] == one.hours["head"]


def test_shards_are_read_again_where_the_cache_does_not_hold_them() -> None:
    assert sized().get_requests == 40 * (1 + 2 + 2)
    assert sized(data=replace(DATA, cache="none")).bytes_read == 1e9 * (1 + 2 * 6 + 2)
    assert sized(data=replace(DATA, cache_mb=100)).get_requests == 40 * (1 + 2 * 6 + 2)
    assert sized(data=replace(DATA, cache="disk", cache_mb=1)).get_requests == 40 * 5


def test_a_larger_corpus_keeps_its_shares() -> None:
    larger = COUNTS.scaled(95_634)
    assert (larger.all, larger.train_real, larger.validation) == (95_634, 9_563, 14_345)
    assert COUNTS.scaled(10_000) == COUNTS
