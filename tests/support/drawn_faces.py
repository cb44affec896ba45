"""Batches of drawn squares that a small network learns within seconds, as any worker of a run reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from batch.model.fit.feed import Pass
from batch.model.plan import owned_lanes
from batch.model.records import UNUSED, Batch


@dataclass(frozen=True, kw_only=True)
class DrawnFeed:
    """Faces 0 to `count`, every second one fake (a checkerboard under noise); lanes as uneven as `lanes` says.

    Each worker reads neighbouring lanes, as `batch.model.plan` deals them; lanes that ran dry leave empty places filled
    with noise, which must not matter.
    """

    lanes: tuple[int, ...] = (11, 11, 11, 11)
    """Faces of each lane."""
    lane_batch: int = 2
    rank: int = 0
    workers: int = 1
    side: int = 32
    held_out: bool = True
    seed: int = 0

    def training(self, epoch: int) -> Pass:
        """Lanes in an order drawn for the epoch."""
        return self._pass(np.random.default_rng([self.seed, 1, epoch]))

    def validation(self) -> Pass | None:
        """Other faces, each once."""
        return self._pass(np.random.default_rng([self.seed, 2]), first=10_000) if self.held_out else None

    def _pass(self, rng: np.random.Generator, first: int = 0) -> Pass:
        starts = np.cumsum((first, *self.lanes))
        rows = [
            rng.permutation(np.arange(start, start + size)) for start, size in zip(starts, self.lanes, strict=False)
        ]
        steps = -(-max(self.lanes) // self.lane_batch)

        def batches(start_step: int) -> Iterator[Batch]:
            for step in range(start_step, steps):
                yield self._batch([lane[step * self.lane_batch :][: self.lane_batch] for lane in rows])

        return Pass(steps=steps, faces=sum(self.lanes), batches=batches)

    def _batch(self, taken: list[np.ndarray]) -> Batch:
        places = -(-len(self.lanes) // self.workers) * self.lane_batch
        rows = np.full(places, UNUSED, np.int64)
        for place, number in enumerate(owned_lanes(len(taken), self.rank, self.workers)):
            lane = taken[number]
            rows[place * self.lane_batch : place * self.lane_batch + len(lane)] = lane
        weights = (rows != UNUSED).astype(np.float32) * (1 + rows % 3)
        return Batch(
            images=np.stack([face(int(row), self.side) for row in rows]),
            labels=(rows % 2 * (rows != UNUSED)).astype(np.float32),
            weights=weights.astype(np.float32),
            draws=np.zeros((places, 1), np.float32),
            rows=rows,
            total_weight=float(sum((1 + lane % 3).sum() for lane in taken)),
        )


def face(row: int, side: int) -> np.ndarray:
    """A colour under noise; for odd rows with a checkerboard of 2 x 2 pixels."""
    rng = np.random.default_rng([7, row + 1])
    image = rng.integers(60, 160, 3) + rng.normal(0, 8, (side, side, 3))
    if row % 2:
        image += 40 * np.kron(np.indices((side // 2, side // 2)).sum(axis=0) % 2, np.ones((2, 2)))[:, :, None]
    return image.clip(0, 255).astype(np.uint8)
