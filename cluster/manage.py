"""The jobs of a cluster: which there are, what they say, and an end to one.

fakesift jobs list
fakesift jobs attach preprocess-20260101-120000-abc123
fakesift jobs stop preprocess-20260101-120000-abc123
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import tyro

from cluster.client import Access, open_client, patiently
from cluster.console import Exit, guarded, parse, say
from cluster.follow import follow

_Job = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
_POLL_S = 0.5
# Ray kills a job 30 s after it has interrupted it (cluster.submit); a node that is gone ends nothing.
_END_WITHIN_S = 180.0


@dataclass(frozen=True, kw_only=True)
class ListOptions(Access):
    """Show the jobs of the cluster, the newest last; or one alone."""

    job: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[ID]")] = None
    """Of this job, with its command and what Ray says of it."""


@dataclass(frozen=True, kw_only=True)
class LogsOptions(Access):
    """Print what a job has said so far."""

    job: _Job
    """As `submit` printed it."""


@dataclass(frozen=True, kw_only=True)
class AttachOptions(Access):
    """Print a job's log until it ends, and end with its exit code. Ctrl-C detaches."""

    job: _Job
    """As `submit` printed it."""


@dataclass(frozen=True, kw_only=True)
class StopOptions(Access):
    """Interrupt a job and wait for its end. What it committed stays."""

    job: _Job
    """As `submit` printed it."""


Command = (
    Annotated[ListOptions, tyro.conf.subcommand("list")]
    | Annotated[LogsOptions, tyro.conf.subcommand("logs")]
    | Annotated[AttachOptions, tyro.conf.subcommand("attach")]
    | Annotated[StopOptions, tyro.conf.subcommand("stop")]
)


def list_jobs(options: ListOptions) -> int:
    """Prints a table, or one job."""
    client = open_client(options)
    if options.job is not None:
        _print_one(_details(client, options.job))
        return Exit.OK
    rows = [details for details in patiently(client.list_jobs) if details.submission_id]
    for details in sorted(rows, key=lambda row: row.start_time or 0):
        print(f"{details.submission_id:<40} {details.status:<10} {_started(details)}  {_lasted(details)}")
    if not rows:
        say("no job was submitted to this cluster")
    return Exit.OK


def _print_one(details: Any) -> None:
    print(f"job        {details.submission_id}")
    print(f"status     {details.status.value}")
    print(f"started    {_started(details)}")
    print(f"lasted     {_lasted(details)}")
    print(f"exit code  {'-' if details.driver_exit_code is None else details.driver_exit_code}")
    print(f"command    {details.entrypoint}")
    print(f"says       {' '.join((details.message or '-').split())[:1000]}")


def _started(details: Any) -> str:
    if not details.start_time:
        return "-"
    return datetime.fromtimestamp(details.start_time / 1000, UTC).isoformat(timespec="seconds")


def _lasted(details: Any) -> str:
    if not details.start_time:
        return "-"
    end_ms = details.end_time or time.time() * 1000
    minutes, seconds = divmod(round((end_ms - details.start_time) / 1000), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def logs(options: LogsOptions) -> int:
    """Prints the log so far."""
    client = open_client(options)
    _details(client, options.job)
    sys.stdout.write(patiently(lambda: client.get_job_logs(options.job)))
    return Exit.OK


def attach(options: AttachOptions) -> int:
    """Follows the log."""
    client = open_client(options)
    _details(client, options.job)
    return follow(client, options.job, options)


def stop(options: StopOptions) -> int:
    """Interrupts the job and waits. Raises `TimeoutError` if it does not end."""
    client = open_client(options)
    details = _details(client, options.job)
    if details.status.is_terminal():
        say(f"{options.job} has ended before: {details.status.value}")
        return Exit.OK
    patiently(lambda: client.stop_job(options.job))
    deadline = time.monotonic() + _END_WITHIN_S
    while not (details := _details(client, options.job)).status.is_terminal():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{options.job} was told to stop and is still {details.status.value} after 3 minutes")
        time.sleep(_POLL_S)
    say(f"{options.job}: {details.status.value}")
    return Exit.OK


def _details(client: Any, job_id: str) -> Any:
    """Raises `ValueError` for a job that the cluster does not know."""
    try:
        return patiently(lambda: client.get_job_info(job_id))
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        raise ValueError(f"no job {job_id!r} on this cluster; `fakesift jobs list` shows them") from error


def _run(argv: list[str] | None) -> int:
    options = parse(Command, "jobs", __doc__, argv)
    match options:
        case ListOptions():
            return list_jobs(options)
        case LogsOptions():
            return logs(options)
        case AttachOptions():
            return attach(options)
        case _:
            return stop(options)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    try:
        return guarded(lambda: _run(argv), "jobs")
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
