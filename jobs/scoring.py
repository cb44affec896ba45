"""Units in, reports out: extraction tasks and model actors on Ray, both bounded, so that neither waits long.

Tasks and actors rather than Ray Data, which was as fast on the same units (8.6 crops/s beside 9.0, on two busy cores;
`tests/benchmarks/score.py --parts engines`). What decides: here a unit that was lost is one task to do again, a unit
with too many faces is cut in two, an INPUT that refuses access drops its own units alone, and what is in flight is
bounded by units whose size we know. A unit's crops travel from the node that made them straight to an actor, never
through the driver, and end with a commit of their own.
"""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from batch.faces.extract import was_given
from batch.faces.isolate import IsolatedExtractor
from batch.model.bundle import Bundle
from batch.scoring.kept import recall
from batch.scoring.look import look, videos_of
from batch.scoring.records import Looked, ScoreUnit
from batch.scoring.units import make_unit
from batch.scoring.write import UnitReport
from batch.storage.base import AccessError, DeniedError
from jobs.fanout import plain_errors
from jobs.scorer import HELD_AN_ACTOR, LOOK_AGAIN_S, RETRIES, Actor, Actors, PoolOptions, Shared
from jobs.worklog import unit_log

_ASKED_OF_NO_NODE = 4
"""Units that a cluster without a node is asked for."""
_MOST_DENIED = 64
"""Units of an INPUT of which no object may be read, before the INPUT itself is taken to refuse access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookReport:
    """What an extraction task tells the driver."""

    taken: int
    """How many of the unit's items were looked at."""
    could_read: bool = False
    """Whether the INPUT gave any of them."""
    refused: str | None = None
    """The error of an INPUT that refuses access. A result, not an exception: the task has no other fault."""
    of_objects: bool = False
    """Whether it may be that of the unit's objects alone."""


@dataclass(slots=True)
class Refused:
    """INPUTs whose objects may not be read, with the error: their units are dropped.

    A single object may have a key or a rule of its own, and it would keep all others from being scored night after
    night. So a unit of which no object may be read waits until it is known whether others of its INPUT can be.
    """

    inputs: dict[int, str] = field(default_factory=dict)
    items: int = 0
    readable: set[int] = field(default_factory=set)
    """INPUTs that gave an object in this run."""
    waiting: dict[int, list[tuple[ScoreUnit, str]]] = field(default_factory=dict)
    """Units of INPUTs of which that is not known, with their errors."""

    def gave(self, number: int) -> list[ScoreUnit]:
        """Notes that an INPUT gave an object; the units that waited for that."""
        self.readable.add(number)
        return [unit for unit, _ in self.waiting.pop(number, [])]

    def denied(self, unit: ScoreUnit, error: str) -> None:
        """Holds a unit back; too many of them and none that was read refuse their INPUT."""
        self.waiting.setdefault(unit.input, []).append((unit, error))
        if len(self.waiting[unit.input]) >= _MOST_DENIED:
            self.refuse(unit.input)

    def refuse(self, number: int, error: str = "", items: int = 0) -> None:
        """Drops an INPUT with what waits of it, and so many items beside."""
        waited = self.waiting.pop(number, [])
        self.inputs.setdefault(number, error or waited[0][1])
        self.items += items + sum(len(unit.items) for unit, _ in waited)


def look_task(shared: Shared, unit: ScoreUnit, *, is_readable: bool) -> tuple[LookReport, Looked | None]:
    """The body of an extraction task: what the driver is told, and what goes to an actor.

    `is_readable` says that the unit's INPUT gave another object.
    """
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
            looked, taken = look(
                unit,
                watched,
                options.crop.crop_size,
                keep_encoded=shared.recipe.keep_crops,
                is_readable=is_readable,
            )
        except AccessError as error:
            log.say(logging.ERROR, "unit refused", error=str(error))
            return LookReport(taken=0, refused=str(error), of_objects=isinstance(error, DeniedError)), None
        log.done("unit looked at", items=taken, faces=len(looked.crops))
    return LookReport(taken=taken, could_read=any(map(was_given, looked.results))), looked


@lru_cache(maxsize=1)
def _isolated(pickled: bytes) -> IsolatedExtractor:
    """One decoding process a worker process, kept from unit to unit: each task brings a new but equal extractor."""
    return IsolatedExtractor(*pickle.loads(pickled))  # noqa: S301  (made a line before, in this process)


