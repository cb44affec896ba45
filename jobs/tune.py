"""Face shards and a grid in, a table of what every configuration reaches out, and the best one's bundle: on Ray Tune.

fakesift tune s3://lab/faces s3://lab/tuned --address auto --seeds 3 --resources-per-trial cpu=4,gpu=0.25
fakesift tune demo/faces demo/tuned --epochs 3 --batch-size 16        # a laptop: the reference's grid
fakesift tune demo/faces demo/searched --grid grid.yaml --search random --trials 20
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

from batch.model.records import FaceIndex, Split
from batch.model.tuning.grid import Grid
from batch.model.tuning.recipe import Recipe
from batch.model.tuning.records import Trial, TrialResult
from batch.model.tuning.store import TrialStore
from batch.shards.summary import PLAN, SUMMARY
from batch.storage.base import Storage
from jobs.console import EXIT_CODES, Exit, begun, guarded, parse, say
from jobs.networks import Tried, check_networks, check_networks_on_nodes
from jobs.open_faces import open_faces
from jobs.session import check_seen_by_all, ray_session
from jobs.splitting import Prepared, prepare
from jobs.train import print_counts, ray_place
from jobs.train_config import with_config
from jobs.tune_conclude import Search, conclude_tuning, results_of
from jobs.tune_options import TuneOptions
from jobs.tune_optuna import OptunaSource
from jobs.tune_plan import ListSource, Planned, Source, most_epochs, plan_configurations
from jobs.tune_run import check_room, earlier_trials, run_trials
from jobs.tune_share import share, share_landmarks
from jobs.tune_status import print_finished, trial_line
from jobs.tune_trial import TrialContext

_FEATURES = "features.json"


def tune(options: TuneOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before any work starts."""
    options.check()
    options.check_machine(options.resources.gpus / options.workers)
    grid = options.tried()
    configurations = plan_configurations(options, grid)
    faces = open_faces(options, "tune")
    output = faces.output
    if output.exists(SUMMARY):
        say(f"nothing to do: {output.root} holds a finished run")
        print_finished(output)
        return Exit.OK
    sinks, index, run = faces.sinks, faces.index, faces.run
    recipes = _recipes(options, grid, configurations, output)
    networks = [Tried(recipe.network, recipe.fit.unfreeze) for recipe in recipes]
    side_px = index.face_options.crop.crop_size
    if options.address is None:
        check_networks(networks, side_px, options.backend)
    faces.claim()
    source = _source(options, grid, configurations, output)
    cores = None if options.address else _cores(options)
    # By the state API Ray Train finds out that a trial's process is gone, and gives back the room of its workers.
    with ray_session(options.address, cores, asks_state=options.workers > 1) as ray:
        check_seen_by_all(ray, faces.places, output)
        if options.address is not None:
            check_networks_on_nodes(ray, networks, side_px, options.backend)
        check_room(ray, options)
        with begun():
            prepared = prepare(ray, options.split_options(), index, output)
            print_counts(prepared.split)
            search = _search(ray, options, grid, configurations, sinks, output, index, prepared, source, recipes)
            conclude_tuning(ray, output, index, prepared, search, run, faces.slices)
    print_finished(output)
    return Exit.OK


def _cores(options: TuneOptions) -> int:
    return max(os.cpu_count() or 1, math.ceil(options.resources.cpus))


def _source(options: TuneOptions, grid: Grid, configurations: Sequence[Planned], output: Storage) -> Source:
    if options.search == "optuna":
        output.put(PLAN, _plan(options, options.trials or 0))
        return OptunaSource(options, grid, configurations, earlier_trials(output))
    output.put(PLAN, _plan(options, len(configurations)))
    return ListSource(_left(options, configurations, output))


def _plan(options: TuneOptions, configurations: int) -> bytes:
    return json.dumps({"configurations": configurations, "trials": configurations * options.seeds}).encode()


