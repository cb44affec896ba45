"""Video corpus in, Parquet shards of face crops and one outcome a video out, on Ray.

fakesift preprocess s3://corpus/dfdc s3://work/faces --address auto
fakesift preprocess demo/corpus demo/faces --workers 2        # a laptop
"""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

import tyro

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos
from batch.corpus.listing import list_videos, sample_videos
from batch.corpus.units import plan_units
from batch.faces.extract import Extractor
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import REFERENCE, FaceOptions
from batch.records import Reason, VideoRef, WorkUnit
from batch.shards.build import UnitReport, build_unit
from batch.shards.close import remove_orphans, remove_stale, unit_of
from batch.shards.commit import Commit, committed_keys, read_commits
from batch.shards.runfile import RunFile, claim_output, installed_versions, refuse_nested
from batch.shards.summary import PLAN, SUMMARY, Summary, kind_counts, summarize
from batch.storage.base import AccessError, Storage, StorageError
from batch.storage.open import open_storage, probe_put_if_absent
from batch.storage.s3 import S3Options
from jobs.console import EXIT_CODES, Exit, guarded, parse, say, shown
from jobs.fanout import fan_out
from jobs.progress import Progress, progress
from jobs.session import check_seen_by_all, ray_session

_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """Options of `fakesift preprocess`."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Folder or s3://bucket/prefix with mp4, mov, mkv, avi, webm or mpg files."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder or s3://bucket/prefix: empty, or an earlier output of the same job, which is then continued."""
    labels: str = "auto"
    """auto, dfdc (metadata.json beside the clips), folders (named real and fake), none, or a .csv or .parquet file
    with the columns uri, label and perhaps source."""
    preset: Literal["default", "reference"] = "default"
    """reference: first frame, dlib's HOG on the whole frame, the bare box stretched to 224 x 224. The options below
    replace single values of a preset."""
    frames: Annotated[int | Literal["first"] | None, shown("first|N", "first")] = None
    """first, or a number of evenly spaced frames."""
    faces: Annotated[Literal["one", "all"] | None, shown("one|all", "one")] = None
    """one: a video with no face or several in a frame is set aside; all: every face is kept."""
    detector: Annotated[
        Literal["cascade", "hog", "cnn"] | None, shown("cascade|hog|cnn", "cascade; reference: hog")
    ] = None
    """cascade: light proposals, each confirmed by dlib's HOG; hog: HOG on the whole frame; cnn: dlib's CNN, for
    GPUs."""
    min_face: Annotated[float | None, shown("SHARE", "0.05; reference: 0.01")] = None
    """Smallest face, as a share of the frame's shorter side."""
    crop_size: Annotated[int | None, shown("PX", "224")] = None
    """Side of a crop in pixels."""
    margin: Annotated[float | None, shown("SHARE", "0.15; reference: 0")] = None
    """Share of the face's side added on every side."""
    encoding: Annotated[Literal["png", "jpeg"] | None, shown("png|jpeg", "png")] = None
    """png keeps the compression artefacts of the video as they are."""
    limit: Annotated[int | None, shown("N", "all")] = None
    """Look at so many videos, drawn by --seed."""
    sample: Annotated[str | None, shown("SIZE", "all")] = None
    """Look at so much of the corpus, as 20GB, drawn by --seed."""
    seed: int = 0
    """Decides which videos --limit and --sample draw."""
    address: Annotated[str | None, shown("ADDRESS", "an embedded Ray")] = None
    """Ray cluster to join: auto or an address. An embedded Ray is started and stopped."""
    workers: Annotated[int | None, shown("N", "one a CPU")] = None
    """Most tasks at once."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""
    single_writer: bool = False
    """Accept an OUTPUT store that ignores If-None-Match; then no second run may write there at the same time."""
    max_faults: Annotated[str | None, shown("N|P%", "no limit")] = None
    """Stop when more videos than this are faults: a number, or a share of the videos as 5%."""
    clip_seconds: float = LimitOptions().clip_seconds
    """A clip that takes longer is a fault: timeout."""
    clip_memory_mb: int = LimitOptions().clip_memory_mb
    """A clip whose decoding takes more memory is a fault: out_of_memory."""
    strict: bool = False
    """End with exit code 3 if faults are left."""
    no_pictures: bool = False
    """Keep no example frames in the outcomes and no faces in the page."""

    def face_options(self) -> FaceOptions:
        """The preset with the options that were given. Raises `ValueError` for a value that cannot be."""
        base = REFERENCE if self.preset == "reference" else FaceOptions()
        detect = _given(detector=self.detector, min_face=self.min_face)
        crop = _given(crop_size=self.crop_size, margin=self.margin, encoding=self.encoding)
        return replace(
            base,
            detect=replace(base.detect, **detect),
            crop=replace(base.crop, **crop),
            **_given(frames=self.frames, faces=self.faces),
        )

    def shaping(self) -> dict[str, Any]:
        """What may not change under one OUTPUT."""
        return {
            "faces": asdict(self.face_options()),
            "labels": self.labels,
            "limit": self.limit,
            "sample_bytes": self.sample_bytes(),
            "seed": self.seed,
            "pictures": not self.no_pictures,
        }

    def limits(self) -> LimitOptions:
        """What one clip may take. Raises `ValueError`."""
        return LimitOptions(clip_seconds=self.clip_seconds, clip_memory_mb=self.clip_memory_mb)

    def sample_bytes(self) -> int | None:
        """`--sample` in bytes. Raises `ValueError`."""
        if self.sample is None:
            return None
        text = self.sample.strip().lower()
        unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
        try:
            size = int(float(text.removesuffix(unit)) * _UNITS.get(unit, 1))
        except ValueError:
            size = 0
        if size <= 0:
            raise ValueError(f"sample: got {self.sample!r}, expected a size as 20GB, 500MB or a number of bytes")
        return size

    def too_many_faults(self, faults: int, videos: int) -> bool:
        """Whether `--max-faults` is passed; a share counts from a hundred videos on. Raises `ValueError`."""
        if self.max_faults is None:
            return False
        text = self.max_faults.strip()
        try:
            if text.endswith("%"):
                return videos >= 100 and faults * 100 > float(text[:-1]) * videos
            return faults > int(text)
        except ValueError:
            raise ValueError(f"max faults: got {self.max_faults!r}, expected a number or a share as 5%") from None

    def check(self) -> None:
        """Raises `ValueError` for what is wrong before anything is opened."""
        self.shaping()
        self.limits()
        self.too_many_faults(0, 0)
        for name, value in (("limit", self.limit), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected 1 or more")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@dataclass(slots=True)
class _State:
    """What the driver knows: ids and counts, never rows."""

    planned: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)
    listed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    notes: CorpusNotes = field(default_factory=CorpusNotes)


def preprocess(options: PreprocessOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before the first task."""
    options.check()
    s3 = S3Options(endpoint=options.s3_endpoint)
    source, sink = open_storage(options.input, s3), open_storage(options.output, s3)
    refuse_nested(source, sink)
    state = _State()
    if next(list_videos(source), None) is None:
        raise ValueError(f"input {source.root}: no mp4, mov, mkv, avi, webm or mpg file there")
    units = _plan(options, source, state)
    if not options.single_writer:
        _probe(sink)
    run = RunFile(kind="preprocess", input=source.root, shaping=options.shaping(), versions=installed_versions())
    claim_output(sink, run)
    done = {unit_of(key) for key in committed_keys(sink)}
    with progress() as bar:
        _count(options, source, bar)
        try:
            _extract(options, source, sink, units, done, state, bar)
        except AccessError as error:
            raise RuntimeError(f"stopped: {error}") from error
    return _close(options, source, sink, state, run)


