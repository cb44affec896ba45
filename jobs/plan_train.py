"""Face shards in, what training on them will take out: `fakesift plan train`.

A few real steps of one worker are taken with the very engine, feed and batches of the run; nothing is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.filesize import decimal

from batch.model.fit.engine import use_backend
from batch.model.fit.measure import WARM_STEPS, measure_training
from batch.model.index import load_index
from batch.model.plan import Rows
from batch.model.records import FaceIndex, Split
from batch.model.sizing import FaceCounts, Rate, TrainSample, TrainSizing, size_training
from batch.model.split import SplitOptions, SplitTable, make_split
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, say
from jobs.plan_measure import Cluster, on_cluster
from jobs.plan_options import TrainPlan
from jobs.predict import keras_environment
from jobs.prices import EFFICIENCY, Node, Prices, read_prices
from jobs.quiet import import_keras

_SHARD_BYTES = 5e6
"""The least that a shard of a large corpus has."""
# What a run writes, in objects: at an epoch's end the five of a checkpoint with Ray's list of them, history and events;
# at its own end splits, fingerprints, predictions, pages and the bundle. Arrow sends more than 10 MB in parts.
_EPOCH_PUTS = 8
_END_PUTS = 12
_PART_BYTES = 10e6
_STAGES = {"head": "head", "whole": "network"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """The run's workers on machines of the price table."""

    node: Node
    nodes: int
    cpus: int
    """Of each worker."""

    @property
    def all_cpus(self) -> int:
        """Of all nodes."""
        return self.nodes * self.node.cpus


def plan_train(options: TrainPlan) -> Exit:
    """Measures and prints. Raises `ValueError` or `AccessError` for what is wrong with the input."""
    options.check()
    prices = read_prices(options.prices)
    node = prices.node(gpus=options.gpus_per_worker > 0)
    sinks = [open_storage(place, S3Options(endpoint=options.s3_endpoint)) for place in options.places]
    index = load_index(sinks)
    split = make_split(index, _dealt(options.split_options()), needs_fakes=options.synthetic == "none")
    rows = split.rows(Split.TRAIN)
    here = counts_of(index, split)
    say(f"training on {here.train_real} real and {here.train_fake} fake faces, a few steps; nothing is kept")
    places = {f"faces {number}": sink for number, sink in enumerate(sinks, 1)}
    sample, cpus = on_cluster(options.address, places, lambda cluster: _measured(options, cluster, index, rows))
    counts = here.scaled(here.all if options.all_faces is None else options.all_faces)
    placed = place_workers(options, node, cpus)
    scale = counts.all / here.all
    shard_bytes = scale * sum(shard.size_bytes for shard in index.shards)
    sizing = size_training(
        sample,
        counts,
        options.data_options(),
        options.fit_options(),
        workers=options.workers,
        nodes=placed.nodes,
        gbit=node.gbit,
        shard_bytes=shard_bytes,
        # A small corpus has small shards, and of a large one nobody would have so many.
        shards=max(len(index.shards), min(scale * len(index.shards), shard_bytes / _SHARD_BYTES)),
    )
    puts = put_requests(sizing, sample.state_bytes)
    _print_measured(sample, options.workers)
    _print_computed(options, counts, sizing, puts)
    _print_hours(options, prices, placed, sizing, puts)
    return Exit.OK


def _dealt(options: SplitOptions) -> SplitOptions:
    """People are not looked for: their splits have the same shares."""
    if options.by != "identity":
        return options
    return SplitOptions(by="source", validation=options.validation, test=options.test, seed=options.seed)


def counts_of(index: FaceIndex, split: SplitTable) -> FaceCounts:
    """Faces by split; near-duplicates are not looked for."""
    counts = split.counts()
    return FaceCounts(
        all=index.table.num_rows,
        train_real=counts[Split.TRAIN]["real"],
        train_fake=counts[Split.TRAIN]["fake"],
        validation=sum(counts[Split.VALIDATION].values()),
        test=sum(counts[Split.TEST].values()),
    )


def put_requests(sizing: TrainSizing, state_bytes: int) -> float:
    """Requests that write: every epoch leaves a checkpoint of `state_bytes`."""
    epochs = sizing.checkpoint_bytes / state_bytes
    return epochs * _EPOCH_PUTS + sizing.checkpoint_bytes / _PART_BYTES + _END_PUTS


