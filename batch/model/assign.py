"""Groups and the shares that were asked for in, a split for each group out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Assigned = npt.NDArray[np.int64]
"""The number of the split that each group is in, shape (groups,)."""

_TOLERANCE = 0.01
_EMPTY_COST = 10.0  # more than all squared deviations together can be, so that no class is traded for a better share


def assign_groups(sizes: npt.NDArray[np.int64], ids: Sequence[str], shares: Sequence[float], seed: int) -> Assigned:
    """Deals groups to splits so that each split's share of every class comes close to what was asked.

    The hash of seed and id decides, for each group by itself: so a corpus that grows keeps its groups where they
    are. With N groups of like size that leaves a share s uncertain by sqrt(s (1 - s) / N), 0.3% for the 19,000
    sources of DFDC, but 7% for 30. So as long as a share is off by more than one percentage point, or a split has
    no face of a class, the one group is moved whose move mends most. Large corpora need no such move.

    Args:
        sizes: Faces of each group by class, shape (groups, classes).
        ids: Of the groups; their order has no influence.
        shares: Of the splits, sum 1.
        seed: Another one deals anew.

    Returns:
        Split of each group, shape (groups,). A split may still lack a class where there are too few groups.
    """
    order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    fractions = np.asarray([_fraction(seed, ids[place]) for place in order])
    # The last split takes the lowest hashes, so that a larger test split keeps all of a smaller one.
    bounds = np.cumsum(np.asarray(shares)[::-1])[:-1]
    dealt = len(shares) - 1 - np.searchsorted(bounds, fractions, side="right")
    # One that is larger than its split is to be goes where most room is: nothing else could be moved in to mend it.
    parts = (sizes[order] / np.maximum(sizes.sum(axis=0), 1)).max(axis=1, initial=0)
    dealt = np.where(parts > np.asarray(shares)[dealt], int(np.argmax(shares)), dealt)
    mended = _mend(sizes[order], dealt.astype(np.int64), np.asarray(shares, np.float64))
    assigned = np.empty(len(ids), np.int64)
    assigned[order] = mended
    return assigned


def _fraction(seed: int, group: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _mend(sizes: npt.NDArray[np.int64], assigned: Assigned, shares: npt.NDArray[np.float64]) -> Assigned:
    """Moves one group at a time, the best one first; ends, since every move lowers the cost."""
    parts = sizes / np.maximum(sizes.sum(axis=0), 1)  # (groups, classes): shares of the class
    held = np.stack([sizes[assigned == split].sum(axis=0) for split in range(len(shares))])  # (splits, classes)
    everything = np.maximum(sizes.sum(axis=0), 1)
    while True:
        off = held / everything - shares[:, None]
        if np.abs(off).max() <= _TOLERANCE and held.all():
            return assigned
        cost = _cost(off, held)
        # (groups, splits, classes): what the old and the new split would be off by, and would hold.
        left_off, left_held = off[assigned] - parts, held[assigned] - sizes
        leave = _cost(left_off, left_held) - cost[assigned]
        enter = _cost(off[None] + parts[:, None], held[None] + sizes[:, None]) - cost[None]
        change = leave[:, None] + enter
        change[np.arange(len(assigned)), assigned] = 0.0
        group, split = np.unravel_index(np.argmin(change), change.shape)
        if change[group, split] >= -1e-12:
            return assigned
        held[assigned[group]] -= sizes[group]
        held[split] += sizes[group]
        assigned[group] = split


def _cost(off: npt.NDArray[np.float64], held: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of splits: squared deviations summed over classes, and a large sum for every class that is missing."""
    return np.asarray((off**2).sum(axis=-1) + _EMPTY_COST * (held <= 0).sum(axis=-1), np.float64)
