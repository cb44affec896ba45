"""What `fakesift status` prints of outputs of training and of scoring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from batch.scoring.status import score_status
from batch.scoring.summary import Tally
from batch.shards.runfile import read_run
from batch.shards.summary import SUMMARY
from batch.storage.base import Storage
from jobs.train_progress import epoch_line, figures_line, read_history
from jobs.tune_status import tune_status


def train_status(sink: Storage, *, as_json: bool) -> None:
    """Prints the epochs of a training run, and its figures once it has ended."""
    run = read_run(sink, "train")
    history = read_history(sink)
    summary: Mapping[str, Any] | None = json.loads(sink.read(SUMMARY)) if sink.exists(SUMMARY) else None
    if as_json:
        epochs = [asdict(record) for record in history]
        told = {"output": sink.root, "input": run.input, "finished": summary is not None, "epochs": epochs}
        print(json.dumps({**told, "summary": summary}, indent=1))
        return
    print(f"faces        {run.input}")
    for record in history:
        print(epoch_line(record))
    if summary is None:
        print("unfinished   go on with the same `fakesift train`")
        return
    for name, levels in summary["metrics"].items():
        print(figures_line(name, levels["videos"]))
    print(f"bundle       {summary['bundle_digest']}   best epoch {summary['best_epoch']} of {summary['epochs']}")


def scoring_status(sink: Storage, *, as_json: bool) -> None:
    """Prints the last night of a scoring output, and a run that is at work or was killed."""
    found = score_status(sink)
    if as_json:
        print(json.dumps({"output": sink.root, **asdict(found)}, indent=1, default=str))
        return
    print(f"nights       {found.runs} runs came to their end, {found.rows} rows in the ledger")
    if found.last is not None:
        print(f"last         {found.last.night}, bundle {found.last.bundle}: {_tally_line(found.last.total)}")
        if (check := found.last.last_check) is not None:
            trouble = "".join(f"; {name}: {error}" for name, error in check.denied.items())
            found_then = f"{check.pending} to look at, {check.vanished} vanished"
            print(f"last check   {check.at}: {found_then}; exit {check.exit_code}{trouble}")
    if found.open_claim is not None:
        state = "at work" if found.is_alive else "killed; the next run goes on with it"
        where = f"{found.open_claim.host}, process {found.open_claim.pid}"
        print(f"open         run {found.open_claim.run} on {where}: {state}; {_tally_line(found.open_total)}")


def _tally_line(tally: Tally) -> str:
    coverage = "-" if tally.coverage is None else f"{tally.coverage:.1%}"
    aside, faults = sum(tally.set_aside.values()), sum(tally.faults.values())
    return f"{tally.items} items, {tally.scored} scored ({coverage}), {aside} set aside, {faults} faults"


OTHERS: Mapping[str, Callable[..., None]] = {"train": train_status, "tune": tune_status, "score": scoring_status}
"""By kind of job; `preprocess` is told by `jobs.status` itself."""
