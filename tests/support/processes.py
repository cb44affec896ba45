"""Processes that a test starts and ends: jobs, and nodes of a cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def started(*arguments: object) -> "subprocess.Popen[str]":
    """A command that runs on; `communicate` it in the end."""
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told_until(job: "subprocess.Popen[str]", beginning: str) -> str:
    """What a command that still runs has told on stderr, up to the first line that begins so."""
    said = ""
    for line in job.stderr or ():
        said += line
        if line.startswith(beginning):
            break
    assert job.poll() is None, said
    return said


def family(pid: int) -> list[int]:
    """A process and all that descend from it, youngest first."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found = family(int(child)) + found
    return found


def kill_all(pids: list[int]) -> None:
    """At once and for good."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def raylet_of(node: Any) -> int:
    """The process that a node of `ray.cluster_utils.Cluster` depends on."""
    return int(node.all_processes["raylet"][0].process.pid)
