"""News of a run as they come, also from workers that were lost and began an epoch anew, and into a store that fails."""

import time
from pathlib import Path

import pytest

from batch.model.fit.loop import StepReport
from batch.model.records import EpochRecord
from batch.storage.base import StorageError
from batch.storage.local import LocalStorage
from jobs.board import open_board
from jobs.train_progress import HISTORY, History, TrainProgress, read_history


def step(number: int, *, epoch: int = 1, stage: str = "whole") -> StepReport:
    return StepReport(
        stage=stage, epoch=epoch, step=number, steps=10, loss=0.7, learning_rate=0.1, images_per_second=10.0
    )  # type: ignore[arg-type]


def ended(epoch: int, *, stage: str = "whole", loss: float = 0.5) -> EpochRecord:
    return EpochRecord(
        stage=stage, epoch=epoch, step=10 * epoch, loss=loss, learning_rate=0.1, images_per_second=10.0, seconds=1.0,
        validation={"loss": 0.4, "accuracy": 0.9, "auc": 0.95},
    )  # fmt: skip


@pytest.fixture
def sink(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's hand, one place."""
    hand = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: hand[0])
    return hand


class Watched(TrainProgress):
    """Keeps what it says is left."""

    left: list[float | None]

    def _left_s(self, news: StepReport) -> float | None:
        self.left.append(super()._left_s(news))
        return self.left[-1]


def told(sink: LocalStorage, clock: list[float], news: list[StepReport | EpochRecord]) -> list[float | None]:
    """What is left after each step; steps are 2 s apart."""
    shown = Watched(None, {"head": 2, "whole": 3}, History(sink))
    shown.left = []
    for each in news:
        clock[0] += 2.0
        shown.tell(each)
    return shown.left


def test_an_epoch_that_a_lost_worker_begins_anew_is_told_as_any_other(sink: LocalStorage, clock: list[float]) -> None:
    left = told(sink, clock, [step(1), step(2), step(3), step(1), step(2), ended(1), step(1, epoch=2)])
    # 2 s a step: 8 or 7 steps of this epoch and 20 of the next two.
    assert left == [None, 2.0 * 28, 2.0 * 27, None, 2.0 * 28, None]
    left = told(sink, clock, [step(4, epoch=2), step(8, epoch=2), step(6, epoch=2), step(7, epoch=2), ended(2)])
    assert left[2:] == [None, 2.0 * 13]
    assert [record.epoch for record in read_history(sink)] == [1, 2]


def test_what_comes_between_two_epochs_counts(sink: LocalStorage, clock: list[float]) -> None:
    """Each step takes 2 s, and validation another 2."""
    news = [step(9), step(10), ended(1), step(1, epoch=2), step(2, epoch=2), step(10, epoch=2), ended(2)]
    assert told(sink, clock, news) == [None, 2.0 * 20, None, 2.0 * 18 + 2 * 2.0, pytest.approx(4 / 9 * 10 + 2 * 2.0)]


def test_the_pace_of_the_head_tells_nothing_of_the_network(sink: LocalStorage, clock: list[float]) -> None:
    news = [step(1, stage="head"), step(2, stage="head"), ended(1, stage="head"), step(1, epoch=2), step(2, epoch=2)]
    assert told(sink, clock, news) == [None, 2.0 * 18, None, 2.0 * 28 + 3 * 2.0]


def test_training_has_the_last_word_on_its_history(sink: LocalStorage) -> None:
    shown = TrainProgress(None, {"whole": 3}, History(sink))
    shown.tell(ended(1, loss=0.9))
    shown.settle([ended(1), ended(2), ended(3)])
    assert read_history(sink) == [ended(1), ended(2), ended(3)]
    assert len(list(sink.list("tensorboard/"))) == 1


class Away(LocalStorage):
    """A store that does not answer once."""

    failures = 1

    def put(self, key: str, data: bytes) -> None:
        if key == HISTORY and self.failures:
            self.failures -= 1
            raise StorageError(f"{self.uri(key)}: no answer")
        super().put(key, data)


@pytest.mark.slow
def test_a_store_that_fails_costs_one_notice_and_no_other_node_can_lose_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    sink = Away(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False)
        tell = TrainProgress(None, {"whole": 3}, History(sink)).tell
        for epoch in (1, 2, 3):  # without a place named, Ray draws one
            with open_board(ray, tell) as board:
                ray.get(board.actor.put.remote(ended(epoch)))
                ray.get([board.actor.fail.remote(why) for why in ("first", "second")])
                assert board.why_failed() == "first"
                place = board.actor.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
                assert ray.get(place) == ray.get_runtime_context().get_node_id()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert "its progress was not kept" in capsys.readouterr().err
    assert [record.epoch for record in read_history(sink)] == [1, 2, 3]
