"""Results of trials in, `trials.parquet` and `trials.csv` out: one row a trial."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from batch.model.tuning.recipe import Value
from batch.model.tuning.records import METRICS, TrialResult

_FIRST = [
    ("trial", pa.string()), ("configuration", pa.string()), ("name", pa.string()), ("seed", pa.int64()),
    ("status", pa.string()), ("reason", pa.string()),
]  # fmt: skip
_LAST = [
    ("best_epoch", pa.int32()), ("epochs", pa.int32()), ("train_loss", pa.float64()),
    *((f"validation_{name}", pa.float64()) for name in METRICS),
    ("seconds", pa.float64()), ("core_seconds", pa.float64()), ("gpu_seconds", pa.float64()),
    ("attempts", pa.int32()), ("device", pa.string()), ("shared", pa.string()), ("set_options", pa.string()),
]  # fmt: skip


def trials_table(
    results: Sequence[TrialResult], names: Sequence[str], values: Mapping[str, Mapping[str, Value]]
) -> pa.Table:
    """One row a trial, in the order given.

    Args:
        results: of all trials.
        names: options that vary: a column `option_<name>` each, as JSON.
        values: of those, by configuration.
    """
    schema = pa.schema([*_FIRST, *((f"option_{name}", pa.string()) for name in names), *_LAST])
    return pa.Table.from_pylist([_row(result, names, values) for result in results], schema=schema)


def as_csv(table: pa.Table) -> bytes:
    """The table with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.schema.names)
    writer.writerows(row.values() for row in table.to_pylist())
    return text.getvalue().encode("utf-8", "backslashreplace")


def _row(
    result: TrialResult, names: Sequence[str], values: Mapping[str, Mapping[str, Value]]
) -> dict[str, str | int | float | None]:
    trial = result.trial
    best = None if result.best is None else result.history[result.best]
    options = {f"option_{name}": json.dumps(values[trial.configuration_id][name]) for name in names}
    metrics = {f"validation_{name}": result.validation.get(name) for name in METRICS}
    return {
        "trial": trial.id, "configuration": trial.configuration_id, "name": trial.name, "seed": trial.seed,
        "status": str(result.status), "reason": result.reason, **options,
        "best_epoch": None if best is None else best.epoch, "epochs": len(result.history),
        "train_loss": None if best is None else best.loss, **metrics, "seconds": round(result.seconds, 2),
        "core_seconds": round(result.seconds * result.cpus, 2), "gpu_seconds": round(result.seconds * result.gpus, 2),
        "attempts": result.attempts, "device": result.device, "shared": result.shared,
        "set_options": json.dumps(dict(trial.configuration)),
    }  # fmt: skip
