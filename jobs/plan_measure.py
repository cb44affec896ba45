"""A function that measures something, run here or as one task on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from batch.storage.base import Storage
from jobs.fanout import plain_errors
from jobs.session import alive_nodes, check_room, check_seen_by_all, ray_session

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster to measure on, joined; or none: then this process measures."""

    ray: Any = None

    @property
    def cpus(self) -> int:
        """Of its largest node so far, or of this machine."""
        if self.ray is None:
            return os.cpu_count() or 1
        return max([1, *(int(node["Resources"].get("CPU", 0)) for node in alive_nodes(self.ray))])

    @property
    def gpus(self) -> int:
        """Of all nodes so far, or of this machine."""
        if self.ray is None:
            return len(list(Path("/dev").glob("nvidia[0-9]*")))
        return int(self.ray.cluster_resources().get("GPU", 0))

    def measured(
        self,
        function: Callable[..., T],
        *arguments: Any,
        cpus: int = 1,
        gpus: float = 0,
        environment: Mapping[str, str] | None = None,
    ) -> T:
        """What the function gives.

        Args:
            function: of this module tree; it and its arguments are sent.
            arguments: what it takes.
            cpus: that it may take.
            gpus: likewise.
            environment: variables that it needs before it imports its libraries.

        Raises:
            RuntimeError: where Ray gave up; else what the function raises.
        """
        variables = dict(environment or {})
        if self.ray is None:
            os.environ.update(variables)
            return function(*arguments)
        if gpus:
            check_room(self.ray, workers=1, cpus=cpus, gpus=gpus, can_grow=True)
        task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": variables})(function)
        with plain_errors(self.ray):
            found: T = self.ray.get(task.remote(*arguments))
        return found


def on_cluster(address: str | None, places: dict[str, Storage], measure: Callable[[Cluster], T]) -> T:
    """Calls `measure` with the cluster at `address`, or with none.

    Raises:
        ConnectionError: if there is no cluster there; `ValueError` if a node does not see a local place.
    """
    if address is None:
        return measure(Cluster())
    with ray_session(address, None) as ray:
        check_seen_by_all(ray, places, None)
        return measure(Cluster(ray=ray))