class ScoringPool:
    """Extraction tasks and model actors of one run."""

    def __init__(self, ray: Any, bundle: Bundle, shared: Shared, options: PoolOptions) -> None:
        """Starts the actors that have a node; the others come with theirs."""
        self._ray, self._options = ray, options
        self._salt = f"{shared.recipe.run} {shared.recipe.bundle} {shared.recipe.options}"
        self._look = ray.remote(num_cpus=1, num_returns=2, max_retries=RETRIES)(look_task)
        self._shared = ray.put(shared)
        self.actors = Actors(ray, bundle, shared, options)
        self.refused = Refused()

    def run(self, units: Iterable[ScoreUnit]) -> Iterator[UnitReport]:
        """Does the units and yields reports as they end, in any order. Units are taken only as fast as they end.

        May be called again: the actors stay. Units of an INPUT that refuses access are dropped and counted in
        `refused`. On a cluster without a node some are asked for all the same, since that is what an autoscaler starts
        nodes for.

        Raises:
            RuntimeError: where the bundle does not load, or its scores drift from the stored ones; where Ray gave up,
                since a node or worker died too often, or the cluster is gone.
        """
        stream = _Stream(units)
        looking: dict[Any, tuple[ScoreUnit, Any]] = {}
        scoring: dict[Any, tuple[Actor, ScoreUnit]] = {}
        try:
            while True:
                self.actors.grow_at_times()
                self._take_back(scoring, stream)
                self._fill(stream, looking, scoring)
                if not looking and not scoring:
                    for number in list(self.refused.waiting):
                        self.refused.refuse(number)
                    return
                for reference in self._ready([*self.actors.loading, *looking, *scoring]):
                    if reference in looking:
                        self._hand_over(reference, looking, scoring, stream)
                    elif reference in scoring:
                        scoring.pop(reference)[0].given -= 1
                        yield self._get(reference)
                    else:
                        self.actors.loading[reference].node = self._get(reference)
                        del self.actors.loading[reference]
        finally:
            for reference in looking:
                self._ray.cancel(reference, force=True)

    def _ready(self, waiting: list[Any]) -> list[Any]:
        """What has ended; nothing after a while, so that nodes which joined are seen."""
        with plain_errors(self._ray):
            ready, _ = self._ray.wait(waiting, num_returns=1, timeout=LOOK_AGAIN_S)
        return list(ready)

    def _get(self, reference: Any) -> Any:
        with plain_errors(self._ray):
            return self._ray.get(reference)

    def _fill(self, stream: _Stream, looking: dict[Any, Any], scoring: Mapping[Any, Any]) -> None:
        """Starts extraction while there is room: in flight and in front of the actors, a bounded number of units."""
        cpus = self.actors.cpus
        window = self._options.extract_workers or (cpus + max(1, cpus // 2) if cpus else _ASKED_OF_NO_NODE)
        room = HELD_AN_ACTOR * max(1, len(self.actors.able))
        while len(looking) < window and len(scoring) < room:
            unit = stream.next(self.refused)
            if unit is None:
                return
            is_readable = unit.input in self.refused.readable
            report, looked = self._look.remote(self._shared, unit, is_readable=is_readable)
            looking[report] = unit, looked

    def _take_back(self, scoring: dict[Any, tuple[Actor, ScoreUnit]], stream: _Stream) -> None:
        """What lost actors were given is extracted and scored anew; a commit that is there by then stays."""
        while self.actors.lost:
            gone = self.actors.lost.pop()
            for reference in [each for each, (actor, _) in scoring.items() if actor is gone]:
                stream.put_back(scoring.pop(reference)[1])
                gone.given, gone.units = gone.given - 1, gone.units - 1
                self._ray.cancel(reference)

    def _hand_over(
        self,
        reference: Any,
        looking: dict[Any, Any],
        scoring: dict[Any, tuple[Actor, ScoreUnit]],
        stream: _Stream,
    ) -> None:
        """Gives what was extracted to the actor with the least to do."""
        unit, looked = looking.pop(reference)
        told: LookReport = self._get(reference)
        if told.refused is not None:
            if not told.of_objects:
                self.refused.refuse(unit.input, told.refused, len(unit.items))
            elif unit.input in self.refused.readable:
                stream.put_back(unit)
            else:
                self.refused.denied(unit, told.refused)
            return
        if told.could_read:
            for held in self.refused.gave(unit.input):
                stream.put_back(held)
        if told.taken < len(unit.items):
            stream.put_back(make_unit(unit.items[told.taken :], self._salt))
            unit = make_unit(unit.items[: told.taken], self._salt)
        if not self.actors.able:
            self.actors.grow()
        if not self.actors.able:  # the node that looked at it is gone already, with what it saw
            stream.put_back(unit)
            return
        actor = min(self.actors.able, key=lambda each: each.given)
        actor.given, actor.units = actor.given + 1, actor.units + 1
        scoring[actor.handle.score.remote(looked, unit)] = actor, unit


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
