"""One local cluster for all tests that need one, with a state folder of its own."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from cluster.state import LocalCluster
from jobs.cli import main

ROOT = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]


class Cluster:
    """Runs `fakesift` as its user would."""

    def __init__(self, state: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment = {**kept, "XDG_STATE_HOME": str(state), "HOME": str(state), "PYTHONPATH": str(ROOT)}
        self.state = state

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]

    def fakesift(self, *arguments: object, **environment: str) -> Done:
        """In a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=self.state,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def here(self, *arguments: object) -> Done:
        """In this process, which has loaded Ray already: that takes a new one two seconds."""
        words = [*map(str, arguments)]
        out, error = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.environment, clear=True), redirect_stdout(out), redirect_stderr(error):
            code = main(words)
        return subprocess.CompletedProcess(words, int(code), out.getvalue(), error.getvalue())

    def join(self, program: Path) -> subprocess.Popen[str]:
        """Starts a program that joins the cluster by the lines that `cluster env` prints."""
        env, run = shlex.join(self.command("cluster", "env")), shlex.join([sys.executable, str(program)])
        return self._popen(["sh", "-c", f'eval "$({env})" && exec {run}'], stdin=subprocess.PIPE)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return self._popen(
            self.command(*arguments),
            start_new_session=True,
            # A shell that runs the tests in its background has them, and so their children, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def _popen(self, command: list[str], **more: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, cwd=self.state, **pipes, **more)


def record(state: Path) -> LocalCluster:
    """What `cluster up` wrote of a cluster."""
    return LocalCluster(**json.loads((state / "fakesift" / "cluster.json").read_text()))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with one CPU each, up. Mark tests that use it `slow`."""
    cluster = Cluster(tmp_path_factory.mktemp("state"))
    try:
        up = cluster.fakesift("cluster", "up", "--nodes", 2, "--cpus-per-node", 1, "--ready-s", 380)
        assert up.returncode == 0, up.stderr
        yield cluster
    finally:
        down = cluster.fakesift("cluster", "down")
        assert down.returncode == 0, down.stderr
