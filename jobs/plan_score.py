"""A bundle and items in, what scoring a night's new ones will take out: `fakesift plan score`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.filesize import decimal

from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import FaceOptions
from batch.model.bundle import Bundle, load_bundle
from batch.model.golden import Runtime
from batch.model.network import gpu_names
from batch.records import VideoRef
from batch.scoring.listing import list_media, refuse_overlaps
from batch.scoring.look import MediaExtractor
from batch.scoring.sizing import (
    ItemSample,
    ModelSample,
    ScoreSizing,
    draw_items,
    measure_items,
    measure_model,
    size_scoring,
)
from batch.storage.base import Storage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, say
from jobs.plan_measure import Cluster, on_cluster
from jobs.plan_options import ScorePlan
from jobs.prices import EFFICIENCY, Prices, read_prices
from jobs.quiet import import_keras
from jobs.runtime import check_runtime, chosen_runtime, runtime_environment

if TYPE_CHECKING:
    from batch.model.predictor import BatchPredictor


@dataclass(slots=True)
class _Listed:
    """Counts what goes by."""

    items: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What the task that looks at items needs."""

    items: Sequence[VideoRef]
    sources: tuple[Storage, ...]
    faces: FaceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What the task that times the network needs."""

    bundle: Bundle
    crops: npt.NDArray[np.uint8]
    options: ScorePlan
    cpus: int
    runtime: Runtime


def plan_score(options: ScorePlan) -> Exit:
    """Measures and prints. Raises `ValueError` or `AccessError` for what is wrong with the input."""
    options.check()
    check_runtime(options.runtime)
    prices = read_prices(options.prices)
    s3 = S3Options(endpoint=options.s3_endpoint)
    bundle = load_bundle(open_storage(options.places[0], s3))
    inputs = tuple(open_storage(each, s3) for each in options.places[1:])
    refuse_overlaps(inputs)
    listed = _Listed()
    items = draw_items(_listing(inputs, listed), options.sample, options.seed)
    if not items:
        raise ValueError(f"inputs {', '.join(each.root for each in inputs)}: no video and no image there")
    say(f"looking at {len(items)} of {listed.items} items")
    look = _Look(items=items, sources=inputs, faces=options.scoring(bundle.face_options).faces)
    places = {"bundle": bundle.sink, **{f"input {number}": each for number, each in enumerate(inputs, 1)}}
    sample, model = on_cluster(options.address, places, lambda cluster: _measured(options, cluster, bundle, look))
    _print_measured(sample, model, listed, options)
    new = listed.items if options.items is None else options.items
    _print_computed(prices, size_scoring(sample, model, new, listed.items), options.nodes)
    return Exit.OK


def _listing(inputs: Sequence[Storage], listed: _Listed) -> Iterator[VideoRef]:
    """All items; an item's `part` holds the number of its INPUT, as `MediaExtractor` takes it."""
    for number, source in enumerate(inputs):
        for each in list_media(source):
            listed.items += 1
            listed.size_bytes += each.size_bytes
            yield VideoRef(
                key=each.key, size_bytes=each.size_bytes, etag=each.etag, part=str(number), label=None,
                source_id=each.key,
            )  # fmt: skip


def _measured(options: ScorePlan, cluster: Cluster, bundle: Bundle, look: _Look) -> tuple[ItemSample, ModelSample]:
    sample, crops = cluster.measured(_look, look)
    runtime = chosen_runtime(options.runtime, cluster.gpus)
    gpus = min(1, cluster.gpus) if runtime == "keras" else 0
    cpus = 1 if gpus else cluster.cpus
    if not len(crops):
        say("no face in any of them: the model is timed on black crops")
        crops = np.zeros((1, *[bundle.face_options.crop.crop_size] * 2, 3), np.uint8)
    work = _Model(bundle=bundle, crops=crops, options=options, cpus=cpus, runtime=runtime)
    # As in scoring: one thread a CPU, whatever tasks have.
    environment = {"OMP_NUM_THREADS": str(cpus), "TF_CPP_MIN_LOG_LEVEL": "3", **runtime_environment(runtime)}
    return sample, cluster.measured(_time_model, work, cpus=cpus, gpus=gpus, environment=environment)


