"""Options in, the whole corpus as a list of work out: who is in which clip, every name, every label. Draws nothing."""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from batch.corpus.draw.clip import Fake, Person, Take, draw_take
from batch.corpus.draw.encode import Encoding
from batch.corpus.draw.identity import Identity, draw_identity
from batch.corpus.draw.options import DrawOptions
from batch.corpus.draw.planted import PlantedFile, PlantedKind, Work, plant

Entry = dict[str, str]
"""What `metadata.json` says of a file: label, split and, for a fake, original."""
Size = tuple[int, int]

_FRAME_RATES = (Fraction(25), Fraction(30), Fraction(30_000, 1001), Fraction(24))
_S, _M, _L, _XL = (640, 360), (848, 480), (1280, 720), (1920, 1080)
# In 24 clips: 10 of 480p, 7 of 360p, 5 of 720p, 2 of 1080p, spread so that every part has some of each.
_SIZES: tuple[Size, ...] = (
    *(_M, _S, _L, _M, _M, _S, _XL, _S, _M, _L, _M, _M),
    *(_S, _L, _S, _M, _L, _S, _M, _XL, _M, _S, _L, _M),
)
_LARGE_HEIGHT, _LARGE_S = 1080, 1.5
"""Clips so high are no longer than this: one costs as much as four of 480p."""
_PLANTED_S = 1.2
_PLANTED_SIZES: dict[PlantedKind, Size] = {PlantedKind.TINY_FACE: _L}


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything that makes up the corpus. Keys are relative to its folder."""

    work: list[Work] = field(default_factory=list)
    """The dearest first, so that workers end together."""
    metadata: dict[str, dict[str, Entry]] = field(default_factory=dict)
    """By part, then by file name."""
    reals: list[str] = field(default_factory=list)
    """Keys of the ordinary real clips."""
    fakes: dict[str, str] = field(default_factory=dict)
    """Keys of the ordinary fakes, and of the reals that they are made from."""
    planted: list[PlantedFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Keys that metadata names and that are not written."""

    @property
    def files(self) -> int:
        """Video files, whole or not."""
        return len(self.reals) + len(self.fakes) + len(self.planted)


def plan_corpus(folder: Path, options: DrawOptions) -> Plan:
    """Plans the corpus that `options` describe, to be written into `folder`."""
    return _Planner(folder, options).plan()


