"""The faces of a split in, the order of one epoch out: which face stands at which place of which batch.

The order is a pure function of the index, the split's rows, the options and the epoch, never of the number of workers:
a run on one worker and on eight sees the same global batches. For that the faces are laid end to end, shard after
shard, and cut into `lanes` equal parts; a global batch takes the same number of faces from each lane, and each worker
reads whole lanes. Every worker knows the plan of all lanes, hence the number of steps and each step's total weight,
without asking the others: nobody waits for a batch that never comes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from batch.model.records import FaceIndex

Rows = npt.NDArray[np.int64]
"""Places in a face index, shape (n,)."""

MAX_LANES = 16
"""Most workers of a run. Also what is read side by side: 16 shards of 5 to 50 MB."""
WINDOW_FACES = 4096
"""Faces, over all lanes, among which the order is drawn: 200 MB of PNG crops at 224 pixels."""

# One stream of random numbers for each thing that is drawn, so that none depends on what another used up.
_POOL, _SHARDS, _CLASSES, _ORDER = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which faces an epoch trains on, and how they come to the network."""

    batch_size: int = 32
    """Faces of one optimizer step, over all workers."""
    balance: Literal["downsample", "weights", "none"] = "downsample"
    """`downsample`: each epoch uses all faces of the smaller class and as many of the larger one, drawn anew each
    epoch. `weights`: all faces, weighted so that both classes sum to the same and the mean weight is 1. `none`: all
    faces, equal weights."""
    max_faces: int | None = None
    """Most faces that a run draws its epochs from, chosen once by seed: half of each class; where one has fewer, the
    other fills up. None: all. (The reference recipe took 16,000.)"""
    synthetic: Literal["none", "self-blended"] = "none"
    """`self-blended`: real faces alone; each comes as itself (label 0) and, beside it, as a fake made from it
    (label 1). The corpus's own fakes are not used, `balance` has nothing to do, and each real counts twice. A split
    without fakes is then judged by such ones, too (`lacks_fakes`)."""
    augment: Literal["reference", "robust", "none"] = "robust"
    """`reference`: random flips and light transforms; `robust`: all of `batch.model.augment`, and JPEG."""
    cache: Literal["memory", "disk", "none"] = "memory"
    """What a worker keeps of its shards between epochs: encoded crops, copies in a temporary folder, or nothing."""
    cache_mb: int = 8192
    """Most that `memory` keeps a worker; shards beyond it are read again each epoch."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        """Refuses sizes that no batch can have."""
        if self.batch_size < 1:
            raise ValueError(f"batch size: got {self.batch_size}, expected at least 1")
        if self.max_faces is not None and self.max_faces < 2:
            raise ValueError(f"max faces: got {self.max_faces}, expected at least 2 (one of each class), or none")
        if self.synthetic == "self-blended" and self.batch_size % 2:
            raise ValueError(f"batch size: got {self.batch_size}, expected an even one: self-blended faces are pairs")
        if self.cache_mb < 0:
            raise ValueError(f"cache: got {self.cache_mb} MB, expected at least 0")
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, expected at least 0")

    @property
    def lanes(self) -> int:
        """How many parts each epoch is cut into: the most workers that can share this batch size."""
        return math.gcd(self.batch_size // 2 if self.synthetic == "self-blended" else self.batch_size, MAX_LANES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One of the equal parts of an epoch, read in order by one worker. All arrays have one value a face."""

    rows: Rows
    """Places in the face index, in order of use."""
    synthetic: npt.NDArray[np.bool_]
    """Whether a fake is to be made of this (real) face."""
    labels: npt.NDArray[np.float32]
    """1 fake, 0 real; 0 for an unknown label."""
    weights: npt.NDArray[np.float32]
    """Weight in the loss; 0 for an unknown label."""
    windows: Rows
    """Where each window begins and, last, where the lane ends. A shard's faces of this lane lie in one window."""

    def __len__(self) -> int:
        """Faces."""
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """One pass over the faces. Step s takes the faces s * lane_batch to (s + 1) * lane_batch of each lane."""

    lanes: Sequence[Lane]
    lane_batch: int
    """Faces of one lane in a global batch."""
    pool: Rows
    """All faces that any epoch of the run may draw, ascending: what is worth keeping of a shard."""
    total_weights: npt.NDArray[np.float64]
    """Sum of weights of each step's global batch, shape (steps,)."""

    @property
    def steps(self) -> int:
        """Global batches; the same on every worker."""
        return len(self.total_weights)

    @property
    def batch_size(self) -> int:
        """Places of a global batch."""
        return self.lane_batch * len(self.lanes)

    @property
    def faces(self) -> int:
        """Faces of all lanes."""
        return sum(map(len, self.lanes))

    def owned(self, rank: int, workers: int) -> range:
        """The lanes that a worker reads: neighbours, since they share the shards at their ends.

        Raises ValueError if there are more workers than lanes, or no such rank.
        """
        if not 0 <= rank < workers:
            raise ValueError(f"worker: got rank {rank} of {workers}, expected 0 to {workers - 1}")
        if workers > len(self.lanes):
            raise ValueError(
                f"workers: got {workers}, expected at most {len(self.lanes)} with batches of {self.batch_size} faces: "
                f"a batch is shared out in gcd(batch size, {MAX_LANES}) equal parts"
            )
        return owned_lanes(len(self.lanes), rank, workers)

    def places(self, workers: int) -> int:
        """Places of each worker's part of a batch, the same for all workers: some stay empty on an uneven share."""
        return -(-len(self.lanes) // workers) * self.lane_batch


def owned_lanes(lanes: int, rank: int, workers: int) -> range:
    """A worker's share of so many lanes: neighbours, the first workers one more where it does not come out even."""
    each, more = divmod(lanes, workers)
    first = rank * each + min(rank, more)
    return range(first, first + each + (rank < more))


def plan_epoch(index: FaceIndex, rows: Rows, options: DataOptions, epoch: int) -> EpochPlan:
    """The order of one epoch of training over the faces `rows` of a split.

    Shards lie in an order fixed by the seed, so that a worker meets nearly the same ones in each epoch. Within a lane
    they come in an order drawn for the epoch, some at a time (a window), and the faces of a window are shuffled. Each
    face comes at most once (with `self-blended`: once as itself, and once as a fake at the next place of its batch).

    Raises ValueError for rows out of range or given twice, an unlabelled face, and a class without faces.
    """
    reals, fakes = _pool(index, rows, options)
    drawn = _drawn(reals, fakes, options, epoch)
    shards = index.table["shard"].to_numpy()
    rank = np.random.default_rng([options.seed, _SHARDS]).permutation(len(index.shards))
    laid = drawn[np.lexsort((drawn, rank[shards[drawn]]))]
    weights = _class_weights(reals, fakes, options)
    lanes = []
    for number, part in enumerate(np.array_split(laid, options.lanes)):
        rng = np.random.default_rng([options.seed, _ORDER, epoch, number])
        ordered, windows = _shuffled(part, shards[part], WINDOW_FACES // options.lanes, rng)
        labels = index.labels[ordered].astype(np.float32)
        lane = Lane(
            rows=ordered, synthetic=np.zeros(len(part), np.bool_), labels=labels,
            weights=weights[labels.astype(np.int64)], windows=windows,
        )  # fmt: skip
        lanes.append(_paired(lane) if options.synthetic == "self-blended" else lane)
    return _plan(lanes, options.batch_size // options.lanes, np.sort(np.concatenate([reals, fakes])))


def lacks_fakes(index: FaceIndex, rows: Rows, options: DataOptions) -> bool:
    """Whether these are to be judged with fakes made of them, since there are no others: `plan_scan(blended=True)`."""
    return options.synthetic == "self-blended" and not bool((index.labels[rows] == 1).any())


def plan_scan(index: FaceIndex, rows: Rows, batch_size: int, *, blended: bool = False, even: bool = False) -> EpochPlan:
    """Each of `rows` exactly once, for validation and prediction: no shuffle, every weight 1.

    With `even`, both classes' weights sum to the same and the mean weight is 1: the odds that `balance` trains with.

    With `blended`, which takes real faces and an even batch, each comes twice: as itself (label 0), then as a fake made
    of it (label 1), the same one in each pass.

    Each lane holds its faces in the order of the index; which face stands at which place of a batch is in
    `Batch.rows`. An unlabelled face has weight 0, but its row is given: only a place without a face is `UNUSED`.

    Raises ValueError for rows out of range or given twice, no rows at all, and a batch of no faces.
    """
    if batch_size < 1:
        raise ValueError(f"batch size: got {batch_size}, expected at least 1")
    ordered = _checked(index, rows)
    shards, labels = index.table["shard"].to_numpy(), index.labels
    if blended and (batch_size % 2 or (labels[ordered] != 0).any()):
        raise ValueError(f"self-blended scan: got batches of {batch_size}, expected even ones, of real faces alone")
    count = math.gcd(batch_size // 2 if blended else batch_size, MAX_LANES)
    weights = _scan_weights(labels[ordered], even=even)
    lanes = []
    for part in np.array_split(ordered, count):
        known = labels[part]
        lane = Lane(
            rows=part, synthetic=np.zeros(len(part), np.bool_), labels=np.maximum(known, 0).astype(np.float32),
            weights=weights[known], windows=_windows(shards[part], WINDOW_FACES // count),
        )  # fmt: skip
        lanes.append(_paired(lane) if blended else lane)
    return _plan(lanes, batch_size // count, ordered)


def _checked(index: FaceIndex, rows: Rows) -> Rows:
    """The rows in ascending order."""
    ordered = np.sort(np.asarray(rows, np.int64))
    faces = index.table.num_rows
    if not len(ordered):
        raise ValueError("no faces: got 0 rows, expected at least 1")
    if ordered[0] < 0 or ordered[-1] >= faces:
        raise ValueError(f"faces: got rows {ordered[0]} to {ordered[-1]}, expected 0 to {faces - 1}")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise ValueError(f"faces: got row {twice[0]} more than once, expected each at most once")
    return ordered


def _pool(index: FaceIndex, rows: Rows, options: DataOptions) -> tuple[Rows, Rows]:
    """Reals and fakes that the run draws from, ascending; without fakes where they are made."""
    ordered = _checked(index, rows)
    labels = index.labels[ordered]
    unknown = ordered[labels < 0]
    if len(unknown):
        face = index.table["face"][int(unknown[0])].as_py()
        raise ValueError(f"{len(unknown)} faces have no label (first: {face}), expected 0 (real) or 1 (fake) to train")
    reals, fakes = ordered[labels == 0], ordered[labels == 1]
    if options.synthetic == "self-blended":
        if not len(reals):
            raise ValueError("no real faces: got 0, expected at least 1 to make fakes of")
    elif not len(reals) or not len(fakes):
        raise ValueError(f"faces of one class: got {len(reals)} real and {len(fakes)} fake, expected some of both")
    of_reals, of_fakes = pool_faces(len(reals), len(fakes), options)
    return _some(reals, of_reals, options.seed), _some(fakes, of_fakes, options.seed)


def pool_faces(real: int, fake: int, options: DataOptions) -> tuple[int, int]:
    """How many reals and fakes of a split with so many a run draws its epochs from; no fakes where they are made."""
    most = options.max_faces
    if options.synthetic == "self-blended":  # each real counts twice
        return (real if most is None else min(real, max(1, most // 2))), 0
    if most is None:
        return real, fake
    fakes = min(fake, max(most // 2, most - real))
    return min(real, most - fakes), fakes


def _some(rows: Rows, count: int, seed: int) -> Rows:
    """At most `count` of them, ascending."""
    if len(rows) <= count:
        return rows
    drawn: Rows = np.sort(np.random.default_rng([seed, _POOL]).choice(rows, count, replace=False))
    return drawn


def _drawn(reals: Rows, fakes: Rows, options: DataOptions, epoch: int) -> Rows:
    """The faces of one epoch."""
    if options.synthetic == "none" and options.balance == "downsample":
        smaller = min(len(reals), len(fakes))
        rng = np.random.default_rng([options.seed, _CLASSES, epoch])
        reals, fakes = (rng.choice(rows, smaller, replace=False) for rows in (reals, fakes))
    return np.concatenate([reals, fakes])


def _class_weights(reals: Rows, fakes: Rows, options: DataOptions) -> npt.NDArray[np.float32]:
    """Of a real and of a fake face."""
    if options.synthetic == "none" and options.balance == "weights":
        return _even_weights(np.array([len(reals), len(fakes)], np.float64))
    return np.ones(2, np.float32)


def _scan_weights(labels: npt.NDArray[np.int8], *, even: bool) -> npt.NDArray[np.float32]:
    """Of a real, of a fake, and (at place -1) of an unlabelled face."""
    counts = np.bincount(labels[labels >= 0], minlength=2).astype(np.float64)
    known = _even_weights(counts) if even and counts.all() else np.ones(2, np.float32)
    return np.append(known, np.float32(0))


def _even_weights(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """By class, so that both sum to the same and the mean weight is 1."""
    return np.asarray(counts.sum() / (2 * counts), np.float32)


def _shuffled(part: Rows, shards: Rows, window: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """A lane's faces with its shards in random order and each window's faces shuffled; and the windows."""
    rank = rng.permutation(int(shards.max()) + 1) if len(shards) else shards
    order = np.argsort(rank[shards], kind="stable") if len(shards) else shards
    windows = _windows(shards[order], window)
    for start, end in itertools.pairwise(windows.tolist()):
        order[start:end] = rng.permutation(order[start:end])
    return part[order], windows


def _windows(shards: Rows, least: int) -> Rows:
    """Where windows begin, and the end: whole runs of one shard, as many as make `least` faces."""
    changes = np.flatnonzero(np.diff(shards)) + 1
    starts = [0]
    for change in changes:
        if change - starts[-1] >= least:
            starts.append(int(change))
    return np.array([*starts, len(shards)] if len(shards) else [0], np.int64)


def _paired(lane: Lane) -> Lane:
    """Each real face twice: as itself, then as the fake that is made of it."""
    synthetic = np.tile([False, True], len(lane))
    return Lane(
        rows=np.repeat(lane.rows, 2), synthetic=synthetic, labels=synthetic.astype(np.float32),
        weights=np.repeat(lane.weights, 2), windows=2 * lane.windows,
    )  # fmt: skip


def _plan(lanes: Sequence[Lane], lane_batch: int, pool: Rows) -> EpochPlan:
    """With the weight of each step."""
    steps = -(-max(map(len, lanes)) // lane_batch)
    totals = np.zeros(steps)
    for lane in lanes:
        np.add.at(totals, np.arange(len(lane)) // lane_batch, lane.weights.astype(np.float64))
    return EpochPlan(lanes=tuple(lanes), lane_batch=lane_batch, pool=pool, total_weights=totals)
