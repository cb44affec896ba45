"""Nodes, workers and drivers die at random moments on a real cluster of three nodes; `faces/` does not notice.

`FAKESIFT_KILLS` is the number of seeded runs: few in the test run, twenty and more in `make soak`.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.shards.commit import committed_keys, read_commits
from batch.shards.read import latest_outcomes
from batch.storage.base import Storage
from batch.storage.open import open_storage
from tests.support.processes import family, kill_all, raylet_of

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("FAKESIFT_KILLS", "3"))
VICTIMS = ("node", "worker", "driver")
PATIENCE_S = 240


def start(corpus: Path, output: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.cli", "preprocess", str(corpus), str(output), "--address", address]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(job: subprocess.Popen[str]) -> None:
    told, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 0, told


def workers_of(node: Any) -> list[int]:
    """Processes of a node that run our tasks, or wait for one; not its agents, whose death takes the node along."""
    pids = family(raylet_of(node))[:-1]
    return [pid for pid in pids if cmdline(pid).startswith(b"ray::") and b"Agent" not in cmdline(pid)[:40]]


def cmdline(pid: int) -> bytes:
    """Empty for a process that is gone, or is but a row in the kernel's table."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def expected(cluster: Any, drawn_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """What a run leaves that nothing disturbed."""
    output = tmp_path_factory.mktemp("calm") / "out"
    finish(start(drawn_corpus, output, cluster.address))
    return open_storage(str(output))


def shards(sink: Storage) -> dict[str, bytes]:
    return {item.key: sink.read(item.key) for item in sink.list("faces/")}


def outcomes(sink: Storage) -> list[tuple[str, str]]:
    tables = latest_outcomes(sink, read_commits(sink), ["video_key", "outcome"])
    return sorted((row["video_key"], row["outcome"]) for table in tables for row in table.to_pylist())


def wait_for_commits(sink: Storage, count: int, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(list(committed_keys(sink))) < count and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_dies_faces_are_the_same(
    cluster: Any, expected: Storage, drawn_corpus: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    sink = open_storage(str(tmp_path / "out"))
    job = start(drawn_corpus, tmp_path / "out", cluster.address)
    wait_for_commits(sink, chance.randrange(8), job)
    time.sleep(chance.random() * 2)
    victim = VICTIMS[seed % len(VICTIMS)]
    node = chance.choice(list(cluster.worker_nodes))
    if victim == "node":
        kill_all(family(raylet_of(node)))
        cluster.worker_nodes.remove(node)
        cluster.add_node(num_cpus=1)
    elif victim == "worker":
        workers = workers_of(node)
        kill_all(workers)
        print(f"seed {seed}: {len(workers)} workers")
    else:
        job.kill()
        job.wait()
        job = start(drawn_corpus, tmp_path / "out", cluster.address)
    finish(job)
    assert shards(sink) == shards(expected)
    assert outcomes(sink) == outcomes(expected)
    assert list(tmp_path.rglob(".fakesift-*")) == []
    for left in cluster.worker_nodes:  # nothing else died: the next run needs them
        assert cmdline(raylet_of(left)) != b""


@pytest.mark.slow
@pytest.mark.soak
def test_two_drivers_on_one_output_do_no_harm(
    cluster: Any, expected: Storage, drawn_corpus: Path, tmp_path: Path
) -> None:
    jobs = [start(drawn_corpus, tmp_path / "out", cluster.address) for _ in range(2)]
    for job in jobs:
        finish(job)
    sink = open_storage(str(tmp_path / "out"))
    assert shards(sink) == shards(expected)
    assert outcomes(sink) == outcomes(expected)
