"""A corpus in, what preprocessing it will take out: hours, nodes, reading, requests and cost, from a measured sample.

fakesift plan preprocess s3://corpus/dfdc
fakesift submit --follow plan preprocess s3://corpus/dfdc     # measured on a node of the cluster
fakesift plan preprocess demo/corpus --videos 119000          # a laptop, for a corpus of that many such clips
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos
from batch.corpus.listing import list_videos, sample_videos
from batch.corpus.sizing import Sampled, Sizing, measure, size
from batch.faces.extract import Extractor
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.records import VideoRef
from batch.storage.base import Storage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, guarded, parse, say, shown
from jobs.preprocess_options import PreprocessOptions
from jobs.session import check_seen_by_all, ray_session

PRICES = Path(__file__).parents[1] / "cluster" / "prices.yaml"
# `tests/benchmarks/scale.py`: two workers on 2 cores do 1.8 times the work of one.
_EFFICIENCY = 0.9
_NODES = (1, 4, 16)
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of `fakesift plan`."""

    job: Annotated[Literal["preprocess"], tyro.conf.Positional, tyro.conf.arg(metavar="JOB")]
    """preprocess."""
    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """The corpus, or a part of it: folder or s3://bucket/prefix."""
    sample: int = 48
    """Videos to look at."""
    seed: int = 0
    """Decides which."""
    videos: Annotated[int | None, shown("N", "those in INPUT")] = None
    """Videos of the whole corpus, if INPUT is a part of it."""
    preset: Literal["default", "reference"] = "default"
    """As for preprocess."""
    frames: Annotated[int | Literal["first"] | None, shown("first|N", "first")] = None
    """As for preprocess."""
    detector: Annotated[
        Literal["cascade", "hog", "cnn"] | None, shown("cascade|hog|cnn", "cascade; reference: hog")
    ] = None
    """As for preprocess."""
    nodes: tuple[int, ...] = _NODES
    """Sizes of cluster to reckon for."""
    prices: Path = PRICES
    """Price table to use; copy and edit the one that is there."""
    address: Annotated[str | None, shown("ADDRESS", "in this process")] = None
    """Ray cluster to measure on: auto or an address. One task on one of its CPUs."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be."""
        for name, values in (("sample", (self.sample,)), ("videos", (self.videos or 1,)), ("nodes", self.nodes)):
            if not values or min(values) < 1:
                raise ValueError(f"{name}: got {values}, expected 1 or more")

    def preprocess(self) -> PreprocessOptions:
        """The job that is planned for; its OUTPUT does not matter here."""
        return PreprocessOptions(
            input=self.input, output="", preset=self.preset, frames=self.frames, detector=self.detector
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The price table."""

    currency: str
    node: str
    node_cpus: int
    node_per_hour: float
    head: str
    head_per_hour: float
    per_1000_get: float
    per_1000_put: float
    per_gb_month: float

    def cost(self, sizing: Sizing, nodes: int, hours: float) -> float:
        """Of one run: machines and requests."""
        machines = hours * (nodes * self.node_per_hour + self.head_per_hour)
        return machines + (sizing.get_requests * self.per_1000_get + sizing.put_requests * self.per_1000_put) / 1000


def read_prices(path: Path) -> Prices:
    """The table in a YAML file. Raises `ValueError` that names what is wrong."""
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        node, head = table["cpu_node"], table["head_node"]
        return Prices(
            currency=str(table["currency"]),
            node=str(node["name"]),
            node_cpus=int(node["cpus"]),
            node_per_hour=float(node["per_hour"]),
            head=str(head["name"]),
            head_per_hour=float(head["per_hour"]),
            per_1000_get=float(table["per_1000_get"]),
            per_1000_put=float(table["per_1000_put"]),
            per_gb_month=float(table["per_gb_month"]),
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"prices {path}: got {error!r}, expected a table as {PRICES.name}") from error


def plan(options: PlanOptions) -> Exit:
    """Measures and prints."""
    prices = read_prices(options.prices)
    faces = options.preprocess().face_options()
    source = open_storage(options.input, S3Options(endpoint=options.s3_endpoint))
    counted = _Counted()
    notes = CorpusNotes()
    labels, items = choose_labels("auto", source, list_videos(source), notes)
    everything = counted.watch(label_videos(items, labels, notes))
    sample = list(sample_videos(everything, limit=options.sample, max_bytes=None, seed=options.seed))
    if not sample:
        raise ValueError(f"input {source.root}: no mp4, mov, mkv, avi, webm or mpg file there")
    say(f"looking at {len(sample)} of {counted.videos} videos in {source.root}")
    extractor = Extractor(source=source, options=faces)
    sampled = _measured(options, source, extractor, sample)
    _print(prices, sampled, size(sampled, options.videos or counted.videos), counted, options.nodes)
    return Exit.OK


class _Counted:
    """Counts what goes by."""

    def __init__(self) -> None:
        self.videos = 0
        self.size_bytes = 0

    def watch(self, videos: Iterable[VideoRef]) -> Iterable[VideoRef]:
        """The same videos."""
        for video in videos:
            self.videos += 1
            self.size_bytes += video.size_bytes
            yield video


def _measured(options: PlanOptions, source: Storage, extractor: Extractor, sample: Sequence[VideoRef]) -> Sampled:
    if options.address is None:
        return _look(extractor, sample)
    with ray_session(options.address, None) as ray:
        check_seen_by_all(ray, {"input": source}, source)
        try:
            sampled: Sampled = ray.get(ray.remote(num_cpus=1)(_look).remote(extractor, sample))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"Ray gave up: {' '.join(str(error).split())[:300]}") from error
    return sampled


def _look(extractor: Extractor, sample: Sequence[VideoRef]) -> Sampled:
    """In a child process, as the job itself does, so that a clip which crashes the decoder costs the plan nothing."""
    isolated = IsolatedExtractor(extractor, LimitOptions())
    isolated.announce(sample)
    try:
        return measure(sample, isolated)
    finally:
        isolated.close()


def _print(prices: Prices, sampled: Sampled, sizing: Sizing, counted: _Counted, nodes: Sequence[int]) -> None:
    print("measured, a video on one CPU of the machine that looked")
    print(f"  sample          {sampled.videos} videos, {sampled.kept:.0%} with a face that is kept")
    print(f"  time            {sampled.seconds * 1000:.0f} ms, +- {2 * sampled.seconds_error * 1000:.0f}")
    print(f"  read            {sampled.bytes_read / 1e3:.0f} kB in {sampled.requests:.1f} requests")
    print(f"  faces           {sampled.face_bytes / 1e3:.0f} kB")
    print(f"  listed          {counted.videos} videos, {counted.size_bytes / _GB:.1f} GB in INPUT")
    print(f"computed, for {sizing.videos} videos")
    print(f"  work            {sizing.cpu_hours:.2f} CPU hours, +- {sizing.cpu_hours_error:.2f}")
    print(f"  read            {sizing.bytes_read / _GB:.1f} GB in {sizing.get_requests:.0f} requests")
    print(f"  written         {sizing.bytes_written / _GB:.1f} GB of faces, {sizing.put_requests:.0f} requests")
    print(f"  kept            {sizing.kept:.0f} videos")
    print(f"by {prices.node}, {prices.node_cpus} CPUs each taken as one of those measured, at {_EFFICIENCY:.0%} use")
    for count in nodes:
        hours = sizing.hours(count * prices.node_cpus, _EFFICIENCY)
        cost = prices.cost(sizing, count, hours)
        print(f"  {count:>3} nodes       {hours:>8.2f} h   {cost:>8.2f} {prices.currency}, with {prices.head} as head")
    monthly = sizing.bytes_written / _GB * prices.per_gb_month
    print(f"  to keep it      {monthly:.2f} {prices.currency} a month")


def main(argv: list[str] | None = None) -> int:
    """The command line."""

    def run() -> Exit:
        options: Any = parse(PlanOptions, "plan", __doc__, argv)
        return plan(options)

    return guarded(run, "plan")


if __name__ == "__main__":
    raise SystemExit(main())