def _probe(sink: Storage) -> None:
    try:
        probe_put_if_absent(sink)
    except AccessError:
        raise
    except StorageError as error:
        raise ValueError(f"output {error}; or say --single-writer and run one job at a time") from error


def _plan(options: PreprocessOptions, source: Storage, state: _State) -> Iterator[WorkUnit]:
    """The corpus as units, streamed; says how it is labelled."""
    table = None
    if options.labels.lower().endswith((".csv", ".parquet")):
        place = options.labels.rsplit("/", 1)[0] if "/" in options.labels else "."
        table = open_storage(place, S3Options(endpoint=options.s3_endpoint))
    labels, items = choose_labels(options.labels, source, list_videos(source), state.notes, table)
    say(f"input {source.root}, labels: {labels.mode}")
    videos: Iterator[VideoRef] = sample_videos(
        label_videos(items, labels, state.notes),
        limit=options.limit,
        max_bytes=options.sample_bytes(),
        seed=options.seed,
    )
    return plan_units(videos, options.face_options())


def _count(options: PreprocessOptions, source: Storage, bar: Progress) -> None:
    """Counts the listing beside the work, so that the bar has an end."""
    if options.sample is not None:
        return

    def count() -> None:
        listed = 0
        try:
            for _ in list_videos(source):
                listed += 1
        except Exception:  # noqa: BLE001 - only the bar's end is lost; the listing that matters raises for itself
            return
        bar.total(listed if options.limit is None else min(listed, options.limit))

    threading.Thread(target=count, daemon=True).start()


def _extract(
    options: PreprocessOptions,
    source: Storage,
    sink: Storage,
    units: Iterator[WorkUnit],
    done: set[str],
    state: _State,
    bar: Progress,
) -> None:
    """Commits every planned unit that is not committed. Ray starts only if there is one."""
    pending = _pending(units, done, state, bar)
    first = next(pending, None)
    if first is None:
        return
    with ray_session(options.address, options.workers) as ray:
        check_seen_by_all(ray, {"input": source, "output": sink}, sink)
        task = ray.remote(num_cpus=1, max_retries=5)(_task)
        extractor = Extractor(source=source, options=options.face_options(), pictures=not options.no_pictures)
        shared = (extractor, options.limits(), sink)
        limit = options.workers if options.address else None
        for report in fan_out(ray, task, shared, _chain(first, pending), limit):
            state.fresh.append(report.commit.unit)
            _note(report.commit, state, bar)
            if options.too_many_faults(state.faults.total(), state.seen):
                top = ", ".join(f"{name} {n}" for name, n in state.faults.most_common(3))
                raise RuntimeError(f"stopped: {state.faults.total()} faults in {state.seen} videos ({top})")


