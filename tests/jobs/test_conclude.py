"""The end of training: what goes wrong there is a failure, not wrong usage."""

from pathlib import Path

import numpy as np
import pytest

from batch.model.plan import DataOptions
from batch.model.records import EpochRecord, Scores, Split
from batch.model.split import SplitOptions, make_split
from batch.shards.runfile import RunFile
from batch.storage.base import AccessError, DamagedError
from batch.storage.local import LocalStorage
from jobs.conclude import conclude
from jobs.console import Exit, begun, guarded
from jobs.fitting import Trained
from jobs.splitting import Prepared
from tests.support.face_outputs import corpus, index_of


class Withdrawn(LocalStorage):
    """A folder whose right to be written was taken away while the network learnt."""

    def put(self, key: str, data: bytes) -> None:
        raise AccessError(f"{self.uri(key)}: AccessDenied")


def ended(sink: LocalStorage, *, told_apart: float) -> Exit:
    """Ends a training run of a network whose fakes lie so far above its reals; as far as `sink` lets it."""
    index = index_of(corpus(30))
    split = make_split(index, SplitOptions())
    rng = np.random.default_rng(0)
    scores = {
        str(name): Scores(
            rows=(rows := split.rows(name)),
            logits=(rng.normal(0, 1, len(rows)) + told_apart * index.labels[rows]).astype(np.float32),
        )
        for name in (Split.VALIDATION, Split.TEST)
    }
    record = EpochRecord(
        stage="whole", epoch=1, step=1, loss=0.5, learning_rate=0.1, images_per_second=1.0, seconds=1.0
    )
    trained = Trained(model=b"", history=(record,), best=0, scores=scores, device="CPU")
    run = RunFile(kind="train", input="/in", shaping={"split": {"by": "source"}}, versions={})

    def job() -> Exit:
        conclude(
            sink, index, Prepared(split=split, fingerprint=b""), trained, run, DataOptions(), {},
            prevalence=0.01, pictures=False,
        )  # fmt: skip
        return Exit.OK

    return guarded(job, "train")


def test_lost_permission_at_the_end_of_training_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(Withdrawn(str(tmp_path)), told_apart=2) == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith("fakesift train: stopped: ")
    assert said.endswith("predictions.parquet: AccessDenied\n")


def test_a_network_that_tells_nothing_on_validation_is_spoken_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(Withdrawn(str(tmp_path)), told_apart=-2)
    assert capsys.readouterr().err.startswith("On validation every score would best be one half: ")


@pytest.mark.parametrize("error", [AccessError("expired"), DamagedError("commit"), ValueError("shard: changed")])
def test_wrong_input_is_a_failure_once_work_has_begun(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def job(*, late: bool) -> Exit:
        if late:
            with begun():
                raise error
        raise error

    assert [guarded(lambda late=late: job(late=late), "x") for late in (False, True)] == [Exit.USAGE, Exit.FAILED]  # type: ignore[misc]
    assert capsys.readouterr().err == f"fakesift x: {error}\nfakesift x: stopped: {error}\n"
