"""Buckets of videos and images and a model bundle in; what is new scored, on Ray, each night.

fakesift score s3://lab/bundle s3://uploads s3://desk/video s3://lab/scores --address auto
fakesift score demo/bundle demo/bucket demo/scores        # a laptop
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from batch.model.bundle import Bundle, load_bundle
from batch.scoring.close import remove_orphans
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.drift import EARLIER_RUNS, Drift, compare
from batch.scoring.index import COLUMNS, LedgerIndex, Sought
from batch.scoring.ledger import LedgerFile, committed_rows, ledger_tables, open_runs, read_ledger_files, write_ledger
from batch.scoring.listing import refuse_overlaps
from batch.scoring.look import MediaExtractor
from batch.scoring.plan import Planner
from batch.scoring.records import Item, ScoreUnit, ScoringOptions
from batch.scoring.runs import check_free, claimed, new_claim
from batch.scoring.summary import CommitSums, ScoreSummary, read_history, write_summary
from batch.scoring.tables import Recipe
from batch.scoring.twins import TwinWriter
from batch.scoring.units import cut_units
from batch.shards.purged import load_purged
from batch.shards.runfile import RunFile, claim_output, installed_versions, refuse_nested
from batch.storage.base import AccessError, Storage, under_way
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import EXIT_CODES, Exit, guarded, listing, parse, say
from jobs.metrics import JobMetrics
from jobs.progress import Progress, progress
from jobs.quiet import import_keras
from jobs.runtime import chosen_runtime
from jobs.score_options import ScoreOptions
from jobs.scoring import PoolOptions, ScoringPool, Shared, gpu_count
from jobs.session import check_conditional_writes, check_seen_by_all, ray_session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Night:
    """What a run works with, all of it read before the first task."""

    options: ScoreOptions
    bundle: Bundle
    scoring: ScoringOptions
    inputs: tuple[Storage, ...]
    sink: Storage
    files: Sequence[LedgerFile]
    open_runs: Sequence[int]
    planner: Planner
    started_s: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def in_time(self) -> bool:
        """Whether work may still be begun."""
        minutes = self.options.budget_minutes
        return minutes is None or time.monotonic() - self.started_s < minutes * 60


@dataclass(slots=True)
class _Done:
    """What a run did: counts alone."""

    items: int = 0
    began: float | None = None
    left_twins: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    refused_items: int = 0
    actors: int = 0
    runtime: str = ""


def score(options: ScoreOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before the first task."""
    options.check()
    night, last = _prepare(options)
    items = night.planner.items()
    first = next(items, None)
    if first is None and not night.planner.twins and not night.open_runs:
        return _nothing_to_do(night)
    claim = new_claim(
        night=options.when().isoformat(),
        inputs=tuple(each.root for each in night.inputs),
        bundle=night.bundle.digest,
        options=night.scoring.digest(),
    )
    with claimed(night.sink, last, claim) as mine, under_way():
        recipe = _recipe(night, mine.run)
        pending = items if first is None else itertools.chain([first], items)
        with progress("items") as bar:
            done = _work(night, recipe, pending, first is not None, bar)
        return _close(night, mine.run, done)


def _prepare(options: ScoreOptions) -> tuple[_Night, int]:
    """Opens and checks everything, and reads the ledger; with the number of the last run."""
    s3 = S3Options(endpoint=options.s3_endpoint)
    bundle = load_bundle(open_storage(options.bundle, s3))
    scoring = options.scoring(bundle.face_options)
    inputs = tuple(open_storage(each, s3) for each in options.inputs)
    sink = open_storage(options.output, s3)
    refuse_overlaps(inputs)
    for each in inputs:
        refuse_nested(each, sink)
    if not options.single_writer:
        check_conditional_writes(sink)
    claim_output(sink, RunFile(kind="score", input="", shaping={}, versions=installed_versions()))
    last = check_free(sink)
    files = read_ledger_files(sink)
    runs = open_runs(sink, files)
    tables = itertools.chain(ledger_tables(sink, files, COLUMNS), committed_rows(sink, runs))
    index = LedgerIndex(tables, Sought.of(bundle.digest, scoring, options.when()))
    planner = Planner(inputs, index, options.plan(), load_purged(sink))
    night = _Night(
        options=options, bundle=bundle, scoring=scoring, inputs=inputs, sink=sink, files=files, open_runs=runs,
        planner=planner,
    )  # fmt: skip
    return night, last


