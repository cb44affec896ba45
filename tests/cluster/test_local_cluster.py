"""A cluster on this machine: nothing of it is left after its end, however it ends."""

import os
import signal
from pathlib import Path

import pytest

from cluster.nodes import free_ports
from cluster.processes import members
from tests.cluster.conftest import Cluster, record


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


def test_ports_are_neither_the_workers_nor_such_as_connections_get() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert set(ports) <= set(range(20000, 32768))