def _task(extractor: Extractor, limits: LimitOptions, sink: Storage, unit: WorkUnit) -> UnitReport:
    isolated = _isolated(pickle.dumps((extractor, limits)))
    return build_unit(unit, isolated, extractor.source.root, sink, extractor.options.digest())


@lru_cache(maxsize=1)
def _isolated(pickled: bytes) -> IsolatedExtractor:
    """One decoding process a worker process, kept from unit to unit: each task brings a new but equal extractor."""
    return IsolatedExtractor(*pickle.loads(pickled))  # noqa: S301  (made a line before, in this process)


def _chain(first: WorkUnit, rest: Iterator[WorkUnit]) -> Iterator[WorkUnit]:
    yield first
    yield from rest


def _pending(units: Iterator[WorkUnit], done: set[str], state: _State, bar: Progress) -> Iterator[WorkUnit]:
    for unit in units:
        state.planned.add(unit.id)
        state.listed += len(unit.videos)
        if unit.id in done:
            bar.add(Counter(before=len(unit.videos)))
        else:
            yield unit


def _note(commit: Commit, state: _State, bar: Progress) -> None:
    state.seen += commit.listed
    state.faults.update({name: n for name, n in commit.reasons.items() if Reason(name).is_fault})
    bar.add(kind_counts(commit.reasons))


def _close(options: PreprocessOptions, source: Storage, sink: Storage, state: _State, run: RunFile) -> Exit:
    """Removes what is stale, adds the commits up, writes summary and page, and says how it ended."""
    from batch.reports.preprocess import write_preprocess_report

    replaced = remove_stale(sink, state.planned, state.fresh)
    commits = list(read_commits(sink))
    missing = state.planned - {commit.unit for commit in commits}
    if missing:
        raise RuntimeError(f"{len(missing)} units are not committed: another run changed {sink.root}; run again")
    remove_orphans(sink, commits)
    notes = state.notes
    corpus = {
        "unlabelled": notes.unlabelled,
        "missing_files": notes.missing_files,
        "damaged_metadata": len(notes.damaged_metadata),
        "vanished": replaced.vanished,
        "changed": replaced.changed,
    }
    summary = summarize(commits, corpus)
    if not state.fresh and sink.exists(SUMMARY) and not (replaced.vanished or replaced.changed):
        say(f"nothing to do: all {summary.listed} videos were done before")
    else:
        sink.put(SUMMARY, summary.to_json())
        sink.put(PLAN, b'{"listed": %d, "units": %d}' % (state.listed, len(state.planned)))
        title = f"Faces from {source.root}"
        shown = {**run.shaping, "versions": dict(run.versions)}
        write_preprocess_report(
            sink,
            summary=summary,
            commits=commits,
            title=title,
            options=shown,
            pictures=not options.no_pictures,
        )
    return _tell(options, sink, summary, state)


def _tell(options: PreprocessOptions, sink: Storage, summary: Summary, state: _State) -> Exit:
    aside, faults = sum(summary.set_aside.values()), sum(summary.faults.values())
    for line in state.notes.damaged_metadata:
        say(f"labels: damaged {line}")
    if state.notes.missing_files:
        examples = ", ".join(state.notes.missing_examples[:3])
        say(f"labels: {state.notes.missing_files} entries without a file ({examples})")
    print(f"listed     {summary.listed:>8}")
    print(f"kept       {summary.kept:>8}   {summary.faces} faces")
    print(f"set aside  {aside:>8}   {_listing(summary.set_aside)}")
    print(f"faults     {faults:>8}   {_listing(summary.faults)}")
    print(f"shards     {sink.uri('faces/')}")
    print(f"page       {sink.uri('report.html')}")
    if not summary.closes or summary.listed != state.listed:
        raise RuntimeError(f"the accounting does not close: {state.listed} videos listed, {summary.listed} accounted")
    if options.too_many_faults(faults, summary.listed):
        raise RuntimeError(f"{faults} faults, more than --max-faults {options.max_faults}")
    return Exit.FAULTS if faults and options.strict else Exit.OK


def _listing(counts: Any) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(PreprocessOptions, "preprocess", __doc__, argv, EXIT_CODES)
    try:
        return guarded(lambda: preprocess(options), "preprocess")
    except KeyboardInterrupt:
        say("interrupted; what was committed stays. Go on with the same command; look with:")
        say(f"  fakesift status {options.output}")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
