"""The network of a scoring run, resident in actors: one a GPU, or where there is none one a node, as nodes join.

A cluster may begin with no node at all and grow as work is asked of it, so what it has is looked at again and again.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batch.faces.isolate import LimitOptions
from batch.model.bundle import Bundle
from batch.model.golden import Precision, Runtime
from batch.scoring.look import MediaExtractor
from batch.scoring.records import Looked, ScoreUnit
from batch.scoring.tables import Recipe, unit_tables
from batch.scoring.write import UnitReport, write_unit
from batch.storage.base import Storage
from jobs.console import say
from jobs.runtime import NO_GPU, runtime_environment
from jobs.session import alive_nodes
from jobs.worklog import unit_log

if TYPE_CHECKING:
    from batch.model.predictor import BatchPredictor

HELD_AN_ACTOR = 3
"""Units that an actor is given at once: one is computed while the next one's crops arrive and the last one's are put
away."""
RETRIES = 5
LOOK_AGAIN_S = 5.0
"""How often the cluster's nodes are looked at."""
GPU_PATIENCE_S = 120.0
"""How long a run waits for the first of its GPUs, which other jobs may hold, before cores do what there is to do."""


_ON_A_GPU = {"num_gpus": 1, "num_cpus": 0, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}
"""Threads: see `_place`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How much runs at once."""

    extract_workers: int | None = None
    score_actors: int | None = None
    """At most so many on CPUs, and so many on GPUs."""
    score_gpus: int | None = None
    """GPUs that are asked for though the cluster has none yet."""
    batch_size: int = 32
    precision: Precision = "float32"
    runtime: Runtime = "keras"
    """Of actors on CPUs. Those on GPUs use Keras."""
    uses_gpus: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every task needs; stored once."""

    extractor: MediaExtractor
    limits: LimitOptions
    sink: Storage
    recipe: Recipe


class Scorer:
    """The model, resident in one process. Several threads may call it; the network itself takes turns."""

    def __init__(self, bundle: Bundle, shared: Shared, options: PoolOptions) -> None:
        """Loads nothing yet, so that what is wrong with the bundle is told by `load`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._bundle, self._sink, self._options = bundle, shared.sink, options
        self._recipe = replace(shared.recipe, runtime=options.runtime)
        self._predictor: BatchPredictor | None = None
        self._turn = threading.Lock()

    def load(self) -> None:
        """Loads the network and checks its golden inputs.

        Raises:
            RuntimeError: for a file that is damaged, scores that drift from the stored ones, or other crops.
        """
        with self._turn:
            if self._predictor is not None:
                return
            try:
                made = self._bundle.predictor(
                    batch_size=self._options.batch_size,
                    precision=self._options.precision,
                    runtime=self._options.runtime,
                    threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
                )
            except (ValueError, ImportError) as error:
                raise RuntimeError(f"stopped: {error}") from error
            crop = self._bundle.face_options.crop.crop_size
            if made.side != crop:
                raise RuntimeError(
                    f"stopped: {self._bundle.uri}: a network for crops of {made.side} px, and crops of {crop} px"
                )
            self._predictor = made

    def start(self) -> str:
        """The same, in an actor; gives the id of its node."""
        self.load()
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def score(self, looked: Looked, unit: ScoreUnit) -> UnitReport:
        """Scores and commits a unit."""
        self.load()
        assert self._predictor is not None, "loaded a line before"
        with self._turn:
            start = time.perf_counter()
            logits = self._predictor(looked.crops)
            seconds = {"predict": time.perf_counter() - start}
        tables = unit_tables(unit, looked, logits, self._recipe)
        with unit_log(unit.id, "unit scored", faces=len(looked.crops)) as log:
            report = write_unit(self._sink, unit, looked, tables, self._recipe, seconds)
            log.done("unit committed" if report.won else "unit was committed before")
        return report


@dataclass(slots=True, kw_only=True)
class Actor:
    """A scorer as the driver sees it."""

    handle: Any
    runtime: Runtime
    on_gpu: bool
    since_s: float = field(default_factory=time.monotonic)
    node: str = ""
    """Where it is; empty until it is loaded."""
    given: int = 0
    """Units that it has."""
    units: int = 0
    """Units that it was given and that were not taken back."""
    until_s: float | None = None
    """When its node was found gone."""

    @property
    def is_loaded(self) -> bool:
        """Whether its network is there and looked at."""
        return bool(self.node)


