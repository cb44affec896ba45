"""A cluster on this machine: what runs after `up`, and that nothing does after its end, however it ends."""

import json
import os
import signal
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.nodes import free_ports
from cluster.processes import members
from cluster.state import LocalCluster
from tests.cluster.conftest import Cluster


def record(state: Path) -> LocalCluster:
    return LocalCluster(**json.loads((state / "fakesift" / "cluster.json").read_text()))


def status_of(url: str, token: str | None = None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_all_nodes_are_there_and_closed(cluster: Cluster) -> None:
    local = record(cluster.state)
    status = cluster.here("cluster", "status")
    assert status.returncode == 0
    assert "2 of 2 alive" in status.stdout
    token_file = cluster.state / "fakesift" / "token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    jobs = f"{local.dashboard}/api/jobs/"
    assert [status_of(jobs), status_of(jobs, "wrong"), status_of(jobs, token_file.read_text())] == [401, 403, 200]


@pytest.mark.slow
def test_a_second_one_is_refused(cluster: Cluster) -> None:
    again = cluster.here("cluster", "up")
    assert again.returncode == 2
    assert "is up or coming up" in again.stderr
    assert cluster.here("cluster", "status").returncode == 0


@pytest.mark.slow
def test_the_token_is_in_no_command_line_and_no_log(cluster: Cluster) -> None:
    token = (cluster.state / "fakesift" / "token").read_text()
    shown = [cluster.here("cluster", word) for word in ("status", "env")]
    assert all(token not in done.stdout + done.stderr for done in shown)
    local = record(cluster.state)
    assert all(token not in " ".join(process.cmdline()) for process in members(local))
    logs = [
        path for path in Path(local.folder).rglob("*") if path.is_file() and path.suffix in {".log", ".out", ".err"}
    ]
    assert logs
    assert all(token.encode() not in path.read_bytes() for path in logs)


@pytest.mark.slow
def test_an_up_that_is_killed_half_way_leaves_nothing_after_down(tmp_path: Path) -> None:
    half = Cluster(tmp_path)
    up = half.start("cluster", "up", "--nodes", 2)
    record_file = tmp_path / "fakesift" / "cluster.json"
    while not (record_file.exists() and record_file.stat().st_size and members(record(tmp_path))):
        assert up.poll() is None
    os.kill(up.pid, signal.SIGKILL)
    up.communicate()
    local = record(tmp_path)
    assert members(local)
    assert half.here("cluster", "up").returncode == 2
    assert half.here("cluster", "down").returncode == 0
    assert members(local) == []
    assert not Path(local.folder).exists()
    assert list((tmp_path / "fakesift").iterdir()) == []


@pytest.mark.slow
def test_an_up_that_fails_leaves_nothing(tmp_path: Path) -> None:
    late = Cluster(tmp_path)
    up = late.fakesift("cluster", "up", "--ready-s", 1, TMPDIR=str(tmp_path))
    assert up.returncode == 1
    assert "were there in time" in up.stderr
    assert list((tmp_path / "fakesift").iterdir()) == []
    assert not list(tmp_path.glob("fakesift-*"))


def test_without_one(tmp_path: Path) -> None:
    nobody = Cluster(tmp_path)
    assert nobody.here("cluster", "status").returncode == 1
    assert nobody.here("cluster", "down").returncode == 0
    listed = nobody.here("jobs", "list")
    assert listed.returncode == 2
    assert "no cluster is named" in listed.stderr


def test_ports_are_outside_the_workers_range() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not set(ports) & set(range(10002, 20000))
