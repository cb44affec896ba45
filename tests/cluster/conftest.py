"""One local cluster for all tests that need one, with a state folder of its own."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Cluster:
    """Runs `fakesift` as its user would."""

    def __init__(self, state: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment = {**kept, "XDG_STATE_HOME": str(state), "HOME": str(state), "PYTHONPATH": str(ROOT)}
        self.state = state

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]

    def fakesift(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=self.state,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def python(self, program: Path) -> subprocess.CompletedProcess[str]:
        """Runs a program that joins the cluster by the lines that `cluster env` prints."""
        env, run = shlex.join(self.command("cluster", "env")), shlex.join([sys.executable, str(program)])
        shell = f'eval "$({env})" && exec {run}'
        return subprocess.run(
            ["sh", "-c", shell], env=self.environment, cwd=self.state, capture_output=True, text=True, timeout=400
        )

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=self.state,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell that runs the tests in its background has them, and so their children, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


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
