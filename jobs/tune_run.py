"""Trials through Ray Tune: placed by their resources, stopped by the scheduler or the budget, started anew when lost.

Tune decides what runs where and when; what was asked and how it ended stands under OUTPUT/trials. So an interrupted run
needs nothing of Tune's own state, whose snapshots are some seconds old when a driver dies: a trial that ended after
the last one would run again.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

from batch.model.tuning.records import METRICS, Status, Trial, TrialResult
from batch.model.tuning.store import TrialStore, trials_of
from batch.storage.base import Storage
from jobs.console import say
from jobs.session import alive_nodes
from jobs.tune_options import TuneOptions
from jobs.tune_plan import Source
from jobs.tune_trial import TrialContext, ended, run_trial

_FACTOR = 3
"""Of ASHA: one of three goes on (Li et al. 2020, arXiv 1810.05934)."""


def run_trials(
    options: TuneOptions, context: TrialContext, source: Source, most_epochs: int, tell: Callable[[TrialResult], None]
) -> None:
    """Runs the trials of the source until there is no other or the budget is used up; `tell` takes each end."""
    # Tune would write its own logs, take over interrupts, and run trials in another folder than the job's.
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", TUNE_DISABLE_SIGINT_HANDLER="1", RAY_AIR_NEW_OUTPUT="0",
        TUNE_WARN_THRESHOLD_S="600", TUNE_PRINT_ALL_TRIAL_ERRORS="0", RAY_CHDIR_TO_TRIAL_DIR="0",
    )  # fmt: skip
    from ray import tune

    ending = _Ending(context, source, tell)
    scheduler = _scheduler(options, context.output, most_epochs)
    with tempfile.TemporaryDirectory(prefix="fakesift-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, context=context), _bundle(options)),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(source, context.output),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=_most_at_once(options),
                time_budget_s=None if options.budget_minutes is None else 60 * options.budget_minutes,
                reuse_actors=options.workers == 1,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=options.max_failures),
                callbacks=[_callback(ending)],
                verbose=0,
            ),
        )
        # Whatever its verbosity, it prints a line for each trial that ended without a result.
        with redirect_stdout(io.StringIO()):
            tuner.fit()


def check_room(ray: Any, options: TuneOptions) -> None:
    """Refuses trials that no node can hold, for which Tune would wait for ever; a cluster may still grow.

    Raises:
        ValueError: naming what a trial wants and what the largest node has.
    """
    nodes = [node["Resources"] for node in alive_nodes(ray)]
    wanted = {"CPU": options.resources.cpus / options.workers, "GPU": options.resources.gpus / options.workers}
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    there = "; ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
    problem = f"resources per trial: received {options.resources_per_trial!r}, expected what a node has: {there}"
    if options.address is None:
        raise ValueError(problem)
    say(f"{problem}; waiting for one that has it")


def earlier_trials(output: Storage) -> list[tuple[Trial, TrialResult | None]]:
    """Every trial that was ever asked under OUTPUT, with its end."""
    stores = [TrialStore(output, name) for name in trials_of(output)]
    asked = [(store.asked(), store) for store in stores]
    return [(trial, store.result()) for trial, store in asked if trial is not None]


def _bundle(options: TuneOptions) -> Any:
    """What Tune reserves: all of a trial, or next to nothing where Ray Train places its workers."""
    from ray.tune import PlacementGroupFactory

    if options.workers > 1:
        # A byte: a share of a core, however small, would keep the last worker from its whole one.
        return PlacementGroupFactory([{"memory": 1}])
    bundle = {"CPU": options.resources.cpus}
    if options.resources.gpus:
        bundle["GPU"] = options.resources.gpus
    return PlacementGroupFactory([bundle])


def _most_at_once(options: TuneOptions) -> int | None:
    """Of trials whose workers Ray Train places: as many as can have all of them."""
    if options.workers == 1:
        return None
    import ray

    asked: Any = ray.cluster_resources
    there = asked()
    rooms = [there.get("CPU", 0.0) / options.resources.cpus]
    if options.resources.gpus:
        rooms.append(there.get("GPU", 0.0) / options.resources.gpus)
    return max(1, int(min(rooms)))


def _scheduler(options: TuneOptions, output: Storage, most_epochs: int) -> Any:
    """None for first come, first served. ASHA is told again what trials of an earlier call had reported."""
    if options.scheduler == "none":
        return None
    from ray.tune.schedulers import ASHAScheduler

    scheduler: Any = ASHAScheduler(
        time_attr="epoch", metric=options.metric, mode=METRICS[options.metric], max_t=most_epochs + 1, grace_period=1,
        reduction_factor=_FACTOR,
    )  # fmt: skip
    for trial, result in earlier_trials(output):
        stand_in: Any = SimpleNamespace(trial_id=trial.id)
        scheduler.on_trial_add(None, stand_in)
        for record in result.history if result else ():
            scheduler.on_trial_result(None, stand_in, {"epoch": record.epoch, **record.validation})
    return scheduler


def _searcher(source: Source, output: Storage) -> Any:
    """The source as Tune asks it."""
    from ray.tune.search import Searcher

    class Asker(Searcher):
        """Gives each trial once."""

        def suggest(self, trial_id: str) -> Any:
            trial = source.next()
            if trial is None:
                return Searcher.FINISHED
            TrialStore(output, trial.id).ask(trial)
            return {"trial": trial.to_json()}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The callback tells it."""

        def save(self, checkpoint_path: str) -> None:
            """OUTPUT holds all."""

        def restore(self, checkpoint_path: str) -> None:
            """Likewise."""

    return Asker()


def _callback(ending: _Ending) -> Any:
    from ray.tune import Callback

    class Ends(Callback):
        """Passes on what ended."""

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ending.complete(trial)

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            say(f"{Trial.from_json(trial.config['trial']).id}: its process was lost; it goes on after its last epoch")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ending.error(trial)

    return Ends()


class _Ending:
    """Sees to it that each trial that ends has its `result.json`, but for those that only the budget ended."""

    def __init__(self, context: TrialContext, source: Source, tell: Callable[[TrialResult], None]) -> None:
        self._context, self._source, self._tell = context, source, tell

    def complete(self, tuned: Any) -> None:
        """A trial that returned, or that the scheduler stopped."""
        self._end(
            tuned, Status.STOPPED, lambda epochs: f"by the scheduler, after epoch {epochs}: others were better by then"
        )

    def error(self, tuned: Any) -> None:
        """A trial whose process was lost for good."""
        self._end(tuned, Status.FAILED, lambda epochs: _why(tuned))

    def _end(self, tuned: Any, status: Status, why: Callable[[int], str]) -> None:
        """Tells the trial's own end; one that left none has this status, and a reason by the epochs that it ran."""
        trial = Trial.from_json(tuned.config["trial"])
        store = TrialStore(self._context.output, trial.id)
        result = store.result()
        if result is None:
            progress = store.progress()
            result = ended(trial, status, why(len(progress.history)), progress, self._context.resources)
            store.end(result)
        self._source.told(result)
        self._tell(result)


def _why(tuned: Any) -> str:
    """What Ray knows of a process that died, once more than it is started anew."""
    error = tuned.get_pickled_error()
    # Ray lists what may have happened: of every lost process, that memory may have run out.
    text, _, _ = str(error or "").partition("Some common causes")
    line = " ".join(text.split())[-300:] or "its process died"
    full = "OutOfMemory" in type(error).__name__ or "running low on memory" in text
    return f"out of memory: {line}" if full else f"its process was lost: {line}"
