"""How trials are placed, stopped and given up, without training any: ASHA's reach, room that grows, what is final."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from batch.model.records import EpochRecord
from batch.model.tuning.records import Progress, Status, Trial, TrialResult
from batch.model.tuning.store import TrialStore
from batch.shards.runfile import RunFile, claim_output
from batch.storage.local import LocalStorage
from jobs.fitting import LostWorkersError
from jobs.tune_conclude import results_of
from jobs.tune_options import Resources, TuneOptions
from jobs.tune_optuna import OptunaSource
from jobs.tune_plan import ListSource, most_epochs
from jobs.tune_run import Ending, earlier_trials, make_scheduler, make_searcher, most_at_once, reserved, why_lost
from jobs.tune_status import tune_status
from jobs.tune_trial import Running, TrialContext, final_reason


def trial(name: str) -> Trial:
    configuration = {"model": "cnn", "learning_rate": 0.01}
    return Trial(id=f"{name}-0", configuration_id=name, name=name, configuration=configuration, seed=0)


def record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(
        stage="whole", epoch=epoch, step=epoch, loss=loss, learning_rate=0.1, images_per_second=1.0, seconds=1.0,
        validation={"loss": loss, "accuracy": 0.5, "auc": 0.5},
    )  # fmt: skip


def tuned(made: Trial, folder: Path | None = None, error: BaseException | None = None) -> object:
    """Tune's own record of a trial, as its callbacks get it; what it knows of an error lies in the folder."""
    from ray.tune.experiment import Trial as TuneTrial

    class Kept(TuneTrial):
        local_path = None if folder is None else str(folder)  # otherwise in a folder of a Ray that runs

    found = Kept("trials", stub=True, config={"trial": made.to_json()})
    if error is not None:
        found.handle_error(error)
    return found


def context(output: LocalStorage) -> TrialContext:
    """Of no faces: nothing here looks at one."""
    nothing = dict.fromkeys(("index", "train", "validation", "file_system", "faces", "landmarks"))
    return TrialContext(
        sinks=(), output=output, recipe=TuneOptions().recipe(), resources=Resources(), workers=1, max_failures=3,
        storage_path="", features={}, **nothing,
    )  # fmt: skip


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_asha_lets_the_longest_trial_of_the_space_come_to_its_end(search: str, tmp_path: Path) -> None:
    path, output = tmp_path / "grid.yaml", LocalStorage(tmp_path / "tuned")
    path.write_text(
        "rows: [{name: a, model: cnn}]\ngrid: {model: [cnn], epochs: {range: [2, 40]}, head_epochs: [0, 5]}"
    )
    options = TuneOptions(places=("a", "b"), grid=str(path), search=search, trials=9, scheduler="asha")
    most = most_epochs(options.recipe(), options.tried())
    assert most == 45
    scheduler, best, behind = make_scheduler(options, output, most), tuned(trial("best")), tuned(trial("behind"))
    for each in (best, behind):
        scheduler.on_trial_add(None, each)

    def decided(which: object, epoch: int, loss: float) -> str:
        return str(scheduler.on_trial_result(None, which, {"epoch": epoch, "loss": loss}))

    assert {decided(best, epoch, 1 / epoch) for epoch in range(1, most + 1)} == {"CONTINUE"}
    assert decided(behind, 1, 2.0) == "STOP"
    # What trials of an earlier call had reached counts in the next one.
    store = TrialStore(output, "best-0")
    store.ask(trial("best"))
    store.end(TrialResult(trial=trial("best"), status=Status.FINISHED, history=(record(1, 1.0),), best=0))
    scheduler = make_scheduler(options, output, most)
    scheduler.on_trial_add(None, behind)
    assert decided(behind, 1, 2.0) == "STOP"


def test_room_for_trials_of_several_workers_grows_with_the_cluster(tmp_path: Path) -> None:
    wanted = Resources(cpus=4, gpus=1)
    assert most_at_once(wanted, {"CPU": 9.0, "GPU": 3.0}, can_grow=False) == 2
    assert most_at_once(wanted, {"CPU": 99.0, "GPU": 3.0}, can_grow=False) == 3
    assert most_at_once(wanted, {}, can_grow=False) == 1
    assert most_at_once(wanted, {}, can_grow=True) == 4
    assert most_at_once(wanted, {"CPU": 32.0, "GPU": 8.0}, can_grow=True) == 16
    there, output = {"CPU": 1.0}, LocalStorage(tmp_path / "tuned")
    source = ListSource([trial(name) for name in "abcd"])
    searcher = make_searcher(source, output, lambda: most_at_once(Resources(), there, can_grow=False))
    asked = searcher.suggest("1")
    assert json.loads(asked["trial"])["id"] == "a-0" and searcher.suggest("2") is None
    there["CPU"] = 2.0
    assert json.loads(searcher.suggest("3")["trial"])["id"] == "b-0" and searcher.suggest("4") is None
    searcher.on_trial_complete("1")
    assert json.loads(searcher.suggest("5")["trial"])["id"] == "c-0"
    unbound = make_searcher(source, output, None)
    assert json.loads(unbound.suggest("6")["trial"])["id"] == "d-0" and unbound.suggest("7") == "FINISHED"