def place_workers(options: TrainPlan, node: Node, cpus: int) -> _Placed:
    """As many workers a node as have room there. Raises `ValueError` for one that is larger than a node."""
    gpus = options.gpus_per_worker
    room = node.cpus // cpus
    if gpus:
        room = min(room, math.floor(node.gpus / gpus), 1 if options.backend == "jax" else room)
    if not room:
        raise ValueError(
            f"a worker with {cpus} CPUs and {gpus:g} GPUs: no room on {node.name} with {node.cpus} and {node.gpus}; "
            "expected --cpus-per-worker or --gpus-per-worker that fit, or another node in the price table"
        )
    return _Placed(node=node, nodes=math.ceil(options.workers / room), cpus=cpus)


def _measured(options: TrainPlan, cluster: Cluster, index: FaceIndex, rows: Rows) -> tuple[TrainSample, int]:
    """With the cores that a worker has: as in train, a CPU of a cluster, or this machine's shared out."""
    shared_out = 1 if options.address else max(1, cluster.cpus // options.workers)
    cpus, gpus = options.cpus_per_worker or shared_out, options.gpus_per_worker
    environment = keras_environment(options.backend, gpus, cpus)
    work = _Work(options=options, index=index, rows=rows, threads=cpus)
    return cluster.measured(_take_steps, work, cpus=cpus, gpus=gpus, environment=environment), cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the task needs."""

    options: TrainPlan
    index: FaceIndex
    rows: Rows
    threads: int


def _take_steps(work: _Work) -> TrainSample:
    options = work.options
    use_backend(options.backend)
    import_keras()
    return measure_training(
        work.index,
        work.rows,
        options.network_options(),
        options.data_options(),
        options.fit_options(),
        workers=options.workers,
        steps=options.sample,
        threads=work.threads,
        gpus=options.gpus_per_worker,
    )


def _print_measured(sample: TrainSample, workers: int) -> None:
    one = "the one worker" if workers == 1 else f"one of {workers} workers, {sample.places} faces of each batch,"
    print(f"measured, on {one} with {sample.device}")
    print(f"  input           {_pace(sample.input)}: shards to decoded batches, nothing beside it")
    for stage, rate in sample.stages.items():
        print(f"  steps, {_STAGES[stage]:<8} {_pace(rate)}: {rate.steps} steps after {WARM_STEPS}, fed by that input")
    print(f"  validation      {_pace(sample.scan)}")
    print(f"  start           {sample.start_s:.0f} s: network, first steps of each stage")
    print(f"  near-duplicates {sample.look_s * 1000:.1f} ms of one CPU a face")
    print(
        f"  sizes           weights {decimal(int(sample.weights_bytes))}, checkpoint {decimal(int(sample.state_bytes))}"
    )


def _pace(rate: Rate) -> str:
    return f"{rate.faces_per_s:.1f} images/s, +- {2 * rate.error:.1f}"


def _print_computed(options: TrainPlan, counts: FaceCounts, sizing: TrainSizing, puts: float) -> None:
    data = options.data_options()
    print(f"computed, for {counts.all} faces")
    print(f"  an epoch        {sizing.epoch_faces} faces in {math.ceil(sizing.epoch_faces / data.batch_size)} steps")
    print(f"  held out        {counts.validation} faces each epoch, and {counts.test} to test on")
    print(
        f"  exchange        {sizing.exchange_s * 1000:.0f} ms a step: gradients between nodes, by the table's network"
    )
    print(f"  read            {decimal(int(sizing.bytes_read))} in {sizing.get_requests:.0f} requests")
    written = decimal(int(sizing.checkpoint_bytes))
    print(f"  checkpoints     {written} written, the last {options.keep_checkpoints} stay")
    print(f"  written         {puts:.0f} requests")


def _print_hours(options: TrainPlan, prices: Prices, placed: _Placed, sizing: TrainSizing, puts: float) -> None:
    look_hours = sizing.look_cpu_hours / (placed.all_cpus * EFFICIENCY)
    parts = {"near-duplicates": look_hours, **sizing.hours}
    hours = look_hours + sizing.total_hours
    cost = prices.cost(placed.node, placed.nodes, hours, gets=sizing.get_requests, puts=puts)
    held = f"{placed.cpus} CPUs" + (f" and {options.gpus_per_worker:g} GPUs" if options.gpus_per_worker else "")
    print(f"by {placed.node.name}, for {options.workers} workers with {held}, each as fast as the one measured")
    for name, spent in parts.items():
        print(f"  {_PARTS[name]:<15} {spent:>8.2f} h")
    told = f"{cost:>8.2f} {prices.currency}, with {prices.head.name} as head"
    print(f"  {placed.nodes:>3} nodes       {hours:>8.2f} h   {told}")
    print("not counted: groups of people (--split identity), the page, epochs that --patience spares")


_PARTS = {
    "near-duplicates": "near-duplicates",
    "start": "start",
    "head": "head",
    "whole": "network",
    "validation": "validation",
    "final": "last scoring",
}