class _Planner:
    def __init__(self, folder: Path, options: DrawOptions) -> None:
        self._folder, self._options = folder, options
        self._rng = np.random.default_rng([options.seed, 23])
        self._parts = [f"dfdc_train_part_{number}" for number in range(options.parts)]
        self._plan = Plan(metadata={part: {} for part in self._parts})
        self._names: set[str] = set()
        self._costs: list[tuple[float, Work]] = []

    def plan(self) -> Plan:
        options, plan = self._options, self._plan
        extra = len(PlantedKind) if options.planted else 0
        # Ranks, not draws: a small corpus too has every skin tone.
        ranks = self._rng.permutation(options.identities) / (options.identities - 1)
        people = [
            draw_identity(options.seed, n, float(ranks[n % len(ranks)])) for n in range(options.identities + extra)
        ]
        for number in range(options.identities):
            self._ordinary(number, people[: options.identities])
        if options.planted:
            for number, kind in enumerate(PlantedKind):
                self._plant(kind, number, people[options.identities + number], people[number % options.identities])
            absent = self._name()
            self._enter(self._parts[-1], absent, "REAL")
            plan.missing.append(f"{self._parts[-1]}/{absent}")
        plan.work = [work for _, work in sorted(self._costs, key=lambda item: -item[0])]
        plan.metadata = {part: dict(sorted(entries.items())) for part, entries in plan.metadata.items()}
        return plan

    def _ordinary(self, number: int, people: list[Identity]) -> None:
        """One real clip with its fakes, whose donors come from the same part as far as there are any."""
        part = self._parts[number % len(self._parts)]
        name = self._name()
        take = self._take(self._folder / part / name, people[number], self._size(_SIZES[number % len(_SIZES)]))
        near = [p for n, p in enumerate(people) if n % len(self._parts) == number % len(self._parts) and n != number]
        donors = near or [p for n, p in enumerate(people) if n != number]
        order = self._rng.permutation(len(donors))
        fakes = []
        for k in range(self._options.fakes_per_real):
            fake = self._name()
            donor = donors[int(order[k % len(order)])]
            fakes.append(Fake(path=self._folder / part / fake, donor=donor, crf=self._crf()))
            self._enter(part, fake, "FAKE", original=name)
            self._plan.fakes[f"{part}/{fake}"] = f"{part}/{name}"
        self._enter(part, name, "REAL")
        self._plan.reals.append(f"{part}/{name}")
        take = replace(take, fakes=tuple(fakes))
        self._costs.append((_cost(take), partial(draw_take, take)))

    def _plant(self, kind: PlantedKind, number: int, who: Identity, other: Identity) -> None:
        """One file that is odd on purpose, with what metadata says of it."""
        part, name = self._parts[number % len(self._parts)], self._name()
        take = self._take(self._folder / part / name, who, self._size(_PLANTED_SIZES.get(kind, _M)))
        take = replace(take, seconds=min(_PLANTED_S, take.seconds))
        self._costs.append((_cost(take), plant(kind, take, other)))
        self._plan.planted.append(PlantedFile(key=f"{part}/{name}", kind=kind))
        if kind is PlantedKind.ORPHAN_FAKE:
            self._enter(part, name, "FAKE", original=self._name())
        elif kind is not PlantedKind.NO_METADATA:
            self._enter(part, name, "REAL")

    def _take(self, path: Path, who: Identity, size: Size) -> Take:
        """A real clip of one person in a random scene."""
        rng, options = self._rng, self._options
        width, height = size
        encoding = Encoding(
            width=width,
            height=height,
            fps=_FRAME_RATES[int(rng.integers(len(_FRAME_RATES)))],
            crf=self._crf(),
            index_first=bool(rng.random() < 0.12),
        )
        # Relatively larger in small frames: dlib's HOG wants 80 pixels, 40 after its own enlarging.
        head_px = height * float(rng.uniform(0.34, 0.42) if height < 400 else rng.uniform(0.28, 0.38))
        person = Person(who=who, x=float(rng.uniform(0.38, 0.62)), y=float(rng.uniform(0.4, 0.46)), head_px=head_px)
        seconds = float(rng.uniform(options.shortest_s, options.longest_s))
        return Take(
            seed=int(rng.integers(2**31)),
            encoding=encoding,
            seconds=min(seconds, max(_LARGE_S, options.shortest_s)) if height >= _LARGE_HEIGHT else seconds,
            people=(person,),
            path=path,
            sound=bool(rng.random() < 0.4),
        )

    def _size(self, size: Size) -> Size:
        if size[1] <= self._options.max_height:
            return size
        return max(s for s in (_S, _M, _L) if s[1] <= self._options.max_height)

    def _crf(self) -> int:
        # The same range for real and fake: the rate must not give the label away.
        return int(self._rng.integers(20, 30))

    def _name(self) -> str:
        """A file name as in DFDC: ten letters, no two alike."""
        while True:
            name = "".join(self._rng.choice(list(string.ascii_lowercase), 10)) + ".mp4"
            if name not in self._names:
                self._names.add(name)
                return name

    def _enter(self, part: str, name: str, label: str, original: str = "") -> None:
        entry = {"label": label, "split": "train"}
        self._plan.metadata[part][name] = entry | ({"original": original} if original else {})


def _cost(take: Take) -> float:
    """About how long a take is to draw, in no unit."""
    return take.encoding.width * take.encoding.height * take.seconds * (1 + len(take.fakes))
