"""The command line in a process of its own, and what it left."""

import os
import subprocess
import sys
from pathlib import Path

from batch.shards.commit import read_commits
from batch.shards.read import outcome_tables
from batch.storage.base import Storage

ROOT = Path(__file__).parents[2]
SABOTAGE = str(Path(__file__).parent / "sabotage")
"""For PYTHONPATH: see its `sitecustomize.py`."""


def fakesift(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end."""
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=540
    )


def files(sink: Storage, prefix: str = "") -> dict[str, bytes]:
    """Every object's bytes."""
    return {item.key: sink.read(item.key) for item in sink.list(prefix)}


def outcomes(sink: Storage) -> dict[str, str]:
    """The outcome of each video; each is there once."""
    tables = outcome_tables(sink, read_commits(sink), ["video_key", "outcome"])
    rows = [row for table in tables for row in table.to_pylist()]
    found = {row["video_key"]: row["outcome"] for row in rows}
    assert len(found) == len(rows)
    return found
