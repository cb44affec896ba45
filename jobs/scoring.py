"""Units in, reports out: extraction tasks and model actors on Ray, both bounded, so that neither waits long.

Tasks and actors rather than Ray Data, which was as fast on the same units (8.6 crops/s beside 9.0, on two busy cores;
`tests/benchmarks/score.py --parts engines`). What decides: here a unit that was lost is one task to do again, a unit
with too many faces is cut in two, an INPUT that refuses access drops its own units alone, and what is in flight is
bounded by units whose size we know. A unit's crops travel from the node that made them straight to an actor, never
through the driver, and end with a commit of their own.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.model.bundle import Bundle
from batch.model.golden import Precision, Runtime
from batch.scoring.kept import recall
from batch.scoring.look import MediaExtractor, look, videos_of
from batch.scoring.records import Looked, ScoreUnit
from batch.scoring.tables import Recipe, unit_tables
from batch.scoring.units import make_unit
from batch.scoring.write import UnitReport, write_unit
from batch.storage.base import AccessError, Storage
from jobs.fanout import plain_errors
from jobs.runtime import runtime_environment
from jobs.session import alive_nodes
from jobs.worklog import unit_log

if TYPE_CHECKING:
    from batch.model.predictor import BatchPredictor

_HELD_AN_ACTOR = 3
"""Units that an actor is given at once: one is computed while the next one's crops arrive and the last one's are put
away."""
_RETRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How much runs at once."""

    extract_workers: int | None = None
    score_actors: int | None = None
    batch_size: int = 32
    precision: Precision = "float32"
    runtime: Runtime = "keras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every task needs; stored once."""

    extractor: MediaExtractor
    limits: LimitOptions
    sink: Storage
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class LookReport:
    """What an extraction task tells the driver."""

    taken: int
    """How many of the unit's items were looked at."""
    refused: str | None = None
    """The error of an INPUT that refuses access. A result, not an exception: the task has no other fault."""


@dataclass(slots=True)
class Refused:
    """INPUTs whose objects may not be read, with the error: their units are dropped."""

    inputs: dict[int, str] = field(default_factory=dict)
    items: int = 0


