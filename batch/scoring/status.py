"""A scoring output in, how it stands out: the last run's summary, and what a run that is at work has done so far."""

from __future__ import annotations

from dataclasses import dataclass

from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.ledger import open_runs, read_ledger_files
from batch.scoring.runs import Claim, read_claim
from batch.scoring.summary import CommitSums, ScoreSummary, Tally, read_history
from batch.shards.runfile import read_run
from batch.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStatus:
    """How a scoring output stands."""

    last: ScoreSummary | None
    """Of the last run that came to its end."""
    runs: int
    """That came to their end, with something to do."""
    rows: int
    """Of the ledger: items and looks, over all nights."""
    open_claim: Claim | None
    """The run that has not come to its end, if there is one: at work, or killed."""
    is_alive: bool
    """Whether it is at work."""
    open_total: Tally
    """What it has committed, with all earlier ones that were killed."""


def score_status(sink: Storage) -> ScoreStatus:
    """Reads summaries and the commits of runs that have not ended.

    Raises:
        ValueError: if it is no output of scoring, or something in it is damaged.
    """
    read_run(sink, "score")
    files = read_ledger_files(sink)
    left = open_runs(sink, files)
    claim = read_claim(sink, left[-1]) if left else None
    history = read_history(sink, last=1)
    return ScoreStatus(
        last=history[0] if history else None,
        runs=len(files),
        rows=sum(part.rows for file in files for part in file.parts),
        open_claim=claim,
        is_alive=claim is not None and claim.is_alive(),
        open_total=CommitSums().add(read_commits(sink, commit_keys(sink, left))).total,
    )
