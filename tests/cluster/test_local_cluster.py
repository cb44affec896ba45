"""A cluster on this machine: nothing of it is left after its end, however it ends."""

import errno
import os
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.nodes import free_ports
from cluster.processes import members
from cluster.state import LocalCluster, claim, forget, recorded
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


def test_a_damaged_record_names_itself_and_is_removed_by_down(tmp_path: Path) -> None:
    user = Cluster(tmp_path)
    folder = tmp_path / "fakesift"
    folder.mkdir()
    for damage in ("", '{"id": "half', "[]", '{"id": "of another version"}'):
        (folder / "cluster.json").write_text(damage)
        (folder / "token").write_text("token")
        for words in (("cluster", "up"), ("cluster", "status"), ("cluster", "env"), ("jobs", "list")):
            refused = user.here(*words)
            assert (refused.returncode, "`fakesift cluster down` removes it" in refused.stderr) == (2, True), words
        elsewhere = user.here("jobs", "list", "--address", "http://127.0.0.1:9")
        assert "no Ray cluster answers" in elsewhere.stderr
        down = user.here("cluster", "down")
        assert down.returncode == 1
        assert "the record was damaged, and is removed" in down.stderr
        assert list(folder.iterdir()) == []


def test_a_record_is_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one = LocalCluster(
        id="a",
        address="127.0.0.1:1",
        dashboard="http://127.0.0.1:2",
        client_port=3,
        folder="/f",
        nodes=1,
        cpus_per_node=1,
    )
    with monkeypatch.context() as full:
        full.setattr("os.fsync", _no_space)
        with pytest.raises(OSError, match="No space"):
            claim(one)
    assert recorded() is None
    assert list((tmp_path / "fakesift").iterdir()) == []
    claim(one)
    assert recorded() == one
    token = one.token_file.read_text()
    with pytest.raises(FileExistsError):
        claim(replace(one, id="b"))
    assert (recorded(), one.token_file.read_text()) == (one, token)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "fakesift").iterdir()}
    assert modes == {"cluster.json": 0o600, "token": 0o600}
    forget()
    assert recorded() is None


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
