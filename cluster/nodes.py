"""The nodes of a local cluster: `ray start` with a token, on free ports, each in a session of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.client import RefusedError, request_json
from cluster.state import MARKER, LocalCluster

# Above the ports that Ray gives workers, 10002 to 19999, and below those that Linux gives to connections (from 32768):
# of these, any connection that a starting node makes can take one before Ray listens on it.
_PORTS = range(20000, 32768)
# Units are tasks that return a few numbers; Ray's default of 30% of memory a node would add up to more than there is.
_OBJECT_STORE_BYTES = 512 * 2**20
_POLL_S = 0.5
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nothing listens on, drawn by chance so that clusters started at once differ."""
    held: list[socket.socket] = []
    try:
        for port in random.sample(_PORTS, len(_PORTS)):
            with suppress(OSError):
                held.append(socket.create_server(("", port)))
            if len(held) == count:
                return sorted(server.getsockname()[1] for server in held)
        raise OSError(f"ports {_PORTS.start} to {_PORTS.stop - 1}: found {len(held)} free, expected {count}")
    finally:
        for server in held:
            server.close()


@dataclass(slots=True)
class _Node:
    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]


def start_nodes(cluster: LocalCluster, ready_s: float) -> None:
    """Starts the head and the other nodes, and returns once all of them are there.

    Raises:
        RuntimeError: if a node ended, with the end of its log; `TimeoutError` if they are not there in `ready_s`.
    """
    deadline = time.monotonic() + ready_s
    gcs, dashboard = (url.rsplit(":", 1)[1] for url in (cluster.address, cluster.dashboard))
    head = _start(
        cluster,
        "head",
        "--head",
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={cluster.client_port}",
        f"--temp-dir={cluster.folder}",
    )
    _wait(cluster, [head], 1, deadline)
    names = [f"node{number}" for number in range(1, cluster.nodes)]
    others = [_start(cluster, name, f"--address={cluster.address}") for name in names]
    _wait(cluster, [head, *others], cluster.nodes, deadline)


def alive_nodes(cluster: LocalCluster) -> int:
    """How many nodes its head counts as alive; 0 where there is no head."""
    try:
        answer = request_json(cluster.dashboard, "/api/v0/nodes", cluster.token_file.read_text(encoding="utf-8"))
    except (RefusedError, ConnectionError, TimeoutError, FileNotFoundError):
        return 0
    rows = answer["data"]["result"]["result"]
    return sum(row["state"] == "ALIVE" for row in rows)


def _start(cluster: LocalCluster, name: str, *arguments: str) -> _Node:
    return _Node(name, arguments, _spawn(cluster, name, arguments))


def _spawn(cluster: LocalCluster, name: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    command = [
        *_START,
        *arguments,
        f"--num-cpus={cluster.cpus_per_node}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--disable-usage-stats",
    ]
    with _log(cluster, name).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(cluster),
            cwd=cluster.folder,
            start_new_session=True,
        )


def _environment(cluster: LocalCluster) -> dict[str, str]:
    """The present environment, less what names another Ray, with the token's file and this Python first on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    joined = {name: value for name, value in cluster.environment().items() if name != "RAY_ADDRESS"}
    return {
        **kept,
        **joined,
        MARKER: cluster.id,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _wait(cluster: LocalCluster, nodes: list[_Node], wanted: int, deadline: float) -> None:
    while alive_nodes(cluster) < wanted:
        for node in nodes:
            if node.process.poll() is not None:
                _start_again(cluster, node)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {cluster.nodes} nodes were there in time: {_end_of_log(cluster, 'head')}")
        time.sleep(_POLL_S)


def _start_again(cluster: LocalCluster, node: _Node) -> None:
    """What Ray gives a starting node is 30 s, whatever else the machine does; another start finds its files in memory.

    On a machine that is overloaded, the server for Ray's clients may also end by itself, and Ray then ends the head.
    """
    told = _end_of_log(cluster, node.name)
    if not any(words in told for words in ("timed out during startup", "ray_client_server")):
        raise RuntimeError(f"{node.name} ended with code {node.process.returncode}: {told}")
    with suppress(ProcessLookupError):
        os.killpg(node.process.pid, signal.SIGKILL)
    node.process = _spawn(cluster, node.name, node.arguments)


def _log(cluster: LocalCluster, name: str) -> Path:
    return Path(cluster.folder) / f"{name}.log"


def _end_of_log(cluster: LocalCluster, name: str) -> str:
    lines = _log(cluster, name).read_text(encoding="utf-8", errors="replace").splitlines()
    return " / ".join(line for line in lines[-3:] if line.strip()) or "it said nothing"
