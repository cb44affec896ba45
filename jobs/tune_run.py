"""Trials through Ray Tune: placed by their resources, stopped by the scheduler or the budget, started anew when lost.

Tune decides what runs where and when; what was asked and how it ended stands under OUTPUT/trials. So an interrupted run
needs nothing of Tune's own state, whose snapshots are some seconds old when a driver dies: a trial that ended after
the last one would run again.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from batch.model.tuning.records import METRICS, Status, Trial, TrialResult
from batch.model.tuning.store import TrialStore, trials_of
from batch.storage.base import Storage
from jobs.console import say
from jobs.session import alive_nodes
from jobs.tune_options import Resources, TuneOptions
from jobs.tune_plan import Source
from jobs.tune_trial import TrialContext, ended, run_trial

_FACTOR = 3
"""Of ASHA: one of three goes on (Li et al. 2020, arXiv 1810.05934)."""
_FEWEST_ASKED = 4
"""Trials of several workers that ask for room on a cluster that has none yet: each is a process of 300 MB."""


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

    ending = Ending(context, source, tell)
    scheduler = make_scheduler(options, context.output, most_epochs)
    with tempfile.TemporaryDirectory(prefix="fakesift-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, context=context), reserved(options)),
            tune_config=tune.TuneConfig(
                search_alg=make_searcher(source, context.output, _room(options)),
                scheduler=scheduler,
                num_samples=-1,
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


def reserved(options: TuneOptions) -> Any:
    """What Tune reserves: all of a trial, or next to nothing where Ray Train places its workers."""
    from ray.tune import PlacementGroupFactory

    if options.workers > 1:
        # A byte: a share of a core, however small, would keep the last worker from its whole one.
        return PlacementGroupFactory([{"memory": 1}])
    bundle = {"CPU": options.resources.cpus}
    if options.resources.gpus:
        bundle["GPU"] = options.resources.gpus
    return PlacementGroupFactory([bundle])


def _room(options: TuneOptions) -> Callable[[], int] | None:
    """Looks how many trials may run at once; None where Tune sees it by what it reserves for each."""
    if options.workers == 1:
        return None
    import ray

    asked: Any = ray.cluster_resources
    return lambda: most_at_once(options.resources, asked(), can_grow=options.address is not None)


def most_at_once(resources: Resources, there: Mapping[str, float], *, can_grow: bool) -> int:
    """How many trials, whose workers Ray Train places, may run where so much is there.

    A cluster that may grow gets more than it holds: for those that wait, an autoscaler adds nodes, and then there is
    room for twice as many again.
    """
    rooms = [there.get("CPU", 0.0) / resources.cpus]
    if resources.gpus:
        rooms.append(there.get("GPU", 0.0) / resources.gpus)
    fit = int(min(rooms))
    return max(_FEWEST_ASKED, 2 * fit) if can_grow else max(1, fit)


def make_scheduler(options: TuneOptions, output: Storage, most_epochs: int) -> Any:
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


def make_searcher(source: Source, output: Storage, room: Callable[[], int] | None) -> Any:
    """The source as Tune asks it, again and again while there is no room: a cluster may have grown since."""
    from ray.tune.search import Searcher

    class Asker(Searcher):
        """Gives each trial once."""

        def __init__(self) -> None:
            super().__init__()
            self._running: set[str] = set()

        def suggest(self, trial_id: str) -> Any:
            if room is not None and len(self._running) >= room():
                return None
            trial = source.next()
            if trial is None:
                return Searcher.FINISHED
            TrialStore(output, trial.id).ask(trial)
            self._running.add(trial_id)
            return {"trial": trial.to_json()}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The callback tells what came of it."""
            self._running.discard(trial_id)

        def save(self, checkpoint_path: str) -> None:
            """OUTPUT holds all."""

        def restore(self, checkpoint_path: str) -> None:
            """Likewise."""

    return Asker()


def _callback(ending: Ending) -> Any:
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


class Ending:
    """Sees to it that each trial that ends has its `result.json`, but for those that only the budget ended."""

    def __init__(self, context: TrialContext, source: Source, tell: Callable[[TrialResult], None]) -> None:
        """`tell` takes each end, the source what it should know."""
        self._context, self._source, self._tell = context, source, tell

    def complete(self, tuned: Any) -> None:
        """A trial that returned, or that the scheduler stopped."""
        self._end(
            tuned, Status.STOPPED, lambda epochs: f"by the scheduler, after epoch {epochs}: others were better by then"
        )

    def error(self, tuned: Any) -> None:
        """A trial whose process was lost once more than it is started anew."""
        full, why = why_lost(_failure(tuned))
        self._end(tuned, Status.FAILED, lambda epochs: why, may_pass=not full)

    def _end(self, tuned: Any, status: Status, why: Callable[[int], str], *, may_pass: bool = False) -> None:
        """Tells the trial's own end; one that left none has this status, and a reason by the epochs that it ran.

        What may pass, such as a store that is away, is no end until it happened in two calls of the job.
        """
        trial = Trial.from_json(tuned.config["trial"])
        store = TrialStore(self._context.output, trial.id)
        result = store.result()
        if result is None:
            progress = store.progress()
            reason = why(len(progress.history))
            result = ended(trial, status, reason, progress, self._context.resources)
            if may_pass and not progress.given_up:
                store.tell(replace(progress, given_up=reason))
            else:
                store.end(result)
        self._source.told(result)
        self._tell(result)


def _failure(tuned: Any) -> str:
    """The last one's text, out of the file in which Tune lists them.

    Tune's own call for it would look where the file lies only once the whole search has ended.
    """
    listed = Path(tuned.error_file or "")
    text = listed.read_text(encoding="utf-8", errors="replace") if listed.is_file() else ""
    return text.rpartition("Failure # ")[2].partition("\n")[2]


def why_lost(failure: str) -> tuple[bool, str]:
    """Whether memory ran out where a process died, and what Ray says of it."""
    # Ray lists what may have happened: of every lost process, that memory may have run out.
    text, _, _ = failure.partition("Some common causes")
    line = " ".join(text.split())[-300:] or "its process died"
    full = "OutOfMemoryError" in text or "running low on memory" in text
    return full, f"out of memory: {line}" if full else f"its process was lost: {line}"
