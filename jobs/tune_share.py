"""What is computed once for many trials, into Ray's object store: decoded faces, and features of frozen networks.

Processes of a node read such blocks in place; Ray copies a block to another node the first time that it is asked for
there. What would not fit is not shared: its trials read shards by themselves, and compute their own features.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from batch.model.landmarks import KEY
from batch.model.plan import DataOptions, Rows
from batch.model.records import FaceIndex
from batch.model.tuning.recipe import Recipe
from batch.model.tuning.sharing import FeatureGroup, faces_of, feature_groups
from batch.storage.base import Storage, StorageError
from jobs.console import say
from jobs.landmarks import keep_landmarks
from jobs.predict import keras_environment
from jobs.session import alive_nodes
from jobs.tune_options import Resources
from jobs.tune_trial import SharedBlocks, shared_landmarks

FACES_SHARE, FEATURES_SHARE = 0.5, 0.3
"""Of the smallest node's object store: 3.5 GB of a machine with 23 GB hold 23,000 faces of 224 pixels."""
_FACES_A_BLOCK = 512
_FEATURES_A_BLOCK = 256
_CPU_BATCH, _GPU_BATCH = 32, 128
_WIDEST = 4096
"""Features a face that are reckoned with before any was computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedData:
    """What trials may take, and what it cost to make."""

    faces: SharedBlocks | None = None
    features: Mapping[str, Mapping[int, SharedBlocks]]
    seconds: float = 0.0
    """Of all tasks, where each held `Resources`: features alone."""


def share(
    ray: Any,
    index: FaceIndex,
    train: Rows,
    validation: Rows,
    recipes: Sequence[Recipe],
    resources: Resources,
    what: str,
    landmarks: Any = None,
) -> SharedData:
    """Decodes and computes what the trials of these recipes have in common, as far as it fits.

    Args:
        ray: the module, in a session.
        index: of all faces.
        train: rows of that split.
        validation: rows of that split.
        recipes: of all trials that may run.
        resources: of a trial, and of a task that computes features.
        what: `all`, `pixels` or `none`.
        landmarks: by `share_landmarks`.

    Raises:
        RuntimeError: for a crop that is damaged.
    """
    if what == "none" or not recipes:
        return SharedData(features={})
    room = _smallest_store(ray, resources)
    rows = faces_of(index, train, validation, recipes)
    side = index.face_options.crop.crop_size
    shared_index = ray.put(index)
    faces = None
    if len(rows) * side * side * 3 <= FACES_SHARE * room:
        faces = _decode(ray, shared_index, rows)
    else:
        say(f"{len(rows)} faces are more than memory holds: trials read them from their shards")
    if what != "all":
        return SharedData(faces=faces, features={})
    found: dict[str, Mapping[int, SharedBlocks]] = {}
    seconds, left = 0.0, FEATURES_SHARE * room
    for name, group in feature_groups(index, train, validation, recipes).items():
        if group.faces * _WIDEST * 4 > left:
            say(f"features of {group.network.model} for {group.faces} faces are more than memory holds: not shared")
            continue
        left -= group.faces * _WIDEST * 4
        maker = _Maker(
            group=group, backend=recipes[0].fit.backend, faces=faces, landmarks=landmarks,
            batch_size=_GPU_BATCH if resources.gpus else _CPU_BATCH,
        )  # fmt: skip
        found[name], took = _compute(ray, shared_index, maker, resources)
        seconds += took
    return SharedData(faces=faces, features=found, seconds=seconds)


def share_landmarks(ray: Any, index: FaceIndex, train: Rows, output: Storage, recipes: Sequence[Recipe]) -> Any:
    """Finds the landmarks of real faces as `fakesift train` does, once for all trials and calls of the job.

    Returns:
        A reference to their table; None where no recipe makes fakes of its own.
    """
    if not any(recipe.data.synthetic == "self-blended" for recipe in recipes):
        return None
    keep_landmarks(ray, index, train, output)
    return ray.put(pq.read_table(io.BytesIO(output.read(KEY))))


def _decode(ray: Any, index: Any, rows: Rows) -> SharedBlocks:
    task = ray.remote(num_cpus=1, max_retries=3, num_returns=2)(_decoded)
    parts = np.array_split(rows, max(1, math.ceil(len(rows) / _FACES_A_BLOCK)))
    say(f"decoding {len(rows)} faces, once for all trials")
    pairs = [task.remote(index, part) for part in parts]
    _await(ray, [count for _, count in pairs])
    return SharedBlocks(ids=rows, blocks=[block for block, _ in pairs])


def _compute(ray: Any, index: Any, maker: _Maker, resources: Resources) -> tuple[Mapping[int, SharedBlocks], float]:
    group = maker.group
    environment = {"env_vars": keras_environment(maker.backend, resources.gpus, resources.cores)}
    task = ray.remote(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=3, num_returns=2, runtime_env=environment
    )(_features)
    say(f"features of {group.network.model} for {group.faces} faces, epochs counted, once for all heads")
    shared_maker = ray.put(maker)
    found: dict[int, SharedBlocks] = {}
    clocks: list[Any] = []
    for epoch, ids in group.ids.items():
        parts = np.array_split(ids, max(1, math.ceil(len(ids) / _FEATURES_A_BLOCK)))
        pairs = [task.remote(index, shared_maker, epoch, part) for part in parts]
        found[epoch] = SharedBlocks(ids=ids, blocks=[block for block, _ in pairs])
        clocks += [clock for _, clock in pairs]
    _await(ray, clocks)
    return found, float(sum(ray.get(clocks)))


def _await(ray: Any, references: list[Any]) -> None:
    """Until all of these small answers are there. An error of one ends the job: no trial could do better."""
    left, total, told = references, len(references), 0
    while left:
        ready, left = ray.wait(left)
        try:
            ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, (ValueError, StorageError)):
                raise RuntimeError(f"stopped: {cause}") from error
            raise
        done = 10 * (total - len(left)) // total
        if done > told and left:
            told = done
            say(f"  {total - len(left)} of {total} blocks")


def _smallest_store(ray: Any, resources: Resources) -> float:
    """Bytes of the smallest object store of the nodes that can run a trial, the first of which may be yet to come.

    A head that runs no trials does not count: on a cluster that starts from nothing it is small, and all there is.
    """
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=-1)(_nothing)
    ray.get(task.remote())
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    nodes = [node["Resources"] for node in alive_nodes(ray)]
    able = [node for node in nodes if all(node.get(name, 0.0) >= amount for name, amount in wanted.items())]
    return float(min(node.get("object_store_memory", 0.0) for node in able or nodes))


def _nothing() -> None:
    """A task that ends at once: it tells that a node has room."""


def _decoded(index: FaceIndex, rows: Rows) -> tuple[npt.NDArray[np.uint8], int]:
    from batch.model.reader import FaceReader

    with FaceReader(index, DataOptions(cache="none"), threads=1) as reader:
        return reader.images(rows), len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """What a process needs to compute features."""

    group: FeatureGroup
    backend: str
    batch_size: int
    faces: SharedBlocks | None
    landmarks: Any


_STEPS: dict[tuple[Any, bool], Callable[..., Any]] = {}
"""Compiled networks of this worker process, with and without augmentation: those of one group."""


def _features(index: FaceIndex, maker: _Maker, epoch: int, ids: Rows) -> tuple[npt.NDArray[np.float32], float]:
    import time

    import ray

    from batch.model.crops import DecodedFaces
    from batch.model.fit.frozen import PLAIN, compute_features
    from batch.model.reader import FaceReader
    from jobs.fitting import use_threads

    started = time.monotonic()
    network, data = maker.group.network, maker.group.data
    augmented = epoch != PLAIN and data.augment != "none"
    key = (network, data.augment, index.face_options.crop.crop_size)
    if (key, augmented) not in _STEPS:
        if not any(held == key for held, _ in _STEPS):
            _STEPS.clear()
            use_threads(maker.backend)
        _STEPS[(key, augmented)] = _step(maker, index.face_options.crop.crop_size, augmented=augmented)
    source = None
    if maker.faces is not None:
        source = DecodedFaces(maker.faces.ids, ray.get(list(maker.faces.blocks)))
    landmarks = shared_landmarks(maker.landmarks, index) if data.synthetic == "self-blended" else None
    with FaceReader(index, data, source=source, landmarks=landmarks) as reader:
        found = compute_features(_STEPS[(key, augmented)], reader, ids, epoch, maker.batch_size)
    return found, time.monotonic() - started


def _step(maker: _Maker, side: int, *, augmented: bool) -> Callable[..., Any]:
    from batch.model.augment import augmentation
    from batch.model.fit.frozen import trunk_step

    return trunk_step(maker.group.network, side, augmentation(maker.group.data.augment) if augmented else None)
