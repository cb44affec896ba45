"""What first frames cost to read from an S3 store: bytes, requests, and the time that reading holds the work up.

    python tests/benchmarks/reads.py [FOLDER] [--latencies 0 20 100] [--frames first] [--repeats 1]

A real S3 server (SeaweedFS) on loopback, behind a relay in a process of its own that holds every request back by so
many milliseconds. FOLDER defaults to `../shared/corpus` where that is present, else a small drawn corpus. Extraction
runs as in a task: one child process, a clip at a time, with and without announcing the next clips to it; the first
clip, which loads models, is not counted. Of repeats the fastest is shown. `waited` is what the decoding child stood
still for, `hidden` what passed while it worked on other clips; both in milliseconds a clip.

The floor is a request's latency times the requests in a row (head, index, rest of the packet), over the clips fetched
side by side; and the work itself, which the row of the local folder shows. boto3 adds 2 to 3 ms of CPU a request.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import boto3

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos  # noqa: E402
from batch.corpus.listing import list_videos  # noqa: E402
from batch.faces.extract import Extractor  # noqa: E402
from batch.faces.isolate import IsolatedExtractor, LimitOptions  # noqa: E402
from batch.faces.options import FaceOptions  # noqa: E402
from batch.records import VideoRef, VideoResult  # noqa: E402
from batch.storage.base import Storage  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from batch.storage.open import open_storage  # noqa: E402
from batch.storage.s3 import S3Options, S3Storage  # noqa: E402
from tests.support.seaweed import running  # noqa: E402

SHARED = ROOT.parent / "shared" / "corpus"
BUCKET = "corpus"
DFDC_LIKE_BYTES = 1_000_000
"""DFDC's clips are ten seconds of 1080p, 1.7 to 3.9 MB; smaller ones are mostly fetched by their head alone."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run over all clips."""

    seconds: float
    results: list[VideoResult]

    def of(self, stage: str) -> float:
        """Milliseconds a clip."""
        return 1e3 * sum(result.cost.seconds.get(stage, 0.0) for result in self.results) / len(self.results)

    def share(self, least_bytes: int = 0) -> float:
        """Bytes read of the bytes that clips of at least such a size have."""
        counted = [result for result in self.results if result.video.size_bytes >= least_bytes]
        listed = sum(result.video.size_bytes for result in counted)
        return sum(result.cost.bytes_read for result in counted) / max(1, listed)


# A relay that holds requests back ------------------------------------------------------------------------------