def _left(options: TuneOptions, configurations: Sequence[Planned], output: Storage) -> list[Trial]:
    """Planned trials that did not end yet."""
    every = [trial for planned in configurations for trial in planned.trials(options)]
    return [trial for trial in every if TrialStore(output, trial.id).result() is None]


def _search(
    ray: Any,
    options: TuneOptions,
    grid: Grid,
    configurations: Sequence[Planned],
    sinks: Sequence[Storage],
    output: Storage,
    index: FaceIndex,
    prepared: Prepared,
    source: Source,
    recipes: Sequence[Recipe],
) -> Search:
    """Runs what is left, and gathers all."""
    train, validation = (prepared.split.rows(name) for name in (Split.TRAIN, Split.VALIDATION))
    landmarks = share_landmarks(ray, index, train, output, recipes)
    what = options.share if options.workers == 1 else "none"
    shared = share(ray, index, train, validation, recipes, options.resources, what, landmarks)
    seconds = _add_seconds(output, shared.seconds)
    path, file_system = ray_place(output, options.s3_endpoint)
    context = TrialContext(
        sinks=sinks,
        output=output,
        index=index,
        train=train,
        validation=validation,
        recipe=options.recipe(),
        resources=options.resources,
        workers=options.workers,
        max_failures=options.max_failures,
        storage_path=path,
        file_system=file_system,
        faces=shared.faces,
        features=shared.features,
        landmarks=landmarks,
    )
    _run(options, grid, output, context, source)
    trials = _all_trials(options, configurations, output)
    results = results_of(output, trials, options.resources, options.budget_minutes)
    return Search(options=options, grid=grid, trials=tuple(trials), results=results, features_seconds=seconds)


def _add_seconds(output: Storage, seconds: float) -> float:
    """Of shared features, over all calls of the job: a killed one's are lost with it, and made anew."""
    before = json.loads(output.read(_FEATURES))["seconds"] if output.exists(_FEATURES) else 0.0
    output.put(_FEATURES, json.dumps({"seconds": round(before + seconds, 1)}).encode())
    return float(before + seconds)


def _run(options: TuneOptions, grid: Grid, output: Storage, context: TrialContext, source: Source) -> None:
    """All that is left, with a line for each end."""
    total = json.loads(output.read(PLAN))["trials"]
    ended = sum(result is not None for _, result in earlier_trials(output))
    if ended:
        say(f"{ended} of {total} trials had ended before")

    def tell(result: TrialResult) -> None:
        nonlocal ended
        ended += 1
        say(f"{ended}/{total}  {trial_line(result, grid.names)}")

    run_trials(options, context, source, most_epochs(context.recipe, grid), tell)


def _all_trials(options: TuneOptions, configurations: Sequence[Planned], output: Storage) -> list[Trial]:
    """Planned ones in their order, then suggested ones."""
    found = {trial.id: trial for planned in configurations for trial in planned.trials(options)}
    return list({**found, **{trial.id: trial for trial, _ in earlier_trials(output)}}.values())


def _recipes(options: TuneOptions, grid: Grid, configurations: Sequence[Planned], output: Storage) -> Sequence[Recipe]:
    """Of what is left to do; with Optuna of what it can suggest, told from some draws."""
    recipe = options.recipe()
    if options.search == "optuna":
        draws = [*(planned.configuration for planned in configurations), *grid.drawn(64, options.seed)]
        seeds = range(options.seed, options.seed + options.seeds)
        return [recipe.changed(made, seed) for made in draws for seed in seeds]
    return [recipe.changed(trial.configuration, trial.seed) for trial in _left(options, configurations, output)]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    try:
        default = with_config(TuneOptions, argv)
        options = parse(TuneOptions, "tune", __doc__, argv, EXIT_CODES, default)
    except ValueError as error:
        say(f"fakesift tune: {error}")
        return Exit.USAGE
    try:
        return guarded(lambda: tune(options), "tune")
    except KeyboardInterrupt:
        say("interrupted; what ended is kept, and checkpoints of the rest; go on with the same command")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
