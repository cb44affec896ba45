"""A real cluster of several Ray nodes on this machine, closed by a token: for trying things, and for tests.

fakesift cluster up --nodes 2
fakesift cluster status
eval "$(fakesift cluster env)"     # then: fakesift preprocess INPUT OUTPUT --address auto
fakesift cluster down
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.console import Exit, guarded, parse, say, shown
from cluster.nodes import alive_nodes, free_ports, start_nodes
from cluster.processes import members, stop
from cluster.state import MARKER, DamagedRecordError, LocalCluster, claim, forget, recorded

_DOWN_PATIENCE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """Start a cluster and return once all its nodes are there."""

    nodes: int = 2
    """Ray nodes, all on this machine."""
    cpus_per_node: Annotated[int | None, shown("N", "this machine's CPUs, shared out")] = None
    """CPUs that a node offers to tasks."""
    ready_s: float = 180.0
    """Give up, and leave nothing behind, if it is not there by then."""

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"nodes: got {self.nodes}, expected 1 or more")
        if self.cpus_per_node is not None and self.cpus_per_node < 1:
            raise ValueError(f"cpus per node: got {self.cpus_per_node}, expected 1 or more")

    def cpus(self) -> int:
        """CPUs of each node."""
        return self.cpus_per_node or max(1, (os.cpu_count() or 1) // self.nodes)


@dataclass(frozen=True, kw_only=True)
class DownOptions:
    """End every process of the cluster and remove its files."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Say whether it runs, and where. Exit code 1 if it does not."""


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """Print the shell's `export` lines by which programs of this user join the cluster."""


Command = (
    Annotated[UpOptions, tyro.conf.subcommand("up")]
    | Annotated[DownOptions, tyro.conf.subcommand("down")]
    | Annotated[StatusOptions, tyro.conf.subcommand("status")]
    | Annotated[EnvOptions, tyro.conf.subcommand("env")]
)


def up(options: UpOptions) -> Exit:
    """Starts a cluster; whatever goes wrong on the way, nothing of it stays.

    Raises:
        ValueError: if one is up already; `RuntimeError` or `TimeoutError` if it does not come up.
    """
    _clear_the_dead()
    gcs, dashboard, client = free_ports(3)
    cluster = LocalCluster(
        id=uuid.uuid4().hex,
        address=f"127.0.0.1:{gcs}",
        dashboard=f"http://127.0.0.1:{dashboard}",
        client_port=client,
        # Not under the state folder: a socket's path has 107 characters at most, and Ray's own part takes 70.
        folder=tempfile.mkdtemp(prefix="fakesift-"),
        nodes=options.nodes,
        cpus_per_node=options.cpus(),
    )
    try:
        claim(cluster)
    except FileExistsError:
        shutil.rmtree(cluster.folder)
        raise ValueError("another `cluster up` is at work; expected one at a time") from None
    try:
        start_nodes(cluster, options.ready_s)
    except BaseException:
        _take_down(cluster, patience_s=1.0)
        raise
    say(f"{cluster.nodes} nodes with {cluster.cpus_per_node} CPUs each, closed by a token")
    print(f"address    {cluster.address}")
    print(f"dashboard  {cluster.dashboard}   it asks for the token in {cluster.token_file}")
    say("submit with `fakesift submit JOB ARGS...`; end it with `fakesift cluster down`")
    return Exit.OK


def _clear_the_dead() -> None:
    """Forgets a cluster that ended without `down`, as by a reboot."""
    cluster = recorded()
    if cluster is None:
        return
    if alive_nodes(cluster) or members(cluster):
        raise ValueError(f"a cluster is up or coming up at {cluster.address}: `fakesift cluster down` ends it")
    _take_down(cluster, patience_s=0.0)


def _take_down(cluster: LocalCluster, patience_s: float) -> int:
    ended = stop(cluster, patience_s)
    shutil.rmtree(cluster.folder, ignore_errors=True)
    forget()
    return ended


def down(options: DownOptions) -> Exit:
    """Ends the cluster; fine if there is none. A damaged record is removed, and what it was of must be looked for."""
    del options
    try:
        cluster = recorded()
    except DamagedRecordError:
        forget()
        say(f"the record was damaged, and is removed; what may be left running has {MARKER} in its environment")
        return Exit.FAILED
    if cluster is None:
        say("no cluster is up")
        return Exit.OK
    say(f"{_take_down(cluster, _DOWN_PATIENCE_S)} processes ended, none is left")
    return Exit.OK


def status(options: StatusOptions) -> Exit:
    """Prints what runs."""
    del options
    cluster = recorded()
    if cluster is None:
        print("no cluster is up")
        return Exit.FAILED
    alive = alive_nodes(cluster)
    print(f"nodes      {alive} of {cluster.nodes} alive, {cluster.cpus_per_node} CPUs each")
    print(f"processes  {len(members(cluster))}")
    print(f"address    {cluster.address}")
    print(f"dashboard  {cluster.dashboard}")
    print(f"token      in {cluster.token_file}")
    print(f"logs       {cluster.folder}/session_latest/logs")
    return Exit.OK if alive == cluster.nodes else Exit.FAILED


def env(options: EnvOptions) -> Exit:
    """Prints the lines; the token itself is in none of them."""
    del options
    cluster = recorded()
    if cluster is None:
        raise RuntimeError("no cluster is up; start one with `fakesift cluster up`")
    for name, value in cluster.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return Exit.OK


def _run(argv: list[str] | None) -> int:
    options = parse(Command, "cluster", __doc__, argv)
    match options:
        case UpOptions():
            return up(options)
        case DownOptions():
            return down(options)
        case StatusOptions():
            return status(options)
        case _:
            return env(options)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    try:
        return guarded(lambda: _run(argv), "cluster")
    except KeyboardInterrupt:
        say("interrupted; nothing is left running by this command")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