def _look(look: _Look) -> tuple[ItemSample, npt.NDArray[np.uint8]]:
    """In a child process, as the job itself does, so that an item which crashes the decoder costs the plan nothing."""
    extractor = MediaExtractor(source=look.sources[0], sources=look.sources, options=look.faces, pictures=False)
    isolated = IsolatedExtractor(extractor, LimitOptions())
    frames = look.faces.frames if isinstance(look.faces.frames, int) else 1
    try:
        return measure_items(look.items, look.sources, isolated, frames=frames, side=look.faces.crop.crop_size)
    finally:
        isolated.close()


def _time_model(work: _Model) -> ModelSample:
    options, cpus = work.options, work.cpus
    # OpenVINO rounds up to a share for each thread: less than that would leave threads idle.
    batch_size = options.batch_size if work.runtime == "keras" else -(-options.batch_size // cpus) * cpus

    def load() -> tuple[BatchPredictor, bool, str]:
        import_keras()
        made = work.bundle.predictor(
            batch_size=batch_size, precision=options.precision, runtime=work.runtime, threads=cpus
        )
        return made, *_device(cpus)

    return measure_model(load, work.crops, batch_size=batch_size, cpus=cpus)


def _device(cpus: int) -> tuple[bool, str]:
    """Whether Keras' backend computes on a GPU, and on what."""
    import keras

    backend, names = keras.backend.backend(), gpu_names()
    return bool(names), f"{names[0]}, {backend}" if names else f"{cpus} CPU cores, {backend}"


def _print_measured(sample: ItemSample, model: ModelSample, listed: _Listed, options: ScorePlan) -> None:
    print(f"measured, an item on one CPU of the machine that looked, {options.frames} frames of a video")
    print(f"  sample          {sample.items} items, {sample.with_face:.0%} with a face, {sample.crops:.1f} crops each")
    print(f"  time            {sample.seconds * 1000:.0f} ms, +- {2 * sample.seconds_error * 1000:.0f}")
    print(f"  read            {decimal(int(sample.bytes_read))} in {sample.requests:.1f} requests")
    pace = f"{model.crops_per_s:.1f} faces/s, +- {2 * model.error:.1f}"
    print(f"  model           {pace}, on {model.device} in {options.precision}; loads in {model.load_s:.0f} s")
    print(f"  listed          {listed.items} items, {decimal(int(listed.size_bytes))} in all INPUTs")


def _print_computed(prices: Prices, sizing: ScoreSizing, nodes: Sequence[int]) -> None:
    model, node = sizing.model, prices.node(gpus=sizing.model.gpu)
    unit = "GPU hours" if model.gpu else f"hours of {model.device}"
    print(f"computed, for {sizing.items} new items a night")
    print(f"  looking         {sizing.look_cpu_hours:.2f} CPU hours, +- {sizing.look_cpu_hours_error:.2f}")
    print(f"  model           {sizing.model_hours:.2f} {unit}: {sizing.crops:.0f} faces")
    print(f"  read            {decimal(int(sizing.bytes_read))} in {sizing.get_requests:.0f} requests")
    print(f"  written         {sizing.put_requests:.0f} requests")
    held = f"{node.cpus} CPUs" + (f" and {node.gpus} GPUs" if model.gpu else "")
    print(f"by {node.name}, {held} each taken as those measured, at {EFFICIENCY:.0%} use")
    for count in nodes:
        hours = sizing.hours(count, node.cpus, node.gpus, EFFICIENCY)
        cost = prices.cost(node, count, hours, gets=sizing.get_requests, puts=sizing.put_requests)
        told = f"{cost:>8.2f} {prices.currency} a night, with {prices.head.name} as head"
        print(f"  {count:>3} nodes       {hours:>8.2f} h   {told}")
