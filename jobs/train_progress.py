"""How far training is: a bar or log lines on standard error, `history.csv` and TensorBoard's events under OUTPUT."""

from __future__ import annotations

import csv
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.model.records import EpochRecord
from batch.storage.base import MissingObjectError, Storage
from jobs.console import say
from jobs.metrics import JobMetrics
from jobs.progress import LOG_EVERY_S, clock

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from batch.model.fit.loop import StepReport

HISTORY = "history.csv"
_EVENTS = "tensorboard/"
_VALIDATED = ("loss", "accuracy", "auc")
_NUMBERS = ("epoch", "step", "loss", "learning_rate", "images_per_second", "seconds")
_STAGES = {"head": "head", "whole": "network"}
_OF_STAGE = {"head": " of this stage", "whole": ""}


class TrainProgress:
    """Takes the news of a run as they come."""

    def __init__(self, shown: RichProgress | None, epochs: Mapping[str, int], history: History) -> None:
        """`epochs` are the most that each stage may take."""
        self._shown, self._epochs, self._history = shown, epochs, history
        self._metrics = JobMetrics("train")
        self._task = None if shown is None else shown.add_task("starting", total=None, told="")
        self._said = time.monotonic()
        self._epoch, self._first_step, self._since = 0, 0, 0.0
        self._last_step, self._last, self._pace_s, self._between_s = 0, 0.0, 0.0, 0.0

    def tell(self, news: StepReport | EpochRecord | str) -> None:
        """Shows a step, an epoch's end, or a line. Raises `StorageError` where the history could not be written."""
        if isinstance(news, str):
            self._line(news)
            return
        self._metrics.step(loss=news.loss, images_per_second=news.images_per_second)
        if isinstance(news, EpochRecord):
            self._line(epoch_line(news))
            self._history.add(news)
            return
        left_s = self._left_s(news)
        told = f"loss {news.loss:.4f}  {news.images_per_second:.0f} img/s"
        told += f"  about {clock(left_s)} left{_OF_STAGE[news.stage]}" if left_s else ""
        name = f"epoch {news.epoch} ({_STAGES[news.stage]})"
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, description=name, total=news.steps, completed=news.step, told=told)
        elif time.monotonic() - self._said >= LOG_EVERY_S:
            self._said = time.monotonic()
            say(f"{name}: step {news.step}/{news.steps}, {' '.join(told.split())}")

    def settle(self, history: Sequence[EpochRecord]) -> None:
        """The history as training itself has it: news may be lost with a driver. Raises `StorageError`."""
        self._history.replace(history)

    def _left_s(self, news: StepReport) -> float | None:
        """To the end of the stage, at the pace of this epoch and with what came between it and the last one.

        Sooner if validation stops getting better. A head on a frozen backbone learns at another pace than the network,
        so it says nothing of the time after it.
        """
        now = time.monotonic()
        # After a lost worker the epoch goes on at an earlier step: its first one, or that of a checkpoint within it.
        begins_anew = news.epoch != self._epoch or news.step <= self._last_step
        if begins_anew:
            if news.epoch - 1 == self._epoch > 0:  # validation and its checkpoint
                self._between_s = max(0.0, now - self._last - self._pace_s)
            self._epoch, self._first_step, self._since = news.epoch, news.step, now
        self._last_step, self._last = news.step, now
        if begins_anew:
            return None
        self._pace_s = (now - self._since) / (news.step - self._first_step)
        before = sum(record.epoch < news.epoch and record.stage == news.stage for record in self._history.records)
        to_come = max(0, self._epochs.get(news.stage, 0) - before - 1)
        return self._pace_s * (news.steps - news.step + news.steps * to_come) + self._between_s * (to_come + 1)

    def _line(self, text: str) -> None:
        if self._shown is not None:
            self._shown.console.print(text, highlight=False)
        else:
            say(text)


@contextmanager
def train_progress(epochs: Mapping[str, int], output: Storage) -> Iterator[TrainProgress]:
    """Shows the progress of training: a bar on a terminal, a line every ten seconds otherwise; keeps its history."""
    history = History(output)
    if not sys.stderr.isatty():
        yield TrainProgress(None, epochs, history)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("steps  {task.fields[told]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield TrainProgress(shown, epochs, history)


def epoch_line(record: EpochRecord) -> str:
    """An epoch in one line."""
    parts = [f"epoch {record.epoch} ({_STAGES[record.stage]})", f"loss {record.loss:.4f}"]
    parts += [f"validation {name} {record.validation[name]:.4f}" for name in _VALIDATED if name in record.validation]
    parts += [f"{record.images_per_second:.0f} img/s", f"{record.seconds:.0f} s"]
    return "  ".join(parts)


def figures_line(name: str, found: Mapping[str, Any]) -> str:
    """What was measured on videos (`Evaluation.headline()["videos"]`) in one line, with 95% intervals."""
    metrics = "  ".join(_figure(metric, found[metric]) for metric in ("accuracy", "auc", "log_loss") if metric in found)
    return f"{name:<12} {found['real']} real and {found['fake']} fake videos: {metrics}"


def _figure(name: str, value: Sequence[float | None]) -> str:
    middle, low, high = value
    if middle is None:
        return f"{name} -"
    return f"{name} {middle:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


class History:
    """`history.csv`, one line an epoch, and one file of TensorBoard events; written anew at each epoch's end."""

    def __init__(self, output: Storage) -> None:
        """Goes on with what an earlier run left."""
        self._output = output
        self.records = read_history(output)

    def add(self, record: EpochRecord) -> None:
        """An epoch that ended, perhaps once more: after its checkpoint was lost."""
        self.replace([*(earlier for earlier in self.records if earlier.epoch < record.epoch), record])

    def replace(self, records: Sequence[EpochRecord]) -> None:
        """Writes these epochs in the place of all that stood there."""
        self.records = list(records)
        self._output.put(HISTORY, _as_csv(self.records))
        _write_events(self._output, self.records)


def read_history(output: Storage) -> list[EpochRecord]:
    """The epochs in `history.csv`; none where there is no such file."""
    try:
        text = output.read(HISTORY).decode()
    except MissingObjectError:
        return []
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        numbers = {name: int(row[name]) if name in {"epoch", "step"} else float(row[name]) for name in _NUMBERS}
        validation = {name: float(row[f"validation_{name}"]) for name in _VALIDATED if row[f"validation_{name}"]}
        found.append(EpochRecord(stage=row["stage"], **numbers, validation=validation))  # type: ignore[arg-type]
    return found


def _as_csv(history: Sequence[EpochRecord]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["stage", *_NUMBERS, *(f"validation_{name}" for name in _VALIDATED)])
    for record in history:
        found = [record.validation.get(name) for name in _VALIDATED]
        table.writerow([record.stage, *(getattr(record, name) for name in _NUMBERS), *found])
    return text.getvalue().encode()


def _write_events(output: Storage, history: Sequence[EpochRecord]) -> None:
    from tensorboardX import SummaryWriter

    for old in list(output.list(_EVENTS)):
        output.delete(old.key)
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for record in history:
                writer.add_scalar("train/loss", record.loss, record.step)
                writer.add_scalar("train/learning_rate", record.learning_rate, record.step)
                writer.add_scalar("train/images_per_second", record.images_per_second, record.step)
                for name, value in record.validation.items():
                    writer.add_scalar(f"validation/{name}", value, record.step)
        for path in Path(folder).iterdir():
            output.put(_EVENTS + path.name, path.read_bytes())