def _nothing_to_do(night: _Night) -> Exit:
    """The end of a run that found nothing new: OUTPUT stays as it is."""
    planner = night.planner
    denied = planner.denied
    if len(denied) == len(night.inputs):
        raise AccessError("; ".join(denied.values()))
    if not planner.listed.total() and not denied:
        raise ValueError(f"inputs {', '.join(each.root for each in night.inputs)}: no video and no image there")
    for root, error in denied.items():
        say(f"input {root}: {error}")
    say(f"nothing to do: of {planner.listed.total()} objects none is new; {planner.vanished()} vanished since")
    return Exit.FAILED if denied else Exit.OK


def _recipe(night: _Night, run: int) -> Recipe:
    return Recipe.of(
        night.bundle,
        run=run,
        night=night.options.when().isoformat(),
        options=night.scoring.digest(),
        crops_options=night.scoring.faces.digest(),
        roots=tuple(each.root for each in night.inputs),
        prefixes=tuple(each.uri("") for each in night.inputs),
        keep_crops=night.options.keep_crops,
        precision=night.scoring.precision,
    )


def _work(night: _Night, recipe: Recipe, pending: Iterable[Item], any_unit: bool, bar: Progress) -> _Done:
    """Commits what is pending. Ray starts only if something is to be looked at."""
    done = _Done()
    salt = f"{recipe.run} {recipe.bundle} {recipe.options}"
    if any_unit:
        units = cut_units(_while_in_time(night, pending, bar), night.options.frames, salt)
        _look_and_score(night, recipe, units, done, bar)
    twins = TwinWriter(night.sink, night.inputs, recipe)
    for report in twins.write(night.planner.twins, night.files, [*night.open_runs, recipe.run]):
        _note(report.commit, done, bar)
    done.left_twins = len(twins.left)
    if twins.unlike:
        units = cut_units(_while_in_time(night, twins.unlike, bar), night.options.frames, f"{salt} again")
        _look_and_score(night, recipe, units, done, bar)
    return done


def _while_in_time(night: _Night, items: Iterable[Item], bar: Progress) -> Iterator[Item]:
    for item in items:
        if not night.in_time:
            return
        yield item
    bar.total(night.planner.pending.total())


def _look_and_score(night: _Night, recipe: Recipe, units: Iterable[ScoreUnit], done: _Done, bar: Progress) -> None:
    options = night.options
    extractor = MediaExtractor(
        source=night.inputs[0], sources=night.inputs, options=night.scoring.faces, pictures=False
    )
    places = {f"input {number + 1}": each for number, each in enumerate(night.inputs)}
    with ray_session(options.address, options.extract_workers) as ray:
        check_seen_by_all(ray, {**places, "output": night.sink}, night.sink)
        runtime = chosen_runtime(options.runtime, gpu_count(ray))
        pool_options = PoolOptions(
            extract_workers=options.extract_workers, score_actors=options.score_actors, batch_size=options.batch_size,
            precision=options.precision, runtime=runtime,
        )  # fmt: skip
        own = replace(recipe, runtime=runtime)
        shared = Shared(extractor=extractor, limits=options.limits(), sink=night.sink, recipe=own)
        pool = ScoringPool(ray, night.bundle, shared, pool_options)
        metrics = JobMetrics("score")
        done.actors, done.runtime = pool.actors, runtime
        done.began = done.began or time.monotonic()
        for report in pool.run(units):
            _note(report.commit, done, bar)
            _count(report.commit, metrics)
        done.refused.update(pool.refused.inputs)
        done.refused_items += pool.refused.items


def _note(commit: ScoreCommit, done: _Done, bar: Progress) -> None:
    done.items += commit.listed
    bar.add(Counter(commit.kinds))


def _count(commit: ScoreCommit, metrics: JobMetrics) -> None:
    outcomes = {"scored": commit.kinds.get("scored", 0), **commit.reasons}
    metrics.unit(reasons=outcomes, faces=commit.crops, bytes_read=commit.bytes_read, requests=commit.requests)


def _close(night: _Night, run: int, done: _Done) -> Exit:
    """Takes the commits into the ledger, writes the summary, and says how it ended."""
    sink, runs = night.sink, [*night.open_runs, run]
    commits = read_commits(sink, commit_keys(sink, runs))
    remove_orphans(sink, runs, commits)
    sums = CommitSums().add(read_commits(sink, commit_keys(sink, runs)))
    own = CommitSums().add(read_commits(sink, commit_keys(sink, [run])))
    write_ledger(sink, run, runs)
    summary = _summary(night, run, runs, done, sums, own)
    drift = compare(read_history(sink, EARLIER_RUNS), summary)
    summary = replace(summary, drift=drift.alarms, psi=drift.psi)
    write_summary(sink, summary)
    _write_page(night, runs, summary, drift)
    return _tell(night, summary, own)


