"""A plan in, batches of decoded faces out: a worker's part of each global batch, read ahead and decoded in threads.

Memory is bounded, whatever the corpus: two windows of encoded crops for each lane that the worker owns (a window is
some shards' worth, at least 4,096 faces over all lanes: 400 MB at 224 pixels on one worker), `PREFETCH` decoded
batches, what lanes of one worker share of a shard, and what `DataOptions.cache` keeps.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from batch.model.crops import Crops, CropSource, CropStore
from batch.model.draws import DRAWS, JPEG, draw, identity
from batch.model.jpeg import recompress
from batch.model.landmarks import Landmarks
from batch.model.plan import DataOptions, EpochPlan, Lane, Rows
from batch.model.records import UNUSED, Batch, FaceIndex
from batch.model.self_blended import self_blend
from batch.records import RgbImage
from batch.storage.scratch import sweep_scratch

PREFETCH = 4
"""Batches that are being decoded while the network works on one."""
_FETCHERS = 8
"""Shards read at a time, for stores that answer late."""
Fetched = Crops | Mapping[int, RgbImage]


class FaceReader:
    """Reads the faces of an index. One reader serves several plans, one after another or side by side."""

    def __init__(
        self,
        index: FaceIndex,
        options: DataOptions,
        rank: int = 0,
        workers: int = 1,
        *,
        threads: int | None = None,
        landmarks: Landmarks | None = None,
        source: CropSource | None = None,
    ) -> None:
        """For worker `rank` of `workers`; `threads` decode (default: one a core). Reads nothing yet.

        `landmarks` are needed for self-blended faces alone; those that are not known yet are computed on the way.
        `source` stands in for the shards, as pixels that are in memory already; it decides what is kept, not `cache`.
        """
        # Faces that a killed training kept on this disk; another one may keep none there.
        sweep_scratch()
        # OpenCV's own threads would fight with ours over the cores.
        cv2.setNumThreads(1)
        self._index, self._options = index, options
        self._rank, self._workers = rank, workers
        self._threads = threads or os.cpu_count() or 1
        self.landmarks: Landmarks = Landmarks(index) if landmarks is None else landmarks
        """Of the faces that were blended so far, and those that were given."""
        self._store: CropSource = source or CropStore(index, options.cache, options.cache_mb)
        self.side: int = index.face_options.crop.crop_size
        """Of the crops, in pixels."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    def close(self) -> None:
        """Lets go of what was cached."""
        self._store.close()

    def batches(self, plan: EpochPlan, epoch: int, *, start_step: int = 0, training: bool) -> Iterator[Batch]:
        """A worker's part of each global batch from `start_step` on, all of one shape: `plan.places(workers)`.

        With `training`, faces get their augmentation draws of `epoch` and JPEG; without, they come as they are. A
        consumer that stops early closes the generator (or lets go of it), which ends its threads.

        Raises ValueError for a step that the plan does not have, more workers than lanes, and a shard that is not as
        committed: names the shard's address, the row, what was found and what was expected.
        """
        lanes = [plan.lanes[number] for number in plan.owned(self._rank, self._workers)]
        if not 0 <= start_step <= plan.steps:
            raise ValueError(f"step: got {start_step}, expected 0 to {plan.steps}")
        return self._batches(plan, lanes, epoch, start_step, training)

    def images(self, rows: Rows, made: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint8]:
        """The crops at `rows` in RGB, shape (n, side, side, 3), in that order. For pictures in reports.

        Where `made`, the fake that a scan makes of the crop.
        """
        crops = self._store.load(np.unique(rows), rows[:0])
        out = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for place, row in enumerate(rows.tolist()):
            face = self._decoded(row, crops[row])
            out[place] = face if made is None or not made[place] else self._blended(row, face, 0)
        return out

    def _batches(
        self, plan: EpochPlan, lanes: list[Lane], epoch: int, start_step: int, training: bool
    ) -> Iterator[Batch]:
        fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fakesift-fetch")
        decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="fakesift-decode")
        keep = self._kept(plan, lanes)
        feeds = [_Feed(lane, lambda rows: fetchers.submit(self._store.load, rows, keep)) for lane in lanes]
        ahead: deque[_Pending] = deque()
        try:
            for step in range(start_step, plan.steps):
                ahead.append(self._start(plan, feeds, step, epoch, training, decoders))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().finished()
            while ahead:
                yield ahead.popleft().finished()
        finally:
            # Decoders first: they may be waiting for a fetch, which must then come to its end.
            decoders.shutdown(wait=False, cancel_futures=True)
            fetchers.shutdown(wait=True, cancel_futures=True)
            decoders.shutdown(wait=True)
            if self._options.cache != "memory":
                self._store.forget(keep)

    def _kept(self, plan: EpochPlan, lanes: list[Lane]) -> Rows:
        """What stays in memory of the shards that are read: all that may come again, or what another lane waits for."""
        if self._options.cache == "memory":
            return plan.pool
        shards = self._index.table["shard"].to_numpy()
        uses = np.concatenate([np.unique(shards[lane.rows]) for lane in lanes])
        shared = np.flatnonzero(np.bincount(uses, minlength=len(self._index.shards)) > 1)
        rows = np.unique(np.concatenate([lane.rows for lane in lanes]))
        return rows[np.isin(shards[rows], shared)]

    def _start(
        self, plan: EpochPlan, feeds: list[_Feed], step: int, epoch: int, training: bool, pool: ThreadPoolExecutor
    ) -> _Pending:
        """A batch with all but its pictures, and the work that fills those in."""
        batch = _empty(plan.places(self._workers), self.side, float(plan.total_weights[step]))
        work = []
        for number, feed in enumerate(feeds):
            lane, first = feed.lane, step * plan.lane_batch
            for part, crops in feed.take(slice(first, min(first + plan.lane_batch, len(lane)))):
                start = number * plan.lane_batch + part.start - first
                places = slice(start, start + part.stop - part.start)
                batch.rows[places], batch.labels[places] = lane.rows[part], lane.labels[part]
                batch.weights[places] = lane.weights[part]
                work.append((places, crops, lane.synthetic[part]))
        if training:
            used = batch.rows != UNUSED  # once a batch: a call takes 0.3 ms, whether for 2 faces or for 100
            batch.draws[used] = draw(self._options.augment, self._options.seed, epoch, batch.rows[used])
        return _Pending(batch=batch, tasks=[pool.submit(self._fill, batch, *each, epoch) for each in work])

    def _fill(
        self, batch: Batch, places: slice, fetched: Future[Fetched], synthetic: npt.NDArray[np.bool_], epoch: int
    ) -> None:
        """Decodes a lane's pictures into their places, and makes the fakes that are made here."""
        crops = fetched.result()
        decoded, face = UNUSED, batch.images[0]
        for place, is_made in zip(range(places.start, places.stop), synthetic, strict=True):
            row = int(batch.rows[place])
            if row != decoded:  # a fake follows the face that it is made of
                decoded, face = row, self._decoded(row, crops[row])
            image = self._blended(row, face, epoch) if is_made else face
            quality = int(batch.draws[place, JPEG])
            batch.images[place] = recompress(image, quality) if quality else image

    def _blended(self, row: int, face: RgbImage, epoch: int) -> RgbImage:
        """The fake of an epoch (0: of scans) that is made of a face."""
        rng = np.random.default_rng([self._options.seed, epoch, row])
        return self_blend(face, self.landmarks.of(row, face), rng)

    def _decoded(self, row: int, crop: bytes | RgbImage) -> RgbImage:
        """RGB pixels, or an error that names the face."""
        if not isinstance(crop, bytes):
            return crop
        image = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR_RGB)
        expected = (self.side, self.side, 3)
        if image is None or image.shape != expected:
            got = f"{len(crop)} bytes that are no picture" if image is None else f"a crop of shape {image.shape}"
            place = self._index.table.slice(row, 1).select(["shard", "row", "face"]).to_pylist()[0]
            shard = self._index.shards[place["shard"]]
            raise ValueError(
                f"{shard.sink.uri(shard.key)}: row {place['row']} ({place['face']}): got {got}, expected {expected}"
            )
        return np.asarray(image, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A batch that is being filled."""

    batch: Batch
    tasks: list[Future[None]]

    def finished(self) -> Batch:
        """Waits; raises what went wrong in a task."""
        for task in self.tasks:
            task.result()
        return self.batch


class _Feed:
    """The encoded crops of a lane, this window and the next in memory or on their way."""

    def __init__(self, lane: Lane, fetch: Callable[[Rows], Future[Fetched]]) -> None:
        self.lane, self._fetch = lane, fetch
        self._loaded: dict[int, Future[Fetched]] = {}

    def take(self, part: slice) -> Iterator[tuple[slice, Future[Fetched]]]:
        """The faces of a slice of the lane, window by window, which must not lie before an earlier slice."""
        windows, position = self.lane.windows, part.start
        while position < part.stop:
            number = int(np.searchsorted(windows, position, side="right")) - 1
            end = min(part.stop, int(windows[number + 1]))
            yield slice(position, end), self._window(number)
            position = end

    def _window(self, number: int) -> Future[Fetched]:
        windows = self.lane.windows
        for each in (number, number + 1):
            if each < len(windows) - 1 and each not in self._loaded:
                self._loaded[each] = self._fetch(np.unique(self.lane.rows[windows[each] : windows[each + 1]]))
        for past in [each for each in self._loaded if each < number]:
            del self._loaded[past]
        return self._loaded[number]


def _empty(places: int, side: int, total_weight: float) -> Batch:
    """A batch with no face in it."""
    return Batch(
        images=np.zeros((places, side, side, 3), np.uint8),
        labels=np.zeros(places, np.float32),
        weights=np.zeros(places, np.float32),
        draws=identity(places).reshape(places, DRAWS),
        rows=np.full(places, UNUSED, np.int64),
        total_weight=total_weight,
    )
