"""Pending items in, work units out: streamed, small at first so that every worker soon has one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from batch.faces.options import digest_of
from batch.scoring.listing import media_of
from batch.scoring.records import Item, ScoreUnit

UNIT_FRAMES = 256
"""Frames that a unit looks at: 256 crops of 224 px are 38 MB of pixels where each has one face, 5 to 10 seconds of
extraction, and eight batches of 32."""
MOST_CROPS = 1024
"""Where faces crowd, a unit ends after so many crops (154 MB), and what is left of it becomes another."""
_FIRST_FRAMES = 32
_GROWS_EVERY = 8
_MOST_OPEN = 64


@dataclass(slots=True)
class _Open:
    """A unit that is being filled."""

    items: list[Item] = field(default_factory=list)
    frames: int = 0


def cut_units(items: Iterable[Item], frames: int, salt: str) -> Iterator[ScoreUnit]:
    """Cuts a stream of items into units of one INPUT each, and of one commit where their crops were kept.

    Items with kept crops and without may come in turns: each kind has a unit of its own that stays open. At most
    `_MOST_OPEN` are open; the one that has waited longest for an item goes as it is.

    Args:
        items: in any order; those of a listing come in its order.
        frames: looked at in a video.
        salt: what else names a unit: run, bundle, options.
    """
    held: OrderedDict[tuple[int, str | None], _Open] = OrderedDict()
    made = 0
    for item in items:
        name = item.input, item.kept
        target = min(UNIT_FRAMES, _FIRST_FRAMES << (made // _GROWS_EVERY))
        weight = frames if media_of(item.key) == "video" else 1
        if name in held and held[name].frames + weight > target:
            yield make_unit(held.pop(name).items, salt)
            made += 1
        unit = held.setdefault(name, _Open())
        unit.items.append(item)
        unit.frames += weight
        held.move_to_end(name)
        if len(held) > _MOST_OPEN:
            yield make_unit(held.popitem(last=False)[1].items, salt)
            made += 1
    for unit in held.values():
        yield make_unit(unit.items, salt)


def make_unit(items: Iterable[Item], salt: str) -> ScoreUnit:
    """A unit of these items; its id names them and the salt."""
    taken = tuple(items)
    named = [[item.input, item.key, item.etag, item.attempt] for item in taken]
    return ScoreUnit(id=digest_of([salt, named]), input=taken[0].input, items=taken, kept=taken[0].kept)
