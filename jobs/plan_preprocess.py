"""A corpus in, what preprocessing it will take out: `fakesift plan preprocess`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.filesize import decimal

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos
from batch.corpus.listing import list_videos, sample_videos
from batch.corpus.sizing import Sampled, Sizing, measure, size
from batch.faces.extract import Extractor
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.records import VideoRef
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, say
from jobs.plan_measure import on_cluster
from jobs.plan_options import PreprocessPlan
from jobs.prices import EFFICIENCY, Prices, read_prices

_GB = 1e9


def plan_preprocess(options: PreprocessPlan) -> Exit:
    """Measures and prints. Raises `ValueError` or `AccessError` for what is wrong with the input."""
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
    sampled = on_cluster(options.address, {"input": source}, lambda cluster: cluster.measured(_look, extractor, sample))
    videos = counted.videos if options.videos is None else options.videos
    _print(prices, sampled, size(sampled, videos), counted, options.nodes)
    return Exit.OK


class _Counted:
    """Counts what goes by."""

    def __init__(self) -> None:
        self.videos = 0
        self.size_bytes = 0

    def watch(self, videos: Iterable[VideoRef]) -> Iterator[VideoRef]:
        """The same videos."""
        for video in videos:
            self.videos += 1
            self.size_bytes += video.size_bytes
            yield video


def _look(extractor: Extractor, sample: Sequence[VideoRef]) -> Sampled:
    """In a child process, as the job itself does, so that a clip which crashes the decoder costs the plan nothing."""
    isolated = IsolatedExtractor(extractor, LimitOptions())
    isolated.announce(sample)
    try:
        return measure(sample, isolated)
    finally:
        isolated.close()


def _print(prices: Prices, sampled: Sampled, sizing: Sizing, counted: _Counted, nodes: Sequence[int]) -> None:
    node = prices.cpu_node
    print("measured, a video on one CPU of the machine that looked")
    print(f"  sample          {sampled.videos} videos, {sampled.kept:.0%} with a face that is kept")
    print(f"  time            {sampled.seconds * 1000:.0f} ms, +- {2 * sampled.seconds_error * 1000:.0f}")
    print(f"  read            {decimal(int(sampled.bytes_read))} in {sampled.requests:.1f} requests")
    print(f"  faces           {decimal(int(sampled.face_bytes))}")
    print(f"  listed          {counted.videos} videos, {decimal(int(counted.size_bytes))} in INPUT")
    print(f"computed, for {sizing.videos} videos")
    print(f"  work            {sizing.cpu_hours:.2f} CPU hours, +- {sizing.cpu_hours_error:.2f}")
    print(f"  read            {decimal(int(sizing.bytes_read))} in {sizing.get_requests:.0f} requests")
    print(f"  written         {decimal(int(sizing.bytes_written))} of faces, {sizing.put_requests:.0f} requests")
    print(f"  kept            {sizing.kept:.0f} videos")
    print(f"by {node.name}, {node.cpus} CPUs each taken as one of those measured, at {EFFICIENCY:.0%} use")
    for count in nodes:
        hours = sizing.hours(count * node.cpus, EFFICIENCY)
        cost = prices.cost(node, count, hours, gets=sizing.get_requests, puts=sizing.put_requests)
        told = f"{cost:>8.2f} {prices.currency}, with {prices.head.name} as head"
        print(f"  {count:>3} nodes       {hours:>8.2f} h   {told}")
    monthly = sizing.bytes_written / _GB * prices.per_gb_month
    print(f"  to keep it      {monthly:.2f} {prices.currency} a month")
