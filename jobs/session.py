"""Ray, asked for explicitly: an embedded instance of our own, or a cluster that was named."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from batch.storage.base import AccessError, Storage, StorageError
from batch.storage.open import probe_put_if_absent
from jobs.console import Exit, say

# One native thread a task: two tasks on one core otherwise fight for it.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
_CONNECT_S = 10.0
_LOOK_EVERY_S = 1.0
_VITAL = frozenset({"gcs_server", "raylet"})
_SHOW_CURSOR = "\x1b[?25h"
_ALLOW_OPEN = "FAKESIFT_ALLOW_OPEN_CLUSTER"


@contextmanager
def ray_session(address: str | None, workers: int | None, *, asks_state: bool = False) -> Iterator[Any]:
    """Joins the cluster at `address`, or starts an embedded one and stops it. Gives the `ray` module.

    An embedded one answers Ray's state API only if it is to (`asks_state`): that takes Ray's dashboard.

    What workers log goes to their own logs on their nodes as JSON lines, with Ray's ids of job, node and task.

    Raises:
        ConnectionError: if there is no cluster at `address`.
        ValueError: if the one on another machine there is open to all.
        RuntimeError: if the embedded one does not start in time, as on a machine that is too busy.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.job_config import JobConfig

    _check_reachable(address)
    root = str(Path(__file__).resolve().parents[1])
    environment = {
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    # Not by `ray.init(logging_config=...)`, which would have this process log in that form, too.
    workers_log = JobConfig()
    workers_log.set_py_logging_config(ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"]))
    settings: dict[str, Any] = {
        "runtime_env": {"env_vars": environment},
        "job_config": workers_log,
        "logging_level": logging.ERROR,
    }
    if address is None:
        settings |= {"num_cpus": workers, "include_dashboard": asks_state}
    try:
        ray.init(address=address or "local", log_to_driver=False, **settings)
    except ConnectionError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from error
    except Exception as error:  # Ray raises the bare class where a node of its own is not up after 30 s
        if type(error) is not Exception:
            raise
        raise RuntimeError(f"Ray did not start: {' '.join(str(error).split())}; run again to go on") from error
    try:
        with _watched(ray) if address is None else nullcontext():
            if address is not None:
                _tell_if_busy(ray)
            yield ray
    except KeyboardInterrupt:
        # Said before Ray is shut down: its native threads may abort the process while they are interrupted.
        say("stopping; what was committed stays")
        raise
    finally:
        ray.shutdown()


@contextmanager
def _watched(ray: Any) -> Iterator[None]:
    """Ends this process, with one line and exit code 1, as soon as a vital process of the embedded Ray is dead.

    Ray's own driver would wait a minute for a dead GCS, in calls that no signal interrupts, and then end the process
    by itself; for a dead raylet it does so with pages of that one's log. What was committed is whole at any moment.
    """
    node = ray._private.worker._global_node
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            dead = sorted({name for name, _ in node.dead_processes()} & _VITAL)
            if dead:
                if sys.stderr.isatty():  # a bar may have hidden it
                    sys.stderr.write(_SHOW_CURSOR)
                say(f"fakesift: the embedded Ray died ({', '.join(dead)}); run the same command again to go on")
                sys.stdout.flush()
                node.kill_all_processes(check_alive=False, allow_graceful=False)
                os._exit(Exit.FAILED)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell_if_busy(ray: Any) -> None:
    """A line on what the first task will wait for, since Ray itself waits in silence."""
    cpus, free = (int(found.get("CPU", 0)) for found in (ray.cluster_resources(), ray.available_resources()))
    if not cpus:
        say("waiting for a CPU: no node of the cluster has one for tasks; work begins once such a node joins")
    elif not free:
        say(f"waiting for a CPU: other jobs have all {cpus} of the cluster; work begins when one is free")


def check_room(ray: Any, *, workers: int, cpus: float, gpus: float, can_grow: bool, apart: bool = False) -> None:
    """Looks whether workers that must run at once have room; says what they wait for where it may yet come.

    Args:
        ray: the module, in a session that has run nothing yet.
        workers: how many.
        cpus: of each.
        gpus: of each.
        can_grow: whether nodes may join, as on a cluster.
        apart: whether each must have a node of its own.

    Raises:
        ValueError: if they never will.
    """
    nodes = [node["Resources"] for node in alive_nodes(ray)] if apart else []
    fitting = sum(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)
    if apart and fitting < workers:
        each = _amounts({"CPU": cpus, "GPU": gpus})
        say(
            f"waiting for room: {workers} workers ask for a node each, with {each}, and there are {fitting} such "
            "nodes; work begins once more have joined"
        )
        return
    wanted = {"CPU": workers * cpus, "GPU": workers * gpus}
    all_, free = ray.cluster_resources(), ray.available_resources()
    if any(all_.get(name, 0) < amount for name, amount in wanted.items()):
        asked = f"workers ask for {_amounts(wanted)} at once, and there are {_amounts(all_)}"
        if not can_grow:
            raise ValueError(f"{asked}; expected fewer or smaller workers, or a cluster (--address)")
        say(f"waiting for room: {asked}; work begins once such nodes have joined")
    elif any(free.get(name, 0) < amount for name, amount in wanted.items()):
        asked = f"workers ask for {_amounts(wanted)} at once, and other jobs leave {_amounts(free)}"
        say(f"waiting for room: {asked}; work begins when they have ended")


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _check_reachable(address: str | None) -> None:
    """Ray itself tries a dead address for minutes, and joins a cluster that is open to all without a word.

    `auto` is not asked: it stands for the cluster that this machine, or this very job, belongs to.
    """
    if address is not None and "://" in address:
        raise ValueError(f"address: got {address!r}, expected auto, or host:port of a cluster that this machine is in")
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as connection:
            here = connection.getpeername()[0] == connection.getsockname()[0]
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from error
    if not here and not os.environ.get(_ALLOW_OPEN) and asks_no_token(str(address)):
        raise ValueError(
            f"{address} lets anybody run commands, on this machine too: it asks for no token. Start it with "
            f"RAY_AUTH_MODE=token, or set {_ALLOW_OPEN}=1 if you know that nobody else reaches it"
        )


def asks_no_token(address: str) -> bool:
    """Whether the Ray head at `host:port` answers one who shows no token."""
    import grpc

    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=_CONNECT_S)
        except grpc.RpcError:
            return False
    return True


def alive_nodes(ray: Any) -> list[dict[str, Any]]:
    """The cluster's living nodes."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_conditional_writes(sink: Storage) -> None:
    """Refuses an OUTPUT whose store lets the second of two writers win.

    Raises:
        ValueError: if it does so, or fails.
        AccessError: if it may not be written to.
    """
    try:
        probe_put_if_absent(sink)
    except AccessError:
        raise
    except StorageError as error:
        raise ValueError(f"output {error}; or say --single-writer and run one job at a time") from error


def check_seen_by_all(ray: Any, places: dict[str, Storage], sink: Storage | None) -> None:
    """Refuses a local folder that some node does not see.

    A probe file is put into OUTPUT, if there is one, and looked for on every node; an INPUT is looked for as a folder,
    since nothing may be written into it.

    Raises:
        ValueError: naming the folder and the nodes.
    """
    nodes = alive_nodes(ray)
    local = {name: place for name, place in places.items() if place.is_local}
    if len(nodes) < 2 or not local:
        return
    probe = f".fakesift-probe-{uuid.uuid4().hex}"
    if sink is not None and sink.is_local:
        sink.put(probe, b"probe")
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(_unseen)
        written = None if sink is None else sink.root
        paths = {name: str(Path(p.root) / probe) if p.root == written else p.root for name, p in local.items()}
        for node, missing in zip(nodes, ask_nodes(ray, look, nodes, paths), strict=True):
            for name in missing or ():
                raise ValueError(
                    f"{name} {places[name].root}: a local folder that node {node['NodeManagerAddress']} does not see; "
                    "expected a shared file system or s3://"
                )
    finally:
        if sink is not None and sink.is_local:
            sink.delete(probe)


def ask_nodes(ray: Any, task: Any, nodes: Sequence[Mapping[str, Any]], *given: Any) -> list[Any]:
    """What a task answers on each of these nodes, in their order; None where the node died since it was listed.

    Raises:
        ray.exceptions.RayTaskError: as the task itself raised it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*given)
        for node in nodes
    ]
    return [_answer(ray, reference) for reference in asked]


def _answer(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError:
        return None


def _unseen(paths: dict[str, str]) -> list[str]:
    return [name for name, path in paths.items() if not Path(path).exists()]
