"""Networks built where they will train, before any work starts: what is wrong with their weights shows then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from batch.model.fit.engine import use_backend
from batch.model.fit.options import Backend
from batch.model.network import NetworkOptions
from jobs.predict import keras_environment
from jobs.quiet import import_keras_on_cores
from jobs.session import alive_nodes, ask_nodes


@dataclass(frozen=True, slots=True)
class Tried:
    """A network that the job will train."""

    network: NetworkOptions
    unfreeze: Literal["whole"] | int


def different(networks: Iterable[Tried]) -> list[Tried]:
    """Those that differ in what can be wrong with them: dense layers and dropout always fit."""
    plain = [replace(each, network=replace(each.network, dense_units=(), dropout=0.0)) for each in networks]
    return list(dict.fromkeys(plain))


def check_networks(networks: Iterable[Tried], side_px: int, backend: Backend) -> None:
    """Builds each in this process, for crops of that side. A driver: its Keras then has that backend, and no GPU.

    Raises:
        ValueError: for weights that do not fit or could not be downloaded, a wrong number of blocks, or small crops.
    """
    use_backend(backend)
    import_keras_on_cores()
    from batch.model.network import check_network

    for each in different(networks):
        check_network(each.network, side_px, each.unfreeze)


def check_networks_on_nodes(ray: Any, networks: Iterable[Tried], side_px: int, backend: Backend) -> None:
    """The same on every node that can train, since a download or a file there is that node's own.

    Raises:
        ValueError: the same, naming the node.
    """
    nodes = [node for node in alive_nodes(ray) if node["Resources"].get("CPU", 0) >= 1]
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": keras_environment(backend, 0)})(_problem)
    for node, problem in zip(nodes, ask_nodes(ray, task, nodes, different(networks), side_px, backend), strict=True):
        if problem:
            raise ValueError(f"node {node['NodeManagerAddress']}: {problem}")


def _problem(networks: list[Tried], side_px: int, backend: Backend) -> str:
    try:
        check_networks(networks, side_px, backend)
    except ValueError as error:
        return str(error)
    return ""
