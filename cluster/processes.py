"""The processes that belong to a local cluster, found and ended without harm to any other Ray on the machine.

`ray stop` ends every Ray of the machine by name. Here a process belongs to the cluster if it carries the cluster's
mark in its environment, if it is a worker of Ray with a file in the cluster's folder open, or if it descends from one
that does. The mark alone is not enough: Ray's workers write their titles over it. A program that only joined the
cluster from outside is left alone.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.state import MARKER, LocalCluster

_ROUNDS = 10
_KILL_WAIT_S = 3.0
_POLL_S = 0.2


def members(cluster: LocalCluster) -> list[Any]:
    """The cluster's living processes, as `psutil.Process`."""
    psutil = _psutil()
    found = {}
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _belongs(psutil, process, cluster):
            found[process.pid] = process
            for child in _quietly(psutil, lambda process=process: process.children(recursive=True), []):
                found[child.pid] = child
    return [process for process in found.values() if _alive(psutil, process) and process.pid != os.getpid()]


def stop(cluster: LocalCluster, patience_s: float) -> int:
    """Ends all of them: asks the nodes first, kills what is left after `patience_s`. Gives how many there were.

    Raises:
        RuntimeError: naming processes that could not be killed.
    """
    psutil = _psutil()
    living = members(cluster)
    there = len(living)
    for process in living:
        if _is_node(psutil, process):
            _quietly(psutil, process.terminate, None)
    _wait(psutil, living, patience_s)
    # Again and again: a raylet that is killed late may have started one more worker.
    for _ in range(_ROUNDS):
        living = members(cluster)
        if not living:
            return there
        for process in living:
            _quietly(psutil, process.kill, None)
        _wait(psutil, living, _KILL_WAIT_S)
    raise RuntimeError(f"processes {[process.pid for process in members(cluster)]} of the cluster do not end")


def _wait(psutil: Any, processes: list[Any], patience_s: float) -> None:
    """Until they have ended; a zombie has, though its parent may be slow to ask for its code."""
    deadline = time.monotonic() + patience_s
    while any(_alive(psutil, process) for process in processes) and time.monotonic() < deadline:
        psutil.wait_procs(processes, timeout=_POLL_S)


def _belongs(psutil: Any, process: Any, cluster: LocalCluster) -> bool:
    if _quietly(psutil, process.environ, {}).get(MARKER) == cluster.id:
        return True
    folder = Path(cluster.folder)
    if not "".join(_quietly(psutil, process.cmdline, [])[:1]).startswith("ray::"):
        return False
    return any(Path(file.path).is_relative_to(folder) for file in _quietly(psutil, process.open_files, []))


def _is_node(psutil: Any, process: Any) -> bool:
    """Whether this is a `ray start --block`, which ends its own children in order."""
    return "start" in _quietly(psutil, process.cmdline, [])


def _alive(psutil: Any, process: Any) -> bool:
    """Not ended, and its number not given to another since."""
    running = _quietly(psutil, process.is_running, False)
    return bool(running and _quietly(psutil, process.status, psutil.STATUS_ZOMBIE) != psutil.STATUS_ZOMBIE)


def _quietly(psutil: Any, ask: Any, otherwise: Any) -> Any:
    """A process may end, or belong to somebody else, between any two questions."""
    try:
        return ask()
    except (psutil.Error, OSError):
        return otherwise


def _psutil() -> Any:
    """The one that Ray carries; it is importable once Ray is."""
    import_module("ray")
    return import_module("psutil")