def relay(upstream: tuple[str, int], latency_s: float, port: Connection) -> None:
    """Passes connections on; what a client sends (a request is one piece) waits `latency_s` first."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        port.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            store = socket.create_connection(upstream)
            for each in (client, store):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=pass_on, args=(client, store, latency_s), daemon=True).start()
            threading.Thread(target=pass_on, args=(store, client, 0.0), daemon=True).start()


def pass_on(source: socket.socket, target: socket.socket, latency_s: float) -> None:
    """One direction, until either side hangs up."""
    try:
        while data := source.recv(1 << 18):
            if latency_s:
                time.sleep(latency_s)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()


@contextmanager
def relayed(endpoint: str, latency_ms: int) -> Iterator[str]:
    """An endpoint that answers late. It has a process of its own, so that it takes no time from the extraction's."""
    host, port = endpoint.removeprefix("http://").split(":")
    ours, theirs = multiprocessing.Pipe()
    arguments = ((host, int(port)), latency_ms / 1e3, theirs)
    process = multiprocessing.get_context("spawn").Process(target=relay, args=arguments, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


# Measuring -------------------------------------------------------------------------------------------------------


def measure(source: Storage, options: FaceOptions, *, announce: bool) -> Pass:
    """Extracts every clip once, as a task does."""
    labels, items = choose_labels("none", source, list_videos(source), CorpusNotes())
    videos: list[VideoRef] = list(label_videos(items, labels, CorpusNotes()))
    isolated = IsolatedExtractor(Extractor(source=source, options=options, pictures=False), LimitOptions())
    try:
        isolated(videos[0])
        if announce:
            isolated.announce(videos)
        start = time.perf_counter()
        results = [isolated(video) for video in videos]
        return Pass(seconds=time.perf_counter() - start, results=results)
    finally:
        isolated.close()


def fastest(source: Storage, options: FaceOptions, repeats: int, *, announce: bool) -> Pass:
    """The fastest of several passes."""
    return min((measure(source, options, announce=announce) for _ in range(repeats)), key=lambda each: each.seconds)


def upload(folder: Path, endpoint: str) -> None:
    """Puts the corpus into a bucket."""
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
    target, source = S3Storage(BUCKET, options=S3Options(endpoint=endpoint)), LocalStorage(folder)
    for item in list_videos(source):
        target.put(item.key, source.read(item.key))


def same(one: Pass, two: Pass) -> bool:
    """Whether outcomes and crops are equal, byte for byte."""

    def made(each: Pass) -> list[object]:
        return [(r.video.key, r.reason, [face.image for face in r.faces]) for r in each.results]

    return made(one) == made(two)


WIDTHS = (16, 6, 6, 6, 7, 7, 8, 8, 8)
HEADER = ("store", "early", "GETs", "KB", "share", ">1 MB", "clips/s", "waited", "hidden")


def line(name: str, early: str, found: Pass) -> tuple[str, ...]:
    """One row of the table."""
    count = len(found.results)
    requests = sum(result.cost.requests for result in found.results) / count
    kilobytes = sum(result.cost.bytes_read for result in found.results) / count / 1e3
    return (
        *(name, early, f"{requests:.2f}", f"{kilobytes:.0f}", f"{found.share():.1%}"),
        *(f"{found.share(DFDC_LIKE_BYTES):.1%}", f"{count / found.seconds:.1f}"),
        *(f"{found.of('read'):.1f}", f"{found.of('hidden'):.1f}"),
    )


def show(cells: tuple[str, ...], remark: str = "") -> None:
    """Prints a row at once."""
    print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)) + remark, flush=True)


def drawn(scratch: Path) -> Path:
    """A small drawn corpus."""
    from batch.corpus.draw.corpus import draw_corpus
    from batch.corpus.draw.options import DrawOptions

    return draw_corpus(scratch / "drawn", DrawOptions(identities=6, parts=1, planted=False)).folder


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--latencies", nargs="+", type=int, default=[0, 20, 100], help="milliseconds a request")
    parser.add_argument("--frames", default="first", help="`first`, or a number")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    frames: int | Literal["first"] = "first" if arguments.frames == "first" else int(arguments.frames)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or (SHARED if SHARED.is_dir() else drawn(Path(scratch)))
        (Path(scratch) / "s3").mkdir()
        with running(Path(scratch) / "s3") as server:
            os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
            os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}
            upload(folder, server.endpoint)
            table(folder, server.endpoint, FaceOptions(frames=frames), arguments.latencies, arguments.repeats)


def table(folder: Path, endpoint: str, options: FaceOptions, latencies: list[int], repeats: int) -> None:
    """One row a latency, with and without early fetching."""
    expected = fastest(open_storage(str(folder)), options, repeats, announce=False)
    print(f"{len(expected.results)} clips, frames: {options.frames}; milliseconds waited and hidden a clip")
    show(HEADER)
    show(line("local folder", "-", expected))
    for latency_ms in latencies:
        with relayed(endpoint, latency_ms) as address:
            source = S3Storage(BUCKET, options=S3Options(endpoint=address))
            for announce in (False, True):
                found = fastest(source, options, repeats, announce=announce)
                equal = "" if same(found, expected) else "   DIFFERS from the local folder's results"
                show(line(f"S3 + {latency_ms} ms", "yes" if announce else "no", found), equal)


if __name__ == "__main__":
    main()
