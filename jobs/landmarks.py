"""Landmarks of the faces that training makes fakes of, found on a Ray cluster once and kept under OUTPUT.

No command of its own: `fakesift train --synthetic self-blended` calls it before it trains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.model.landmarks import KEY, find_in_shard, write_landmarks
from batch.model.plan import Rows
from batch.model.records import FaceIndex, Shard
from batch.storage.base import Storage
from jobs.console import say
from jobs.fanout import fan_out
from jobs.identities import by_shard, in_shard


def keep_landmarks(ray: Any, index: FaceIndex, rows: Rows, output: Storage, workers: int | None = None) -> None:
    """Finds the landmarks of the real faces at `rows`, a shard a task, unless OUTPUT has them. 5 ms of CPU a face.

    Raises:
        ValueError: for a shard that is not the one that was committed, or a crop that is damaged.
        RuntimeError: where Ray gave up.
    """
    if output.exists(KEY):
        return
    real = np.sort(rows[index.labels[rows] == 0])
    say(f"finding landmarks of {len(real)} real faces")
    items = [(shard, *in_shard(index, here)) for shard, here in by_shard(index, real)]
    task = ray.remote(num_cpus=1, max_retries=5)(_find)
    write_landmarks(output, list(fan_out(ray, task, (), items, workers)))


def _find(item: tuple[Shard, pa.Array, npt.NDArray[np.int64]]) -> pa.Table:
    shard, faces, rows = item
    return find_in_shard(shard, faces, rows)
