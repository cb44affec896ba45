"""How far tuning is, for `fakesift status` and the job's own lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from batch.model.tuning.recipe import Configuration, Value
from batch.model.tuning.records import METRICS, Status, TrialResult
from batch.model.tuning.store import TrialStore, trials_of
from batch.shards.runfile import read_run
from batch.shards.summary import PLAN, SUMMARY
from batch.storage.base import MissingObjectError, Storage
from jobs.train_progress import epoch_line, figures_line

_SHOWN = 10


def tune_status(sink: Storage, *, as_json: bool) -> None:
    """Prints how many trials ended, those under way, and the best so far; the choice once all is done."""
    run = read_run(sink, "tune")
    results, running = _trials(sink)
    planned = _planned(sink)
    summary: Mapping[str, Any] | None = json.loads(sink.read(SUMMARY)) if sink.exists(SUMMARY) else None
    counts = Counter(str(result.status) for result in results)
    if as_json:
        told = {"output": sink.root, "input": run.input, "planned": planned, "ended": dict(counts)}
        rows = [json.loads(result.to_json()) for result in results]
        print(json.dumps({**told, "finished": summary is not None, "trials": rows, "summary": summary}, indent=1))
        return
    print(f"faces        {run.input}")
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
    print(f"trials       {len(results)} of {planned or 'an unknown number'} ended: {listed}")
    for trial, line in running:
        print(f"  {trial}  {line}")
    metric = str(run.shaping.get("metric", "loss"))
    names = _varying(results)
    for result in _best(results, metric):
        print(f"  {trial_line(result, names)}")
    if summary is None:
        print("unfinished   go on with the same `fakesift tune`")
    else:
        print_finished(sink)


def print_finished(output: Storage) -> None:
    """Prints what a finished run found."""
    summary: Mapping[str, Any] = json.loads(output.read(SUMMARY))
    best, metric = summary["best"], summary["metric"]
    options = ", ".join(f"{name} {_told(value)}" for name, value in best["options"].items() if value is not None)
    mean, low, high = best["validation"][metric]
    within = "" if low is None else f" ({low:.4f} to {high:.4f})"
    print(f"{'trials':<12} {', '.join(f'{name} {count}' for name, count in summary['trials'].items() if count)}")
    print(f"{'chosen':<12} {best['name'] or best['configuration']}: {options}")
    print(f"{'validation':<12} {metric} {mean:.4f}{within}, mean over seeds")
    print(figures_line("test", summary["metrics"]["test"]["videos"]))
    print(
        f"{'cost':<12} {summary['core_seconds']:.0f} core-seconds, {summary['gpu_seconds']:.0f} GPU-seconds of trials"
    )
    for name, key in (("bundle", "bundle/"), ("table", "trials.csv"), ("again", "best.yaml"), ("page", "report.html")):
        print(f"{name:<12} {output.uri(key)}")


def trial_line(result: TrialResult, names: Sequence[str]) -> str:
    """A trial's end in one line."""
    configuration: Configuration = result.trial.configuration
    told = " ".join(f"{name}={_told(configuration[name])}" for name in names if name in configuration)
    figures = "  ".join(f"{name} {value:.4f}" for name, value in result.validation.items())
    end = "" if result.status == Status.FINISHED else f"{result.status}: {result.reason}  "
    name = result.trial.name or told
    return f"{result.trial.id}  {name}  {end}{figures}  {result.seconds:.0f} s"


def _told(value: Value | Sequence[int]) -> str:
    if isinstance(value, (tuple, list)):
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _trials(sink: Storage) -> tuple[list[TrialResult], list[tuple[str, str]]]:
    """Ends, and the last epoch of what has none."""
    results, running = [], []
    for name in trials_of(sink):
        store = TrialStore(sink, name)
        result = store.result()
        if result is not None:
            results.append(result)
            continue
        progress = store.progress()
        line = epoch_line(progress.history[-1]) if progress.history else "before its first epoch's end"
        running.append((name, f"{line}; {progress.given_up}" if progress.given_up else line))
    return results, running


def _varying(results: Sequence[TrialResult]) -> list[str]:
    """Options that are not the same in all of these."""
    names = dict.fromkeys(name for result in results for name in result.trial.configuration)
    return [name for name in names if len({result.trial.configuration.get(name) for result in results}) > 1]


def _best(results: Sequence[TrialResult], metric: str) -> list[TrialResult]:
    sign = 1 if METRICS[metric] == "min" else -1
    done = [result for result in results if metric in result.validation]
    return sorted(done, key=lambda result: sign * result.validation[metric])[:_SHOWN]


def _planned(sink: Storage) -> int | None:
    try:
        return int(json.loads(sink.read(PLAN))["trials"])
    except MissingObjectError:
        return None