class Actors:
    """The scorers of one run. They come as nodes do, and stay: what dies is started anew where there is room."""

    def __init__(self, ray: Any, bundle: Bundle, shared: Shared, options: PoolOptions) -> None:
        """Starts them on the nodes that there are; they load beside the first extraction."""
        self._ray, self._options = ray, options
        self._made = bundle, shared
        self._all: list[Actor] = []
        self._nodes: set[str] = set()
        self._looked_s = 0.0
        self.loading: dict[Any, Actor] = {}
        """By the reference of their load."""
        self.cpus = 0
        """Of the cluster, when it was last looked at."""
        self._gpus = 0
        self._gpus_since_s = math.inf
        self._is_patient = True
        """Whether the run still waits for its first GPU rather than score on cores."""
        self._dead: list[Actor] = []
        self.lost: list[Actor] = []
        """Those that will not do, or not soon, what they were given: whoever gave it takes it back."""
        self.grow(at_start=True)

    def __len__(self) -> int:
        """How many there are, those that wait for a GPU among them."""
        return len(self._all)

    @property
    def able(self) -> list[Actor]:
        """Those that units are given to: on GPUs once they are loaded, else on CPUs."""
        on_cpus = [actor for actor in self._all if not actor.on_gpu]
        on_gpus = [actor for actor in self._all if actor.on_gpu] if self._gpus else []
        return [actor for actor in on_gpus if actor.is_loaded] or on_cpus or on_gpus

    @property
    def runtimes(self) -> set[str]:
        """What computed."""
        return {actor.runtime for actor in [*self._all, *self._dead] if actor.units}

    @property
    def seconds(self) -> float:
        """For how long they have been there, summed over those that loaded."""
        now = time.monotonic()
        return sum((actor.until_s or now) - actor.since_s for actor in [*self._all, *self._dead] if actor.is_loaded)

    def grow(self, *, at_start: bool = False) -> None:
        """Starts actors on what has joined: one a GPU, or while there is none one a node, up to the number wanted.

        GPUs that are asked for need no node yet: so an autoscaler learns of them. On nodes that the run begins with,
        a wanted number is shared out; one that joins later gets one actor.
        """
        self._looked_s = time.monotonic()
        alive = alive_nodes(self._ray)
        nodes = [node for node in alive if node["Resources"].get("CPU", 0) > 0]
        self.cpus = sum(int(node["Resources"]["CPU"]) for node in nodes)
        options, most = self._options, self._options.score_actors
        self._gpus = gpu_count(self._ray) if options.uses_gpus else 0
        self._gpus_since_s = min(self._gpus_since_s, time.monotonic()) if self._gpus else math.inf
        asked = max(self._gpus, options.score_gpus or 0) if options.uses_gpus else 0
        self._drop_dead({node["NodeID"] for node in alive})
        for _ in range(sum(actor.on_gpu for actor in self._all), min(asked, most or asked)):
            self._start(_ON_A_GPU, runtime="keras", on_gpu=True)
        if (self._gpus and not self._waits_in_vain()) or not nodes:
            return
        fresh = [node for node in nodes if node["NodeID"] not in self._nodes]
        chosen = [nodes[number % len(nodes)] for number in range(most)] if at_start and most else fresh
        left = (most or len(nodes)) - sum(not actor.on_gpu for actor in self._all)
        for node in chosen[: max(0, left)]:
            self._nodes.add(node["NodeID"])
            self._start(_place(node, chosen.count(node), options.runtime), runtime=options.runtime, on_gpu=False)

    def _drop_dead(self, nodes: set[str]) -> None:
        """Ends actors on GPUs whose node is gone. Ray would start them anew where there is a GPU, and else never.

        Actors on cores can go anywhere, and do. Those that still load stay, for the next GPU to come.
        """
        if not self._gpus:
            self.lost += [actor for actor in self._all if actor.on_gpu and not actor.is_loaded and actor.given]
        for actor in [each for each in self._all if each.on_gpu and each.is_loaded and each.node not in nodes]:
            self._ray.kill(actor.handle)
            actor.until_s = time.monotonic()
            self._all.remove(actor)
            self._dead.append(actor)
            self.lost.append(actor)

    def _waits_in_vain(self) -> bool:
        """Whether no GPU was had for a while. Once it is so, cores score until one is."""
        on_gpus = [actor for actor in self._all if actor.on_gpu]
        if not on_gpus or any(actor.is_loaded for actor in on_gpus):
            return False
        asked_s = min(actor.since_s for actor in on_gpus)
        if max(asked_s, self._gpus_since_s) + GPU_PATIENCE_S > time.monotonic():
            return False
        if self._is_patient:
            say(f"no GPU came free in {GPU_PATIENCE_S:.0f} s: cores score until one does")
            self._is_patient = False
            self.lost += on_gpus
        return True

    def grow_at_times(self) -> None:
        """The same, every few seconds at most."""
        if time.monotonic() - self._looked_s > LOOK_AGAIN_S:
            self.grow()

    def stop(self) -> None:
        """Ends them, those that still wait for a GPU too: another pool may want it."""
        for actor in self._all:
            self._ray.kill(actor.handle)

    def _start(self, place: Mapping[str, Any], *, runtime: Runtime, on_gpu: bool) -> None:
        # Restarts are what is bounded. Ray learns of a dead node after seconds, in which calls of its actor are refused
        # and retried at once: five retries were used up before.
        kind = self._ray.remote(max_restarts=RETRIES, max_task_retries=-1, max_concurrency=HELD_AN_ACTOR, **place)(
            Scorer
        )
        handle = kind.remote(*self._made, replace(self._options, runtime=runtime))
        actor = Actor(handle=handle, runtime=runtime, on_gpu=on_gpu)
        self._all.append(actor)
        self.loading[handle.start.remote()] = actor


def gpu_count(ray: Any) -> int:
    """Of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def _place(node: Mapping[str, Any], sharing: int, runtime: Runtime) -> dict[str, Any]:
    """Where an actor on CPUs goes. `sharing`: how many do so.

    It asks for no CPU: its threads and the extraction beside it share the node by the operating system's hand, which
    leaves no core idle whichever of the two has more to do. TensorFlow heeds `OMP_NUM_THREADS`, which is 1 for tasks:
    with it, Xception loads in 28 s instead of 5 and gives 5.4 crops/s instead of 11.6 on 2 cores.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    threads = {"OMP_NUM_THREADS": str(max(1, int(node["Resources"]["CPU"]) // sharing))}
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True),
        "runtime_env": {"env_vars": {**runtime_environment(runtime), **threads, **NO_GPU}},
    }
