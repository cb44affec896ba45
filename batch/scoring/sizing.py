"""Some items scored, what a night of many will take: measured means, and what follows from them."""

from __future__ import annotations

import hashlib
import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean

import numpy as np
import numpy.typing as npt

from batch.corpus.sizing import KEYS_A_LISTING, standard_error, working_seconds
from batch.faces.isolate import IsolatedExtractor
from batch.records import VideoRef, VideoResult
from batch.scoring.digests import fingerprint
from batch.scoring.listing import media_of
from batch.scoring.look import pixels
from batch.scoring.units import UNIT_FRAMES
from batch.storage.base import Storage

MOST_HELD_CROPS = 256
"""Crops of the sample that the model is timed on."""
_FEWEST_CALLS, _MOST_CALLS, _ENOUGH_S = 4, 50, 1.0
_PUTS_A_UNIT = 3
_GETS_A_UNIT = 2  # before its commit a unit looks whether its run still holds OUTPUT; the close reads the commit


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSample:
    """Means over the items of a sample."""

    items: int
    with_face: float
    """Share of the items."""
    seconds: float
    """Of one CPU an item: opening, decoding, finding and cropping, and what of reading was waited for."""
    seconds_error: float
    """Standard error of that mean; not known (nan) for one item."""
    frames: float
    """That an item counts as where units are cut."""
    crops: float
    bytes_read: float
    requests: float
    """Fingerprints, by which copies are recognised, included in both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSample:
    """The network by itself, in one process."""

    device: str
    gpu: bool
    cpus: int
    """That it had."""
    crops_per_s: float
    error: float
    """Standard error."""
    load_s: float
    """Library, network and golden inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSizing:
    """What a night takes, computed from samples."""

    items: int
    look_cpu_hours: float
    look_cpu_hours_error: float
    """Two standard errors."""
    crops: float
    model_hours: float
    """Of one such process as was measured."""
    model: ModelSample
    bytes_read: float
    get_requests: float
    put_requests: float

    def hours(self, nodes: int, cpus: int, gpus: int, efficiency: float) -> float:
        """Wall time on so many nodes with so many CPUs and GPUs each: extraction and model side by side.

        Without GPUs they share the cores, so their work adds up.
        """
        look = self.look_cpu_hours / (nodes * cpus * efficiency)
        if self.model.gpu:
            busy = max(look, self.model_hours / (nodes * max(1, gpus) * efficiency))
        else:
            busy = look + self.model_hours * self.model.cpus / (nodes * cpus * efficiency)
        return busy + self.model.load_s / 3600


def draw_items(items: Iterable[VideoRef], count: int, seed: int) -> list[VideoRef]:
    """A seeded sample, by INPUT and key. Holds the sample in memory, not the listing."""

    def rank(item: VideoRef) -> bytes:
        name = f"{seed}\0{item.part}\0{item.key}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=8).digest()

    return sorted(heapq.nsmallest(count, items, key=rank), key=lambda item: (int(item.part), item.key))


def measure_items(
    items: Sequence[VideoRef], sources: Sequence[Storage], extract: IsolatedExtractor, *, frames: int, side: int
) -> tuple[ItemSample, npt.NDArray[np.uint8]]:
    """Looks at a sample, at its first item twice: the first look also loads the detector. With some of its crops.

    Raises:
        ValueError: for an empty sample.
    """
    if not items:
        raise ValueError("sample: got no item, expected one or more")
    extract(items[0])
    results: list[VideoResult] = []
    read = requests = 0
    for number, of_input in groupby(items, key=lambda item: int(item.part)):
        group = list(of_input)
        extract.announce(group)
        results += [extract(item) for item in group]
        counted = _CountedReads(sources[number])
        for item in group:
            fingerprint(counted, item.key, item.size_bytes, item.etag)  # type: ignore[arg-type]
        read, requests = read + counted.bytes_read, requests + counted.requests
    seconds = [working_seconds(result) for result in results]
    encoded = [face.image for result in results for face in result.faces]
    sample = ItemSample(
        items=len(results),
        with_face=mean(bool(result.faces) for result in results),
        seconds=mean(seconds),
        seconds_error=standard_error(seconds),
        frames=mean(frames if media_of(item.key) == "video" else 1 for item in items),
        crops=len(encoded) / len(results),
        bytes_read=(read + sum(result.cost.bytes_read for result in results)) / len(results),
        requests=(requests + sum(result.cost.requests for result in results)) / len(results),
    )
    return sample, pixels(encoded[:MOST_HELD_CROPS], side)


def measure_model(
    load: Callable[[], tuple[Callable[[npt.NDArray[np.uint8]], object], bool, str]],
    crops: npt.NDArray[np.uint8],
    *,
    batch_size: int,
    cpus: int,
) -> ModelSample:
    """Times a network on crops, repeated to fill its batches: one call that does not count, then some that do.

    Args:
        load: gives the network, whether it computes on a GPU, and the name of the device.
        crops: RGB, uint8, shape (n, side, side, 3), one or more.
        batch_size: of a call.
        cpus: that this process may use.
    """
    start = time.perf_counter()
    predict, gpu, device = load()
    load_s = time.perf_counter() - start
    repeated = np.resize(crops, (batch_size, *crops.shape[1:]))
    predict(repeated)
    seconds: list[float] = []
    while len(seconds) < _FEWEST_CALLS or (len(seconds) < _MOST_CALLS and sum(seconds) < _ENOUGH_S):
        start = time.perf_counter()
        predict(repeated)
        seconds.append(time.perf_counter() - start)
    rate = batch_size / mean(seconds)
    return ModelSample(
        device=device,
        gpu=gpu,
        cpus=cpus,
        crops_per_s=rate,
        error=rate * standard_error(seconds) / mean(seconds),
        load_s=load_s,
    )


def size_scoring(sample: ItemSample, model: ModelSample, items: int, listed: int) -> ScoreSizing:
    """What a night with so many new items takes, of so many objects that its INPUTs list."""
    units = math.ceil(items * sample.frames / UNIT_FRAMES)
    return ScoreSizing(
        items=items,
        look_cpu_hours=sample.seconds * items / 3600,
        look_cpu_hours_error=2 * sample.seconds_error * items / 3600,
        crops=sample.crops * items,
        model_hours=sample.crops * items / model.crops_per_s / 3600,
        model=model,
        bytes_read=sample.bytes_read * items,
        get_requests=sample.requests * items + math.ceil(listed / KEYS_A_LISTING) + _GETS_A_UNIT * units,
        put_requests=float(_PUTS_A_UNIT * units),
    )


class _CountedReads:
    """A store that counts what is read by ranges."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_local = storage.is_local
        self.bytes_read = 0
        self.requests = 0

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """As the store's."""
        data = self._storage.read_range(key, start, length, etag=etag)
        self.bytes_read += len(data)
        self.requests += 1
        return data
