"""An output of any job in, what is done and what is left out. Reads commits and summaries alone and needs no Ray.

fakesift status s3://lab/faces
fakesift status demo/faces --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import tyro

from batch.records import Reason
from batch.shards.commit import Commit, read_commits
from batch.shards.read import latest_outcomes
from batch.shards.runfile import kind_of, read_run
from batch.shards.summary import PLAN, Summary, summarize
from batch.storage.base import MissingObjectError, Storage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, guarded, parse, shown
from jobs.status_others import OTHERS

_FAULTS_SHOWN = 20
_COLUMNS = ["video_key", "video_uri", "outcome", "detail", "kind"]


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Options of `fakesift status`."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Output of a job."""
    json: bool = False
    """Print one JSON object, with every fault."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""


def status(options: StatusOptions) -> Exit:
    """Prints how far an output is."""
    sink = open_storage(options.output, S3Options(endpoint=options.s3_endpoint))
    other = OTHERS.get(kind_of(sink) or "")
    if other is not None:
        other(sink, as_json=options.json)
        return Exit.OK
    run = read_run(sink, "preprocess")
    commits = list(read_commits(sink))
    summary = summarize(commits)
    listed = _planned(sink)
    faults = _faults(sink, commits)
    left = None if listed is None else listed - summary.listed
    rate = videos_per_second(commits)
    if options.json:
        told = {"output": sink.root, "input": run.input, "left": left, "videos_per_second": rate}
        print(json.dumps({**told, **asdict(summary), "fault_videos": faults}, indent=1))
    else:
        _print(run.input, summary, left, rate, faults)
    return Exit.OK


def _planned(sink: Storage) -> int | None:
    try:
        return int(json.loads(sink.read(PLAN))["listed"])
    except MissingObjectError:
        return None


def _faults(sink: Storage, commits: Sequence[Commit]) -> list[dict[str, str]]:
    faulted = {commit.unit for commit in commits if any(Reason(name).is_fault for name in commit.reasons)}
    rows: list[dict[str, Any]] = []
    for table in latest_outcomes(sink, [commit for commit in commits if commit.unit in faulted], _COLUMNS):
        rows += [row for row in table.to_pylist() if row.pop("kind") == "fault"]
    return rows


def videos_per_second(commits: Sequence[Commit]) -> float | None:
    """Videos over the time from the first unit's start to the last one's end."""
    if not commits:
        return None
    starts = [datetime.fromisoformat(commit.started_at).astimezone(UTC).timestamp() for commit in commits]
    ends = [start + commit.seconds.get("wall", 0.0) for start, commit in zip(starts, commits, strict=True)]
    return round(sum(commit.listed for commit in commits) / max(1.0, max(ends) - min(starts)), 2)


def _print(source: str, summary: Summary, left: int | None, rate: float | None, faults: list[dict[str, str]]) -> None:
    print(f"input      {source}")
    print(f"done       {summary.listed:>8}   {summary.units} units, {summary.faces} faces")
    print(f"left       {'unknown' if left is None else left:>8}   known once a run has listed the whole input")
    print(f"rate       {'-' if rate is None else rate:>8}   videos/s over all runs")
    print(f"kept       {summary.kept:>8}")
    for title, counts in (("set aside", summary.set_aside), ("faults", summary.faults)):
        print(f"{title:<10} {sum(counts.values()):>8}   {', '.join(f'{name} {n}' for name, n in counts.items())}")
    for row in faults[:_FAULTS_SHOWN]:
        print(f"  {row['outcome']:<16} {row['video_uri']}: {row['detail']}")
    if len(faults) > _FAULTS_SHOWN:
        print(f"  and {len(faults) - _FAULTS_SHOWN} more: --json lists all")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(StatusOptions, "status", __doc__, argv)
    return guarded(lambda: status(options), "status")


if __name__ == "__main__":
    raise SystemExit(main())
