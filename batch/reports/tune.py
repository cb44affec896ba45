"""Trials and their statistics in, `report.html` of a tuning run out.

Says which configuration was chosen and by what, what every other one reached, and what each option does; beside the
six rows of the work that the built-in grid repeats, what that work printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch.model.records import EpochRecord
from batch.model.tuning.ablation import CNN, PRETRAINED, REFERENCE_ACCURACY, REFERENCE_ROWS
from batch.model.tuning.recipe import Value
from batch.model.tuning.records import METRICS, Status, TrialResult
from batch.model.tuning.statistics import ConfigurationResult, Effect, Mean, better
from batch.reports.page import render, settings
from batch.reports.tune_charts import curves_of, learning_curves
from batch.storage.base import Storage

_CURVES = 10
MOST_ROWS = 300
"""Of each table: the page stays under some 2 MB; `trials.csv` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """What the page tells."""

    title: str
    metric: str
    seeds: int
    is_ablation: bool
    configurations: Sequence[ConfigurationResult]
    """Best first."""
    best: ConfigurationResult | None
    names: Sequence[str]
    """Options that vary."""
    effects: Sequence[Effect]
    test: Mapping[str, Mapping[str, object]]
    """The chosen model's headline on the test split, by level; empty where nothing was chosen."""
    splits: Mapping[str, Mapping[str, int]]
    features_seconds: float
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure with its interval, as it is written."""

    value: str
    interval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRow:
    """A row of the main table."""

    place: int | None
    """None for what did not finish."""
    name: str
    """Of a named row, else what its options say."""
    options: str
    """What they say, where the name does not."""
    id: str
    metrics: Mapping[str, Cell]
    done: int
    seeds: int
    status: str
    seconds: float
    core_seconds: float
    gpu_seconds: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceView:
    """A row of the reference beside ours."""

    name: str
    printed: str
    loss: Cell
    accuracy: Cell
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRow:
    """What one change of an option did."""

    name: str
    change: str
    difference: str
    interval: str
    pairs: int
    sign: str
    """`right` for the better, `wrong` for the worse, empty where the interval holds 0 or there is none."""
    low: float | None
    """Places of the whisker, 0 to 100; 50 is no difference."""
    value: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """A trial that did not finish."""

    id: str
    name: str
    status: str
    epochs: int
    reason: str


def write_tune_report(sink: Storage, report: TuneReport, *, key: str) -> str:
    """Writes the page and gives its uri. Raises `StorageError` where it cannot be written."""
    trials = [result for entry in report.configurations for result in entry.trials]
    drawn = curves_of([(_label(entry), _history(entry)) for entry in _drawable(report)])
    failed = [_failed(result, report) for result in trials if result.status != Status.FINISHED]
    page = render(
        "tune.html",
        {
            "title": report.title,
            "root": sink.root,
            "report": report,
            "rows": [_row(place, entry, report) for place, entry in enumerate(report.configurations[:MOST_ROWS], 1)],
            "rest": max(0, len(report.configurations) - MOST_ROWS),
            "metrics": list(METRICS),
            "reference": _reference(report) if report.is_ablation else [],
            "curves": drawn,
            "charts": {name: learning_curves(f"curve-{name}", name, drawn) for name in ("loss", "accuracy")}
            if drawn
            else {},
            "effects": _effects(report),
            "failed": failed[:MOST_ROWS],
            "failed_rest": max(0, len(failed) - MOST_ROWS),
            "finished": sum(result.status == Status.FINISHED for result in trials),
            "trials": len(trials),
            "core_seconds": sum(result.seconds * result.cpus for result in trials),
            "gpu_seconds": sum(result.seconds * result.gpus for result in trials),
            "shared": sum(result.shared == "features" for result in trials),
            "best_row": None if report.best is None else _row(1, report.best, report),
            "test": _test(report),
            "settings": settings("Run", report.options),
        },
    )
    sink.put(key, page)
    return sink.uri(key)


def _row(place: int, entry: ConfigurationResult, report: TuneReport) -> ConfigurationRow:
    done = sum(result.status == Status.FINISHED for result in entry.trials)
    return ConfigurationRow(
        place=place if entry.complete else None,
        name=_label(entry),
        options=_described(entry) if entry.name else "",
        id=entry.id,
        metrics={name: _cell(mean) for name, mean in entry.metrics.items()},
        done=done,
        seeds=len(entry.trials),
        status=entry.status,
        seconds=sum(result.seconds for result in entry.trials) / len(entry.trials),
        core_seconds=sum(result.seconds * result.cpus for result in entry.trials),
        gpu_seconds=sum(result.seconds * result.gpus for result in entry.trials),
        chosen=report.best is not None and entry.id == report.best.id,
    )


def _reference(report: TuneReport) -> list[ReferenceView]:
    """Ours beside theirs; then what is known of theirs without its row."""
    nothing = Cell(value="–", interval="")
    rows = []
    for entry in REFERENCE_ROWS:
        ours = next((each for each in report.configurations if each.name == entry.name), None)
        cells = ours.metrics if ours else {}
        rows.append(
            ReferenceView(
                name=entry.name,
                printed="–",
                loss=_cell(cells["loss"]) if cells else nothing,
                accuracy=_cell(cells["accuracy"]) if cells else nothing,
                status=ours.status if ours else "not run",
            )
        )
    for model, name in ((CNN, "CNN, row not known"), (PRETRAINED, "Pre-trained network, row not known")):
        printed = f"{REFERENCE_ACCURACY[model]:.1%} accuracy"
        rows.append(ReferenceView(name=name, printed=printed, loss=nothing, accuracy=nothing, status=""))
    return rows


def _effects(report: TuneReport) -> list[EffectRow]:
    """Each with a whisker on one scale: the widest interval, or difference, reaches the end."""
    ends = [abs(end) for effect in report.effects for end in _ends(effect.difference)]
    widest = max(ends, default=0.0) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 50 * value / widest, 1)

    rows = []
    for effect in report.effects:
        mean = effect.difference
        sure = mean.low is not None and mean.high is not None and (mean.low > 0 or mean.high < 0)
        rows.append(
            EffectRow(
                name=_word(effect.name),
                change=f"{shown(effect.before)} → {shown(effect.after)}",
                difference="–" if mean.value is None else f"{mean.value:+.3f}",
                interval=_interval(mean, "+"),
                pairs=mean.count,
                sign=""
                if not sure or mean.value is None
                else "right"
                if better(report.metric, mean.value)
                else "wrong",
                low=place(mean.low),
                value=place(mean.value),
                high=place(mean.high),
            )
        )
    return rows


def _ends(mean: Mean) -> list[float]:
    return [value for value in (mean.low, mean.value, mean.high) if value is not None]


def _drawable(report: TuneReport) -> list[ConfigurationResult]:
    return [entry for entry in report.configurations if entry.complete][:_CURVES]


def _history(entry: ConfigurationResult) -> tuple[EpochRecord, ...]:
    """Of the first seed."""
    return entry.trials[0].history


def _label(entry: ConfigurationResult) -> str:
    return entry.name or _described(entry)


def _described(entry: ConfigurationResult) -> str:
    """`xception, nadam, head learning rate 0.01, dropout 0`: names speak for themselves, numbers need theirs."""
    told = [
        shown(value) if isinstance(value, str) else f"{_word(name)} {shown(value)}"
        for name, value in entry.values.items()
        if value is not None
    ]
    return ", ".join(told) or "as given"


def _failed(result: TrialResult, report: TuneReport) -> FailedRow:
    entry = next(each for each in report.configurations if each.id == result.trial.configuration_id)
    return FailedRow(
        id=result.trial.id,
        name=_label(entry),
        status=str(result.status),
        epochs=len(result.history),
        reason=result.reason,
    )


def _test(report: TuneReport) -> list[tuple[str, str, str]]:
    """Metric, value, interval on videos of the test split."""
    found = report.test.get("videos", {})
    rows = []
    for name in ("accuracy", "auc", "log_loss"):
        figures = found.get(name)
        if isinstance(figures, (list, tuple)) and figures[0] is not None:
            value, low, high = figures
            rows.append((_word(name), f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"))
    return rows


def _cell(mean: Mean) -> Cell:
    return Cell(value="–" if mean.value is None else f"{mean.value:.3f}", interval=_interval(mean, ""))


def _interval(mean: Mean, sign: str) -> str:
    if mean.low is None or mean.high is None:
        return ""
    return f"{mean.low:{sign}.3f} to {mean.high:{sign}.3f}"


def _word(name: str) -> str:
    return {"auc": "AUC"}.get(name, name.replace("_", " "))


def shown(value: Value) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if value == ():
        return "none"
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    # A weights file is known by its name.
    return value.rpartition("/")[2] if isinstance(value, str) else str(value)
