"""Video corpus in, Parquet shards of face crops and one outcome a video out, on Ray.

fakesift preprocess s3://corpus/dfdc s3://lab/faces --address auto
fakesift preprocess demo/corpus demo/faces --workers 2        # a laptop
"""

from __future__ import annotations

import itertools
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos
from batch.corpus.listing import list_videos, sample_videos
from batch.corpus.units import plan_units
from batch.faces.extract import Extractor
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.records import Reason, VideoRef, WorkUnit
from batch.shards.build import UnitReport, build_unit
from batch.shards.close import remove_orphans, remove_stale, unit_of
from batch.shards.commit import Commit, committed_keys, read_commits, unit_name
from batch.shards.purged import load_purged
from batch.shards.retry import retry_unit
from batch.shards.runfile import RunFile, claim_output, installed_versions, refuse_nested
from batch.shards.summary import PLAN, SUMMARY, Summary, kind_counts, summarize
from batch.storage.base import Storage, under_way
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import EXIT_CODES, Exit, guarded, listing, parse, say
from jobs.fanout import fan_out
from jobs.metrics import JobMetrics
from jobs.preprocess_options import PreprocessOptions
from jobs.progress import Progress, progress
from jobs.session import check_conditional_writes, check_seen_by_all, ray_session
from jobs.worklog import unit_log


@dataclass(slots=True)
class _State:
    """What the driver knows: ids and counts, never rows."""

    planned: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)
    listed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    purged: int = 0
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
    units = _plan(options, source, sink, state)
    if not options.single_writer:
        check_conditional_writes(sink)
    run = RunFile(kind="preprocess", input=source.root, shaping=options.shaping(), versions=installed_versions())
    claim_output(sink, run)
    done = _done(options, sink)
    with progress() as bar:
        _count(options, source, bar)
        _extract(options, source, sink, units, done, state, bar)
    with under_way():
        return _close(options, sink, state, run)


def _done(options: PreprocessOptions, sink: Storage) -> dict[str, list[Commit]]:
    """Committed units; with their commits only where they are wanted, for `--retry`."""
    done: dict[str, list[Commit]] = {unit_of(key): [] for key in committed_keys(sink)}
    if options.retry is not None:
        for commit in read_commits(sink):
            done.setdefault(commit.unit, []).append(commit)
    return done


def _plan(options: PreprocessOptions, source: Storage, sink: Storage, state: _State) -> Iterator[WorkUnit]:
    """The corpus as units, streamed; says how it is labelled."""
    table = None
    if options.labels.lower().endswith((".csv", ".parquet")):
        place = options.labels.rsplit("/", 1)[0] if "/" in options.labels else "."
        table = open_storage(place, S3Options(endpoint=options.s3_endpoint))
    labels, items = choose_labels(options.labels, source, list_videos(source), state.notes, table)
    say(f"input {source.root}, labels: {labels.mode}")
    videos: Iterator[VideoRef] = sample_videos(
        _without_purged(sink, label_videos(items, labels, state.notes), state),
        limit=options.limit,
        max_bytes=options.sample_bytes(),
        seed=options.seed,
    )
    return plan_units(videos, options.face_options())


def _without_purged(sink: Storage, videos: Iterator[VideoRef], state: _State) -> Iterator[VideoRef]:
    """Leaves out what was taken down from this output; counts it."""
    purged = load_purged(sink)
    for video in videos:
        if purged.covers(video):
            state.purged += 1
        else:
            yield video


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
    done: dict[str, list[Commit]],
    state: _State,
    bar: Progress,
) -> None:
    """Commits every planned unit that is not committed. Ray starts only if there is one."""
    pending = _pending(options, sink, units, done, state, bar)
    first = next(pending, None)
    if first is None:
        return
    with ray_session(options.address, options.workers) as ray:
        check_seen_by_all(ray, {"input": source, "output": sink}, sink)
        task = ray.remote(num_cpus=1, max_retries=5)(_task)
        extractor = Extractor(source=source, options=options.face_options(), pictures=not options.no_pictures)
        shared = (extractor, options.limits(), sink)
        limit = options.workers if options.address else None
        metrics = JobMetrics("preprocess")
        with under_way(), closing(fan_out(ray, task, shared, itertools.chain([first], pending), limit)) as reports:
            for report in reports:
                state.fresh.append(report.commit.unit)
                metrics.commit(report.commit)
                _note(report.commit, state, bar)
                if options.too_many_faults(state.faults.total(), state.seen):
                    top = ", ".join(f"{name} {n}" for name, n in state.faults.most_common(3))
                    raise RuntimeError(f"stopped: {state.faults.total()} faults in {state.seen} videos ({top})")


