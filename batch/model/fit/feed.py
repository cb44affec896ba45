"""Where the loop's batches come from: a plan and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from batch.model.plan import DataOptions, EpochPlan, Rows, lacks_fakes, plan_epoch, plan_scan
from batch.model.reader import FaceReader
from batch.model.records import Batch, FaceIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One worker's part of one pass over faces. Every worker has as many steps."""

    steps: int
    faces: int
    """Over all workers."""
    batches: Callable[[int], Iterator[Batch]]
    """The batches from this step on."""


class Feed(Protocol):
    """What a run trains and validates on."""

    side: int
    """Of the crops, in pixels."""

    def training(self, epoch: int) -> Pass:
        """The epoch's batches, the same at each call."""

    def validation(self) -> Pass | None:
        """Each validation face once; None for a run without validation."""


class ReaderFeed:
    """Faces of a split through `FaceReader`."""

    def __init__(
        self, reader: FaceReader, index: FaceIndex, train: Rows, validation: Rows | None, options: DataOptions
    ) -> None:
        """`train` and `validation` are rows of the index; the reader knows this worker's rank."""
        self.side = reader.side
        self._reader, self._index, self._options = reader, index, options
        self._train, self._held_out = train, validation

    def training(self, epoch: int) -> Pass:
        """See `Feed`."""
        return self._pass(plan_epoch(self._index, self._train, self._options, epoch), epoch, training=True)

    def validation(self) -> Pass | None:
        """See `Feed`."""
        return None if self._scan is None else self._pass(self._scan, 0, training=False)

    def scan(self, rows: Rows) -> Pass:
        """Each of these faces once, as validation sees them: for `FitResult.score`.

        Where self-blended fakes are trained on and these are all real, each comes as a fake made of it as well.
        """
        return self._pass(self._planned(rows), 0, training=False)

    @cached_property
    def _scan(self) -> EpochPlan | None:
        if self._held_out is None or not len(self._held_out):
            return None
        return self._planned(self._held_out)

    def lacks_fakes(self, rows: Rows) -> bool:
        """Whether `scan` makes fakes of these."""
        return lacks_fakes(self._index, rows, self._options)

    def _planned(self, rows: Rows) -> EpochPlan:
        return plan_scan(
            self._index, rows, self._options.batch_size, blended=self.lacks_fakes(rows),
            even=self._options.balance != "none",
        )  # fmt: skip

    def _pass(self, plan: EpochPlan, epoch: int, *, training: bool) -> Pass:
        def batches(start_step: int) -> Iterator[Batch]:
            return self._reader.batches(plan, epoch, start_step=start_step, training=training)

        return Pass(steps=plan.steps, faces=plan.faces, batches=batches)
