"""Trials that ended in, all that `fakesift tune` leaves out: table, page, `best.yaml`, events, and the chosen bundle.

The test split is read here, once, by the chosen model alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from batch.model.network import device_name
from batch.model.parquet import zstd_parquet
from batch.model.records import FaceIndex, Scores, Split
from batch.model.slices import Slices
from batch.model.split import SPLITS, SplitTable
from batch.model.tuning.grid import Grid
from batch.model.tuning.recipe import Value
from batch.model.tuning.records import Progress, Status, Trial, TrialResult
from batch.model.tuning.statistics import ConfigurationResult, by_configuration, chosen, effects
from batch.model.tuning.store import TrialStore, unpacked
from batch.model.tuning.table import as_csv, trials_table
from batch.shards.runfile import RunFile
from batch.shards.summary import SUMMARY
from batch.storage.base import Storage
from jobs.conclude import conclude
from jobs.console import say
from jobs.fanout import plain_errors
from jobs.fitting import JUDGED, Trained, use_threads
from jobs.predict import keras_environment
from jobs.splitting import Prepared
from jobs.train_options import TrainOptions
from jobs.tune_hparams import write_hparams
from jobs.tune_options import ABLATION, Resources, TuneOptions
from jobs.tune_plan import resolved
from jobs.tune_trial import ended

TABLE, TABLE_CSV, BEST, REPORT = "trials.parquet", "trials.csv", "best.yaml", "report.html"
_TOLD = 10
"""Lost trials that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was searched, and what came of it."""

    options: TuneOptions
    grid: Grid
    trials: tuple[Trial, ...]
    """All that were planned or suggested, in order."""
    results: tuple[TrialResult, ...]
    """One for each of them, in the same order."""
    features_seconds: float
    """Spent on shared features, over all calls."""

    @property
    def names(self) -> tuple[str, ...]:
        """Options that vary between trials, in order."""
        recipe = self.options.recipe()
        every = resolved(self.trials, recipe, self.grid.names)
        return tuple(name for name in self.grid.names if len({values[name] for values in every.values()}) > 1)

    @property
    def values(self) -> Mapping[str, Mapping[str, Value]]:
        """Of those options, by configuration."""
        return resolved(self.trials, self.options.recipe(), self.names)

    @property
    def configurations(self) -> list[ConfigurationResult]:
        """Best first."""
        return by_configuration(self.results, self.values, self.options.metric)


def results_of(
    output: Storage, trials: Sequence[Trial], resources: Resources, budget_minutes: float | None
) -> tuple[TrialResult, ...]:
    """One for each trial: its end, or that the budget left it where it was.

    Raises:
        RuntimeError: where trials are left over without a budget.
    """
    found, lost, left = [], [], 0
    for trial in trials:
        store = TrialStore(output, trial.id)
        result = store.result()
        if result is None:
            progress: Progress = store.progress()
            result = ended(trial, *_left(progress, budget_minutes), progress, resources)
            lost += [f"{trial.id}: {progress.given_up}"] if progress.given_up else []
            left += 1
        found.append(result)
    if left and budget_minutes is None:
        lines = "".join(f"\n  {line}" for line in lost[:_TOLD])
        rest = f"\n  and {len(lost) - _TOLD} more" if len(lost) > _TOLD else ""
        raise RuntimeError(f"{left} trials were left over: run the same command again to go on{lines}{rest}")
    return tuple(found)


def _left(progress: Progress, budget_minutes: float | None) -> tuple[Status, str]:
    """What a trial without an end came to, and why."""
    if progress.given_up:
        return Status.FAILED, progress.given_up
    told = f"the budget of {budget_minutes or 0:g} minutes was used up"
    if progress.history:
        return Status.STOPPED, f"{told}: {len(progress.history)} epochs were done"
    return Status.SKIPPED, f"{told}: never ran"


def conclude_tuning(
    ray: Any,
    output: Storage,
    index: FaceIndex,
    prepared: Prepared,
    search: Search,
    run: RunFile,
    slices: Slices,
) -> None:
    """Writes all of it, `summary.json` last.

    Raises:
        RuntimeError: where no configuration finished; table and page are written all the same.
    """
    options, configurations = search.options, search.configurations
    table = trials_table(search.results, search.names, search.values)
    output.put(TABLE, zstd_parquet(table))
    output.put(TABLE_CSV, as_csv(table))
    write_hparams(output, search.results, search.names, search.values)
    best = chosen(configurations, options.metric)
    judged: dict[str, Any] = {}
    if best is not None:
        output.put(BEST, best_yaml(options, best))
        judged = _judge(ray, output, index, prepared, options, best, run, slices)
    _write_page(output, search, configurations, best, judged, run, prepared.split)
    if best is None:
        raise RuntimeError(f"no configuration finished: see {output.uri(TABLE_CSV)} and {output.uri(REPORT)}")
    counts = {str(status): sum(result.status == status for result in search.results) for status in Status}
    summary = {
        "trials": counts,
        "configurations": len(configurations),
        "metric": options.metric,
        "split_digest": prepared.split.digest,
        "best": {
            "configuration": best.id,
            "name": best.name,
            "options": dict(best.values),
            "validation": {name: [mean.value, mean.low, mean.high] for name, mean in best.metrics.items()},
        },
        "core_seconds": round(sum(result.seconds * result.cpus for result in search.results), 1),
        "gpu_seconds": round(sum(result.seconds * result.gpus for result in search.results), 1),
        **judged,
    }
    output.put(SUMMARY, json.dumps(summary, indent=1).encode())
    for result in search.results:
        TrialStore(output, result.trial.id).drop_weights()


def best_options(options: TuneOptions, best: ConfigurationResult) -> TrainOptions:
    """Those of `fakesift train` that train the chosen configuration again: the same split, and its first seed."""
    own = {name: getattr(options, name) for name in TrainOptions.__dataclass_fields__}
    # Trials may share a GPU; a run of its own has one a worker.
    gpus = max(1.0, options.resources.gpus / options.workers) if options.resources.gpus else 0.0
    return TrainOptions(**{**own, "gpus_per_worker": gpus, **best.trials[0].trial.configuration})


def best_yaml(options: TuneOptions, best: ConfigurationResult) -> bytes:
    """What `fakesift train --config` takes: every option that differs from its default, and all that the grid set."""
    made, plain = best_options(options, best), TrainOptions()
    grid = best.trials[0].trial.configuration
    kept: dict[str, Any] = {}
    for name in TrainOptions.__dataclass_fields__:
        value = getattr(made, name)
        if name not in _ELSEWHERE and (name in grid or value != getattr(plain, name)):
            kept[name] = list(value) if isinstance(value, tuple) else value
    kept["seed"] = options.seed
    mean = best.metrics[options.metric]
    within = "" if mean.low is None or mean.high is None else f" ({mean.low:.4f} to {mean.high:.4f})"
    head = f"# fakesift train --config best.yaml FACES OUTPUT\n# validation {options.metric} {mean.value:.4f}{within}\n"
    text: str = head + yaml.safe_dump(kept, sort_keys=False)
    return text.encode()


_ELSEWHERE = ("places", "address", "s3_endpoint", "cache", "cache_mb", "no_pictures", "slices", "config")
"""Of the place where it runs and of what its page tells, not of the model."""


def _judge(
    ray: Any,
    output: Storage,
    index: FaceIndex,
    prepared: Prepared,
    options: TuneOptions,
    best: ConfigurationResult,
    run: RunFile,
    slices: Slices,
) -> dict[str, Any]:
    """The chosen model on validation and, once, on the test split: its bundle, and what its summary says."""
    result = best.trials[0]
    made = best_options(options, best)
    say(f"testing the chosen model ({result.trial.id}) on the test split, once")
    environment = keras_environment(options.backend, options.resources.gpus, options.resources.cores)
    task = ray.remote(
        num_cpus=options.resources.cpus,
        num_gpus=options.resources.gpus,
        max_retries=3,
        runtime_env={"env_vars": environment},
    )(_scored)
    with plain_errors(ray):
        model, scores, device = ray.get(task.remote(output, index, made, result))
    trained = Trained(
        model=model, history=result.history, best=result.best or 0, scores=scores, device=result.device or device
    )
    bundle_run = RunFile(
        kind="train",
        input=run.input,
        shaping={**made.shaping(), "data_digest": index.digest, "tuned": result.trial.configuration_id},
        versions=run.versions,
    )
    return conclude(
        output, index, prepared, trained, bundle_run, made.data_options(), slices,
        prevalence=options.prevalence, pictures=not options.no_pictures,
    )  # fmt: skip


def _scored(
    output: Storage, index: FaceIndex, options: TrainOptions, result: TrialResult
) -> tuple[bytes, dict[str, Scores], str]:
    """In a task: the network as a file, and its scores of validation and test."""
    use_threads(options.backend)
    from batch.model.bundle import keras_bytes, load_keras
    from batch.model.fit.frozen import graft
    from batch.model.fit.loop import model_of
    from batch.model.predictor import Predictor
    from batch.model.scan import score_faces

    network, side = options.network_options(), index.face_options.crop.crop_size
    kept = TrialStore(output, result.trial.id).weights()
    if result.shared == "features":
        model = graft(network, side, unpacked(kept))
    elif options.workers > 1:
        model = load_keras(kept, "the chosen network")
    else:
        model = model_of(network, side, unpacked(kept))
    split = SplitTable.from_parquet(output.read(SPLITS))
    predictor = Predictor(model)
    scores = {str(name): score_faces(index, split.rows(name), predictor) for name in JUDGED}
    return keras_bytes(model), scores, device_name()


def _write_page(
    output: Storage,
    search: Search,
    configurations: Sequence[ConfigurationResult],
    best: ConfigurationResult | None,
    judged: Mapping[str, Any],
    run: RunFile,
    split: SplitTable,
) -> None:
    from batch.reports.tune import TuneReport, write_tune_report

    options = search.options
    report = TuneReport(
        title=f"Tuning on {run.input}",
        metric=options.metric,
        seeds=options.seeds,
        is_ablation=options.grid == ABLATION,
        configurations=configurations,
        best=best,
        names=search.names,
        effects=effects(configurations, search.names, options.metric, search.grid.followers),
        test=judged.get("metrics", {}).get(str(Split.TEST), {}),
        splits=split.counts(),
        features_seconds=search.features_seconds,
        options={**run.shaping, "split_digest": split.digest, "versions": dict(run.versions)},
    )
    write_tune_report(output, report, key=REPORT)