class Scorer:
    """The model, resident in one process. Several threads may call it; the network itself takes turns."""

    def __init__(self, bundle: Bundle, shared: Shared, options: PoolOptions) -> None:
        """Loads nothing yet, so that what is wrong with the bundle is told by `load`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._bundle, self._shared, self._options = bundle, shared, options
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

    def score(self, looked: Looked, unit: ScoreUnit) -> UnitReport:
        """Scores and commits a unit."""
        self.load()
        assert self._predictor is not None, "loaded a line before"
        with self._turn:
            start = time.perf_counter()
            logits = self._predictor(looked.crops)
            seconds = {"predict": time.perf_counter() - start}
        tables = unit_tables(unit, looked, logits, self._shared.recipe)
        with unit_log(unit.id, "unit scored", faces=len(looked.crops)) as log:
            report = write_unit(self._shared.sink, unit, looked, tables, self._shared.recipe, seconds)
            log.done("unit committed" if report.won else "unit was committed before")
        return report


def look_task(shared: Shared, unit: ScoreUnit) -> tuple[LookReport, Looked | None]:
    """The body of an extraction task: what the driver is told, and what goes to an actor."""
    options = shared.extractor.options
    if unit.kept is not None:
        recalled = recall(shared.sink, unit, options.crop.crop_size)
        if recalled is not None:
            return LookReport(taken=len(unit.items)), recalled
    isolated = _isolated(pickle.dumps((shared.extractor, shared.limits)))
    isolated.announce(videos_of(unit))
    sources = shared.extractor.sources
    with unit_log(unit.id, items=len(unit.items)) as log:
        watched = log.watched(isolated, lambda video: sources[int(video.part)].uri(video.key))
        try:
            looked, taken = look(unit, watched, options.crop.crop_size, keep_encoded=shared.recipe.keep_crops)
        except AccessError as error:
            log.say(logging.ERROR, "unit refused", error=str(error))
            return LookReport(taken=0, refused=str(error)), None
        log.done("unit looked at", items=taken, faces=len(looked.crops))
    return LookReport(taken=taken), looked


@lru_cache(maxsize=1)
def _isolated(pickled: bytes) -> IsolatedExtractor:
    """One decoding process a worker process, kept from unit to unit: each task brings a new but equal extractor."""
    return IsolatedExtractor(*pickle.loads(pickled))  # noqa: S301  (made a line before, in this process)


class ScoringPool:
    """Extraction tasks and model actors of one run."""

    def __init__(self, ray: Any, bundle: Bundle, shared: Shared, options: PoolOptions) -> None:
        """Starts the actors; they load beside the first extraction."""
        self._ray, self._options = ray, options
        self._salt = f"{shared.recipe.run} {shared.recipe.bundle} {shared.recipe.options}"
        self._look = ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)(look_task)
        self._shared = ray.put(shared)
        self._actors = [self._actor(bundle, shared, place) for place in _placements(ray, options)]
        self._loading = [actor.load.remote() for actor in self._actors]
        self._given: Counter[int] = Counter()
        self.refused = Refused()

    @property
    def actors(self) -> int:
        """How many."""
        return len(self._actors)

    def run(self, units: Iterable[ScoreUnit]) -> Iterator[UnitReport]:
        """Does the units and yields reports as they end, in any order. Units are taken only as fast as they end.

        Units of an INPUT that refuses access are dropped and counted in `refused`.

        Raises:
            RuntimeError: where the bundle does not load, or its scores drift from the stored ones; where Ray gave up,
                since a node or worker died too often, or the cluster is gone.
        """
        stream = _Stream(units)
        looking: dict[Any, tuple[ScoreUnit, Any]] = {}
        scoring: dict[Any, int] = {}
        try:
            while True:
                self._fill(stream, looking, scoring)
                waiting = [*self._loading, *looking, *scoring]
                if not looking and not scoring:
                    return
                with plain_errors(self._ray):
                    ready, _ = self._ray.wait(waiting, num_returns=1)
                for reference in ready:
                    if reference in looking:
                        self._hand_over(reference, looking, scoring, stream)
                    elif reference in scoring:
                        self._given[scoring.pop(reference)] -= 1
                        with plain_errors(self._ray):
                            yield self._ray.get(reference)
                    else:
                        self._loading.remove(reference)
                        with plain_errors(self._ray):
                            self._ray.get(reference)
        finally:
            for reference in looking:
                self._ray.cancel(reference, force=True)

    def _fill(self, stream: _Stream, looking: dict[Any, Any], scoring: Mapping[Any, Any]) -> None:
        """Starts extraction while there is room: in flight and in front of the actors, a bounded number of units."""
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        window = self._options.extract_workers or cpus + max(1, cpus // 2)
        room = _HELD_AN_ACTOR * len(self._actors)
        while len(looking) < window and len(scoring) < room:
            unit = stream.next(self.refused)
            if unit is None:
                return
            report, looked = self._look.remote(self._shared, unit)
            looking[report] = unit, looked

    def _hand_over(self, reference: Any, looking: dict[Any, Any], scoring: dict[Any, Any], stream: _Stream) -> None:
        """Gives what was extracted to the actor with the least to do."""
        unit, looked = looking.pop(reference)
        with plain_errors(self._ray):
            told: LookReport = self._ray.get(reference)
        if told.refused is not None:
            self.refused.inputs.setdefault(unit.input, told.refused)
            self.refused.items += len(unit.items)
            return
        if told.taken < len(unit.items):
            stream.put_back(make_unit(unit.items[told.taken :], self._salt))
            unit = make_unit(unit.items[: told.taken], self._salt)
        actor = min(range(len(self._actors)), key=lambda number: self._given[number])
        self._given[actor] += 1
        scoring[self._actors[actor].score.remote(looked, unit)] = actor

    def _actor(self, bundle: Bundle, shared: Shared, place: Mapping[str, Any]) -> Any:
        # Restarts are what is bounded. Ray learns of a dead node after seconds, in which calls of its actor are refused
        # and retried at once: five retries were used up before.
        made = self._ray.remote(max_restarts=_RETRIES, max_task_retries=-1, max_concurrency=_HELD_AN_ACTOR, **place)(
            Scorer
        )
        return made.remote(bundle, shared, self._options)


class _Stream:
    """Units that may be put back, without those of INPUTs that refuse access."""

    def __init__(self, units: Iterable[ScoreUnit]) -> None:
        self._units = iter(units)
        self._back: deque[ScoreUnit] = deque()

    def put_back(self, unit: ScoreUnit) -> None:
        """To come next."""
        self._back.append(unit)

    def next(self, refused: Refused) -> ScoreUnit | None:
        """The next one; None at the end."""
        while True:
            unit = self._back.popleft() if self._back else next(self._units, None)
            if unit is None or unit.input not in refused.inputs:
                return unit
            refused.items += len(unit.items)


def gpu_count(ray: Any) -> int:
    """Of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def _placements(ray: Any, options: PoolOptions) -> list[dict[str, Any]]:
    """Where the actors go: one a GPU, or without any one a node.

    On CPUs an actor asks for no CPU: its threads and the extraction beside it share the node by the operating system's
    hand, which leaves no core idle whichever of the two has more to do.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted, environment = options.score_actors, runtime_environment(options.runtime)
    gpus = gpu_count(ray)
    if gpus and options.runtime == "keras":
        return [{"num_gpus": 1, "num_cpus": 0}] * min(gpus, wanted or gpus)
    nodes = [node for node in alive_nodes(ray) if node["Resources"].get("CPU", 0) > 0]
    chosen = [nodes[number % len(nodes)] for number in range(wanted or len(nodes))]
    return [
        {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True),
            "runtime_env": {"env_vars": {**environment, **_threads(node, chosen.count(node))}},
        }
        for node in chosen
    ]


def _threads(node: Mapping[str, Any], sharing: int) -> dict[str, str]:
    """As many threads for the network as the node has CPUs for each of its actors.

    TensorFlow heeds `OMP_NUM_THREADS`, which is 1 for tasks: with it, Xception loads in 28 s instead of 5 and gives 5.4
    crops/s instead of 11.6 on 2 cores.
    """
    return {"OMP_NUM_THREADS": str(max(1, int(node["Resources"]["CPU"]) // sharing))}