def test_trials_may_share_a_gpu_and_those_of_several_workers_reserve_nothing() -> None:
    alone = TuneOptions(resources_per_trial="cpu=2,gpu=0.25")
    assert reserved(alone).bundles == [{"CPU": 2.0, "GPU": 0.25}]
    assert reserved(TuneOptions()).bundles == [{"CPU": 1.0}]
    (together,) = reserved(TuneOptions(resources_per_trial="cpu=4,gpu=2", workers=2)).bundles
    assert not {"CPU", "GPU"} & set(together)


def test_what_workers_wait_for_room_is_no_cost_of_their_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    output = LocalStorage(tmp_path / "tuned")
    TrialStore(output, "slow-0").tell(Progress(seconds=3.0, attempts=1))
    running = Running(trial("slow"), context(output))
    running.begin()
    running.wait()
    now = 9000.0
    running.works(2.0)
    now = 9005.0
    running.works(1.0)
    running.fail("loss is nan")
    found = TrialStore(output, "slow-0").result()
    assert found is not None and (found.seconds, found.attempts) == (10.0, 2)


def test_what_ended_a_trial_is_told_from_what_may_pass() -> None:
    import jax
    import tensorflow as tf

    from batch.model.fit.loop import TrainingDivergedError

    full = (
        MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"),
    )  # fmt: skip
    assert all(final_reason(error).startswith("out of memory: ") for error in full)
    for error in (TrainingDivergedError("loss is nan"), ValueError("a damaged crop"), RuntimeError("no such device")):
        assert final_reason(error) == str(error)
    passing = (LostWorkersError("training failed on worker 1: died"), OSError("no route"), KeyboardInterrupt())
    assert [final_reason(error) for error in passing] == ["", "", ""]


def test_a_dead_process_is_told_from_a_full_memory() -> None:
    from ray import exceptions

    full = exceptions.OutOfMemoryError("Task was killed due to the node running low on memory. Memory: 15 of 16 GB")
    assert why_lost(str(full)) == (True, f"out of memory: {full}")
    # Ray lists a full memory among what may have happened to any lost process.
    listed = "Worker unexpectedly exits. Some common causes include: (1) the node was running low on memory"
    assert why_lost(listed) == (False, "its process was lost: Worker unexpectedly exits.")
    assert why_lost(str(exceptions.WorkerCrashedError()))[0] is False
    assert why_lost("") == (False, "its process was lost: its process died")


def test_a_trial_that_was_lost_is_tried_again_by_the_same_command_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.exceptions import WorkerCrashedError

    output, told = LocalStorage(tmp_path / "tuned"), []
    claim_output(output, RunFile(kind="tune", input="faces", shaping={}, versions={}))
    lost, ended = trial("lost"), trial("ended")
    store, other = TrialStore(output, lost.id), TrialStore(output, ended.id)
    for each, made in ((store, lost), (other, ended)):
        each.ask(made)
        each.tell(Progress(history=(record(1, 0.5),), seconds=2.0, attempts=4))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"as of epoch 1")
    store.save("pixels", checkpoint)

    ending = Ending(context(output), ListSource([]), told.append)
    ending.complete(tuned(ended))
    ending.error(tuned(lost, tmp_path, WorkerCrashedError()))
    assert [(each.status, each.attempts) for each in told] == [(Status.STOPPED, 4), (Status.FAILED, 4)]
    assert "others were better" in told[0].reason and "its process was lost" in told[1].reason
    assert store.result() is None and (lost, None) in earlier_trials(output)
    tune_status(output, as_json=False)
    assert "1 of an unknown number ended: stopped 1" in (said := capsys.readouterr().out)
    assert "its process was lost" in said
    with pytest.raises(RuntimeError, match=r"1 trials were left over: run the same.*\n  lost-0: its process was lost"):
        results_of(output, [ended, lost], Resources(), None)
    rows = results_of(output, [ended, lost], Resources(), 5.0)
    assert [row.status for row in rows] == [Status.STOPPED, Status.FAILED] and rows[1].reason == told[1].reason

    with store.restored("pixels") as folder:
        assert folder is not None and (folder / "weights").read_bytes() == b"as of epoch 1"
    if find_spec("optuna"):
        options = TuneOptions(search="optuna", trials=2)
        again = OptunaSource(options, options.tried(), [], earlier_trials(output))
        first = again.next()
        assert first is not None and first.configuration == lost.configuration
    ending.error(tuned(lost, tmp_path, WorkerCrashedError()))
    final = store.result()
    assert final is not None and final.status == Status.FAILED and final.reason == told[1].reason
    assert results_of(output, [ended, lost], Resources(), None)[1] == final
    with store.restored("pixels") as folder:
        assert folder is None


def test_a_full_memory_is_final_at_once(tmp_path: Path) -> None:
    from ray.exceptions import OutOfMemoryError

    output, told = LocalStorage(tmp_path / "tuned"), []
    ending = Ending(context(output), ListSource([]), told.append)
    ending.error(tuned(trial("large"), tmp_path, OutOfMemoryError("the node was running low on memory")))
    assert TrialStore(output, "large-0").result() == told[0]
    assert (told[0].status, told[0].reason) == (Status.FAILED, "out of memory: the node was running low on memory")
