"""Results of trials in, TensorBoard's events out: a run a trial, with its curves and what the HParams tab reads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from batch.model.tuning.recipe import Value
from batch.model.tuning.records import TrialResult
from batch.storage.base import Storage

EVENTS = "tensorboard/"


def write_hparams(
    output: Storage, results: Sequence[TrialResult], names: Sequence[str], values: Mapping[str, Mapping[str, Value]]
) -> None:
    """Writes `tensorboard/<trial>/` for every trial that had an epoch, in the place of what was there."""
    for old in list(output.list(EVENTS)):
        output.delete(old.key)
    for result in results:
        if not result.history:
            continue
        with tempfile.TemporaryDirectory(prefix="fakesift-events-") as folder:
            mine = values[result.trial.configuration_id]
            # One type an option: what says nothing in this trial is left out.
            _write(Path(folder), result, {name: _plain(mine[name]) for name in names if mine[name] is not None})
            for path in Path(folder).iterdir():
                output.put(f"{EVENTS}{result.trial.id}/{path.name}", path.read_bytes())


def _write(folder: Path, result: TrialResult, options: dict[str, str | float | bool]) -> None:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    metrics = {f"best/{name}": value for name, value in result.validation.items()}
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams({**options, "seed": result.trial.seed}, metrics):
            writer.file_writer.add_summary(summary)
        for record in result.history:
            writer.add_scalar("train/loss", record.loss, record.epoch)
            for name, value in record.validation.items():
                writer.add_scalar(f"validation/{name}", value, record.epoch)
        for name, value in metrics.items():
            writer.add_scalar(name, value, len(result.history))


def _plain(value: Value) -> str | float | bool:
    """HParams knows texts, numbers, and yes or no."""
    return value if isinstance(value, (str, float, bool, int)) else json.dumps(value)