def _task(extractor: Extractor, limits: LimitOptions, sink: Storage, unit: WorkUnit) -> UnitReport:
    isolated = _isolated(pickle.dumps((extractor, limits)))
    isolated.announce(unit.videos)
    source = extractor.source
    with unit_log(unit_name(unit.id, unit.generation), videos=len(unit.videos)) as log:
        look = log.watched(isolated, lambda video: source.uri(video.key))
        report = build_unit(unit, look, source.root, sink, extractor.options.digest())
        log.done("unit committed" if report.won else "unit was committed before", **report.commit.reasons)
    return report


@lru_cache(maxsize=1)
def _isolated(pickled: bytes) -> IsolatedExtractor:
    """One decoding process a worker process, kept from unit to unit: each task brings a new but equal extractor."""
    return IsolatedExtractor(*pickle.loads(pickled))  # noqa: S301  (made a line before, in this process)


def _pending(
    options: PreprocessOptions,
    sink: Storage,
    units: Iterator[WorkUnit],
    done: dict[str, list[Commit]],
    state: _State,
    bar: Progress,
) -> Iterator[WorkUnit]:
    """The units that are not committed, and the retries of those that are."""
    for unit in units:
        state.planned.add(unit.id)
        state.listed += len(unit.videos)
        if unit.id not in done:
            yield unit
            continue
        again = retry_unit(unit, done[unit.id], options.retried(), sink) if options.retry else None
        bar.add(Counter(before=len(unit.videos) - (len(again.videos) if again else 0)))
        if again:
            yield again


def _note(commit: Commit, state: _State, bar: Progress) -> None:
    state.seen += commit.listed
    state.faults.update({name: n for name, n in commit.reasons.items() if Reason(name).is_fault})
    bar.add(kind_counts(commit.reasons))


def _close(options: PreprocessOptions, sink: Storage, state: _State, run: RunFile) -> Exit:
    """Removes what is stale, adds the commits up, writes summary and page, and says how it ended."""
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
        "purged": state.purged,
    }
    summary = summarize(commits, corpus)
    plan = json.dumps({"listed": state.listed, "units": len(state.planned)}).encode()
    if not state.fresh and _holds(sink, SUMMARY, summary.to_json()) and _holds(sink, PLAN, plan):
        say(f"nothing to do: all {summary.listed} videos were done before")
    else:
        # Here, since the charts' library takes a second to load and a rerun has nothing to draw.
        from batch.reports.preprocess import write_preprocess_report

        shown = {**run.shaping, "versions": dict(run.versions)}
        write_preprocess_report(
            sink,
            summary=summary,
            commits=commits,
            title=f"Faces from {run.input}",
            options=shown,
            pictures=not options.no_pictures,
        )
        sink.put(SUMMARY, summary.to_json())
        sink.put(PLAN, plan)
    return _tell(options, sink, summary, state)


def _holds(sink: Storage, key: str, data: bytes) -> bool:
    """Whether these very bytes are there: a run that was killed while it closed has left older ones."""
    return sink.exists(key) and sink.read(key) == data


def _tell(options: PreprocessOptions, sink: Storage, summary: Summary, state: _State) -> Exit:
    aside, faults = sum(summary.set_aside.values()), sum(summary.faults.values())
    for line in state.notes.damaged_metadata:
        say(f"labels: damaged {line}")
    if state.notes.missing_files:
        examples = ", ".join(state.notes.missing_examples[:3])
        say(f"labels: {state.notes.missing_files} entries without a file ({examples})")
    print(f"listed     {summary.listed:>8}")
    print(f"kept       {summary.kept:>8}   {summary.faces} faces")
    print(f"set aside  {aside:>8}   {listing(summary.set_aside)}")
    print(f"faults     {faults:>8}   {listing(summary.faults)}")
    print(f"shards     {sink.uri('faces/')}")
    print(f"page       {sink.uri('report.html')}")
    if not summary.closes or summary.listed != state.listed:
        raise RuntimeError(f"the accounting does not close: {state.listed} videos listed, {summary.listed} accounted")
    if options.too_many_faults(faults, summary.listed):
        raise RuntimeError(f"{faults} faults, more than --max-faults {options.max_faults}")
    return Exit.FAULTS if faults and options.strict else Exit.OK


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(PreprocessOptions, "preprocess", __doc__, argv, EXIT_CODES)
    try:
        return guarded(lambda: preprocess(options), "preprocess")
    except KeyboardInterrupt:
        say("interrupted; go on with the same command; look with:")
        say(f"  fakesift status {options.output}")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
