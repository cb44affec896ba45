"""Joining a cluster: one that is not there, and one on which a node does not see a local folder."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from jobs.session import asks_no_token, check_room, ray_session
from tests.support.job import fakesift

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"clip")
    done = fakesift("preprocess", tmp_path / "in", tmp_path / "out", "--address", "127.0.0.1:9")
    assert done.returncode == 1
    assert "no Ray cluster at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def head() -> Iterator[Callable[[bool], str]]:
    """Starts a server that answers as a Ray head's does, open or closed; gives its address.

    Connections to 127.0.0.2 come from 127.0.0.1, so it counts as another machine's.
    """
    running: list[grpc.Server] = []

    def start(is_open: bool) -> str:
        def check_alive(_: bytes, context: grpc.ServicerContext) -> bytes:
            if not is_open and "authorization" not in dict(context.invocation_metadata()):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        server = grpc.server(ThreadPoolExecutor(1))
        method = {"CheckAlive": grpc.unary_unary_rpc_method_handler(check_alive)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", method),))
        port = server.add_insecure_port("127.0.0.2:0")
        server.start()
        running.append(server)
        return f"127.0.0.2:{port}"

    yield start
    for server in running:
        server.stop(None).wait()


def test_an_open_cluster_on_another_machine_is_not_joined(
    head: Callable[[bool], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(*_: object, **__: object) -> None:
        raise ConnectionError("as far as Ray")

    monkeypatch.setattr("ray.init", join)
    is_open, is_closed = head(True), head(False)
    assert [asks_no_token(is_open), asks_no_token(is_closed)] == [True, False]
    with pytest.raises(ValueError, match="lets anybody run commands"), ray_session(is_open, None):
        pass
    with pytest.raises(ConnectionError, match="as far as Ray"), ray_session(is_closed, None):
        pass
    monkeypatch.setenv("FAKESIFT_ALLOW_OPEN_CLUSTER", "1")
    with pytest.raises(ConnectionError, match="as far as Ray"), ray_session(is_open, None):
        pass
    with pytest.raises(ValueError, match="expected auto, or host:port"), ray_session("ray://127.0.0.2:10001", None):
        pass


def test_workers_that_never_have_room_are_refused_and_others_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    everything, free = {"CPU": 8.0}, {"CPU": 2.0}
    ray = SimpleNamespace(cluster_resources=lambda: everything, available_resources=lambda: free)
    with pytest.raises(ValueError, match="ask for 2 CPU and 2 GPU at once, and there are 8 CPU and 0 GPU; expected"):
        check_room(ray, workers=2, cpus=1, gpus=1, can_grow=False)
    check_room(ray, workers=2, cpus=1, gpus=0, can_grow=False)
    assert capsys.readouterr().err == ""
    check_room(ray, workers=2, cpus=1, gpus=1, can_grow=True)
    assert "work begins once such nodes have joined" in capsys.readouterr().err
    check_room(ray, workers=2, cpus=2, gpus=0, can_grow=True)
    assert "other jobs leave 2 CPU and 0 GPU" in capsys.readouterr().err
    everything["GPU"] = free["GPU"] = 8.0
    ray.nodes = lambda: [{"Alive": True, "NodeID": "n", "Resources": {"CPU": 8.0, "GPU": 8.0}}]
    check_room(ray, workers=2, cpus=1, gpus=1, can_grow=True)
    assert capsys.readouterr().err == ""
    check_room(ray, workers=2, cpus=1, gpus=1, can_grow=True, apart=True)
    assert "2 workers ask for a node each, with 1 CPU and 1 GPU, and there are 1 such nodes" in capsys.readouterr().err


@pytest.fixture
def half_blind_cluster(tmp_path: Path) -> Iterator[str]:
    """Two nodes; the second has an empty file system mounted over `tmp_path`, in a mount namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount namespace needs root and unshare")
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("mount namespaces are not allowed here")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    command = " ".join([*RAY, "start", f"--address={cluster.address}", "--num-cpus=1", "--block"])
    hidden = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {tmp_path} && exec {command}"]
    node = subprocess.Popen(hidden, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        count = [sys.executable, "-c", f"import ray; ray.init({cluster.address!r}); print(len(ray.nodes()))"]
        deadline = time.monotonic() + 90
        while not subprocess.run(count, capture_output=True, text=True, check=False).stdout.strip().endswith("2"):
            assert time.monotonic() < deadline
        yield cluster.address
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(30)
        cluster.shutdown()


@pytest.mark.slow
def test_a_folder_that_a_node_does_not_see_is_refused(half_blind_cluster: str, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"clip")
    done = fakesift("preprocess", tmp_path / "in", tmp_path / "out", "--address", half_blind_cluster)
    assert done.returncode == 2, done.stderr
    assert "a local folder that node" in done.stderr
    assert not (tmp_path / "out" / "commits").exists()