def _write_page(night: _Night, runs: Sequence[int], summary: ScoreSummary, drift: Drift) -> None:
    # Here, since charts and network take seconds to load and a run with nothing to do needs neither.
    from batch.reports.score import PictureOptions, write_score_report

    if not night.options.no_pictures:
        import_keras()
    pictures = PictureOptions(sources=night.inputs, faces=night.scoring.faces, limits=night.options.limits())
    write_score_report(
        night.sink,
        summary=summary,
        commits=read_commits(night.sink, commit_keys(night.sink, runs)),
        drift=drift,
        bundle=night.bundle,
        options={
            "job": asdict(night.options),
            **{**asdict(night.scoring), "runtime": summary.runtime},
            "versions": installed_versions(),
        },
        pictures=None if night.options.no_pictures else pictures,
    )


def _summary(
    night: _Night, run: int, runs: Sequence[int], done: _Done, sums: CommitSums, own: CommitSums
) -> ScoreSummary:
    planner = night.planner
    denied = {**planner.denied, **{night.inputs[number].root: error for number, error in done.refused.items()}}
    pending = planner.pending.total()
    left = {"limit": planner.beyond_limit, "denied": done.refused_items, "twins": done.left_twins}
    left["budget"] = pending - own.total.items - sum(left.values())
    wall_s = time.monotonic() - night.started_s
    busy_s = 0.0 if done.began is None else max(1e-9, time.monotonic() - done.began)
    rates = {
        "items_per_second": own.total.items / max(1e-9, wall_s),
        "crops_per_second": own.total.crops / busy_s if busy_s else 0.0,
        "model_busy": own.seconds["predict"] / busy_s / done.actors if busy_s and done.actors else 0.0,
    }
    return ScoreSummary(
        run=run,
        runs=tuple(runs),
        night=night.options.when().isoformat(),
        started_at=night.started_at,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle=night.bundle.digest,
        bundle_uri=night.bundle.uri,
        options=night.scoring.digest(),
        total=sums.total,
        inputs=sums.inputs,
        listed=dict(planner.listed),
        denied=denied,
        filtered=planner.filtered,
        pending=pending,
        left={why: count for why, count in left.items() if count},
        vanished=planner.vanished(),
        units=sums.counts["units"],
        bytes_listed=sums.counts["bytes_listed"],
        bytes_read=sums.counts["bytes_read"],
        requests=sums.counts["requests"],
        seconds={**{name: round(spent, 3) for name, spent in sorted(sums.seconds.items())}, "wall": round(wall_s, 3)},
        rates={name: round(value, 4) for name, value in rates.items()},
        runtime=done.runtime,
        precision=night.scoring.precision,
    )


def _tell(night: _Night, summary: ScoreSummary, own: CommitSums) -> Exit:
    total = summary.total
    print(f"listed     {sum(summary.listed.values()):>8}   {listing(summary.listed)}")
    print(f"looked at  {total.items:>8}   {listing(total.why)}; {total.same} by the content of others")
    print(f"scored     {total.scored:>8}   {listing(total.bands)}")
    print(f"set aside  {sum(total.set_aside.values()):>8}   {listing(total.set_aside)}")
    print(f"faults     {sum(total.faults.values()):>8}   {listing(total.faults)}")
    print(f"left       {sum(summary.left.values()):>8}   {listing(summary.left)}")
    print(f"vanished   {summary.vanished:>8}")
    print(f"scores     {night.sink.uri('items/')}")
    print(f"page       {night.sink.uri('report.html')}")
    for root, error in summary.denied.items():
        say(f"input {root}: {error}")
    for line in summary.drift:
        say(f"drift: {line}")
    if not total.closes or min(summary.left.values(), default=0) < 0:
        raise RuntimeError(f"the accounting does not close: {summary.pending} to look at, {own.total.items} accounted")
    if not night.options.budget_minutes and summary.left.get("budget"):
        raise RuntimeError(f"{summary.left['budget']} items were not looked at; run again to go on")
    if summary.denied:
        return Exit.FAILED
    if not night.options.strict:
        return Exit.OK
    return Exit.FAULTS if total.faults else Exit.DRIFT if summary.drift else Exit.OK


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(ScoreOptions, "score", __doc__, argv, EXIT_CODES)
    try:
        return guarded(lambda: score(options), "score")
    except KeyboardInterrupt:
        say("interrupted; what was committed stays. Go on with the same command.")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
