"""Counting and sampling streams of any length in fixed memory: what a page needs of a corpus and no more."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

_NICE = (1, 2, 5, 10, 20, 25, 50)


class Sample(Generic[Item]):
    """A uniform sample of distinct keys: those whose hash is smallest, whatever the order in which they came.

    A key that fell out never comes back, since the bound only sinks: what is held of a kept key is complete.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: dict[str, Item] = {}
        self._heap: list[tuple[int, str]] = []

    def wants(self, key: str) -> bool:
        """Whether the key would be held if it were offered now."""
        return len(self._heap) < self._size or key in self._items or -_hash(key) > self._heap[0][0]

    def offer(self, key: str, item: Item) -> None:
        """Holds the item if its key is among the smallest; a key that is held already gets the new item."""
        if key in self._items:
            self._items[key] = item
            return
        if not self.wants(key):
            return
        heapq.heappush(self._heap, (-_hash(key), key))
        self._items[key] = item
        if len(self._heap) > self._size:
            del self._items[heapq.heappop(self._heap)[1]]

    def get(self, key: str) -> Item | None:
        """The held item of a key."""
        return self._items.get(key)

    def in_hash_order(self) -> list[tuple[str, Item]]:
        """Keys and items in an order that has nothing to do with the keys' meaning."""
        return [(key, self._items[key]) for _, key in sorted(self._heap, reverse=True)]

    def in_key_order(self) -> list[tuple[str, Item]]:
        """Keys and items, sorted by key."""
        return sorted(self._items.items(), key=lambda pair: pair[0])


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Tally(Generic[Key]):
    """A counter that stops taking new keys at a limit and counts their occurrences as `rest`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counts: Counter[Key] = Counter()
        self.rest = 0

    def add(self, key: Key, count: int = 1) -> None:
        """Counts a key."""
        if key in self.counts or len(self.counts) < self._limit:
            self.counts[key] += count
        else:
            self.rest += count

    def top(self, size: int) -> tuple[list[tuple[Key, int]], int]:
        """The most frequent keys with their counts (ties by the key's text), and the count of all others."""
        ranked = sorted(self.counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
        return ranked[:size], self.rest + sum(count for _, count in ranked[size:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """A histogram to draw: `edges` has one value more than `counts`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    open_end: bool
    """True if the last bin also holds everything beyond its right edge."""


class Distribution:
    """Counts of non-negative numbers, each rounded to a multiple of `step`; those beyond the range in the last one."""

    def __init__(self, step: float, size: int) -> None:
        self.step = step
        self.counts: npt.NDArray[np.int64] = np.zeros(size + 1, np.int64)

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Counts values; NaN, infinite and negative ones are left out."""
        sound = values[np.isfinite(values) & (values >= 0)]
        slots = np.minimum(np.rint(sound / self.step), len(self.counts) - 1).astype(np.int64)
        self.counts += np.bincount(slots, minlength=len(self.counts))

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` of the values do not exceed; ValueError without values."""
        if not self.total:
            raise ValueError("quantile of an empty distribution")
        reached = np.searchsorted(np.cumsum(self.counts), max(1.0, share * self.total))
        return float(round(int(reached) * self.step, 6))


def nice_edges(end: float, step: float, most: int) -> tuple[float, ...]:
    """Edges from 0 to `end` or a little beyond it in at most `most` bins of a round width, a multiple of `step`."""
    scale = 1
    while True:
        for factor in _NICE:
            width = step * factor * scale
            bins = int(end / width + 1e-9) + 1
            if bins <= most:
                return tuple(round(index * width, 6) for index in range(bins + 1))
        scale *= 100


def binned(distribution: Distribution, edges: tuple[float, ...]) -> Bins:
    """Adds a distribution's counts up between edges (left edge inclusive); the last bin takes what lies beyond."""
    slots = np.rint(np.asarray(edges[:-1]) / distribution.step).astype(int)
    counts = np.add.reduceat(distribution.counts, slots)
    beyond = distribution.counts[round(edges[-1] / distribution.step) :].sum()
    return Bins(edges=edges, counts=tuple(int(count) for count in counts), open_end=bool(beyond))
