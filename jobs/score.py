"""Buckets of videos and images and a model bundle in; what is new scored, on Ray, each night.

fakesift score s3://lab/bundle s3://uploads s3://desk/video s3://lab/scores --address auto
fakesift score demo/bundle demo/bucket demo/scores        # a laptop
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from batch.ahead import mapped_ahead
from batch.model.bundle import load_bundle
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.digests import place_secret
from batch.scoring.index import COLUMNS, LedgerIndex, Sought
from batch.scoring.ledger import ledger_tables, open_runs, read_ledger_files, rows_of
from batch.scoring.listing import refuse_overlaps
from batch.scoring.look import MediaExtractor
from batch.scoring.plan import Planner
from batch.scoring.records import Item, ScoreUnit
from batch.scoring.runs import check_free, claimed, drop_late, new_claim
from batch.scoring.tables import Recipe
from batch.scoring.twins import TwinWriter
from batch.scoring.units import cut_units
from batch.shards.purged import load_purged
from batch.shards.runfile import RunFile, claim_output, installed_versions, refuse_nested
from batch.storage.base import under_way
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import EXIT_CODES, Exit, begun, guarded, parse, say
from jobs.metrics import JobMetrics
from jobs.progress import Progress, progress
from jobs.runtime import chosen_runtime
from jobs.score_end import Done, Night, close_run, nothing_to_do
from jobs.score_options import ScoreOptions
from jobs.scorer import PoolOptions, Shared
from jobs.scoring import ScoringPool
from jobs.session import check_conditional_writes, check_seen_by_all, ray_session


def score(options: ScoreOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before the first task."""
    options.check()
    night = _prepare(options)
    items = night.planner.items()
    first = next(items, None)
    if first is None and not night.planner.twins and not night.open_runs:
        return nothing_to_do(night)
    claim = new_claim(
        night=options.when().isoformat(),
        inputs=tuple(each.root for each in night.inputs),
        bundle=night.bundle.digest,
        options=night.scoring.digest(),
    )
    with ExitStack() as joined:
        ray = joined.enter_context(_cluster(night)) if first is not None else None
        with claimed(night.sink, night.last, claim) as mine, under_way():
            drop_late(night.sink, night.open_runs, night.known)
            pending = items if first is None else itertools.chain([first], items)
            with progress("items") as bar:
                done = _work(night, _recipe(night, mine.run), ray, joined, pending, bar)
            joined.close()  # the page's own network wants their memory
            return close_run(night, mine.run, done)


def _prepare(options: ScoreOptions) -> Night:
    """Opens and checks everything, and reads the ledger."""
    s3 = S3Options(endpoint=options.s3_endpoint)
    bundle = load_bundle(open_storage(options.bundle, s3))
    bundle.check_precision(options.precision)
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
    known = frozenset(commit_keys(sink, runs))
    rows = mapped_ahead(lambda commit: rows_of(sink, commit), read_commits(sink, sorted(known)))
    sought = Sought.of(bundle.digest, scoring, options.when())
    index = LedgerIndex(itertools.chain(ledger_tables(sink, files, COLUMNS), rows), sought)
    planner = Planner(inputs, index, options.plan(), load_purged(sink), place_secret(sink))
    return Night(
        options=options, bundle=bundle, scoring=scoring, inputs=inputs, sink=sink, last=last, files=files,
        open_runs=runs, known=known, is_first=not len(index), planner=planner,
    )  # fmt: skip


@contextmanager
def _cluster(night: Night) -> Iterator[Any]:
    """Ray, joined or started, whose nodes see all places."""
    options = night.options
    inputs = {f"input {number + 1}": each for number, each in enumerate(night.inputs)}
    places = {**inputs, "bundle": night.bundle.sink, "output": night.sink}
    with ray_session(options.address, options.extract_workers) as ray:
        check_seen_by_all(ray, places, night.sink)
        yield ray


def _recipe(night: Night, run: int) -> Recipe:
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


def _work(night: Night, recipe: Recipe, ray: Any, joined: ExitStack, pending: Iterable[Item], bar: Progress) -> Done:
    """Commits what is pending. Where there is no Ray yet, it starts only if something is to be looked at."""
    done = Done()
    done.begin()
    salt = f"{recipe.run} {recipe.bundle} {recipe.options}"
    pool = None
    if ray is not None:
        pool = _pool(night, recipe, ray)
        _look_and_score(pool, cut_units(_while_in_time(night, pending, bar), night.options.frames, salt), done, bar)
    twins = TwinWriter(night.sink, recipe, lambda: night.in_time)
    for report in twins.write(night.planner.twins, night.files, [*night.open_runs, recipe.run]):
        _note(report.commit, done, bar)
    done.left_twins = twins.later
    if twins.apart:
        if pool is None:
            with begun():
                ray = joined.enter_context(_cluster(night))
            pool = _pool(night, recipe, ray)
        again = _while_in_time(night, twins.again(), bar)
        _look_and_score(pool, cut_units(again, night.options.frames, f"{salt} again"), done, bar)
    if pool is not None:
        done.actor_seconds, done.runtimes = pool.actors.seconds, pool.actors.runtimes
        done.refused, done.refused_items = pool.refused.inputs, pool.refused.items
    return done


def _while_in_time(night: Night, items: Iterable[Item], bar: Progress) -> Iterator[Item]:
    for item in items:
        if not night.in_time:
            return
        yield item
    bar.total(night.planner.pending.total())


def _pool(night: Night, recipe: Recipe, ray: Any) -> ScoringPool:
    options = night.options
    extractor = MediaExtractor(
        source=night.inputs[0], sources=night.inputs, options=night.scoring.faces, pictures=False
    )
    shared = Shared(extractor=extractor, limits=options.limits(), sink=night.sink, recipe=recipe)
    pool_options = PoolOptions(
        extract_workers=options.extract_workers, score_actors=options.score_actors, score_gpus=options.score_gpus,
        batch_size=options.batch_size, precision=options.precision, runtime=chosen_runtime(options.runtime, 0),
        uses_gpus=options.runtime != "openvino",
    )  # fmt: skip
    return ScoringPool(ray, night.bundle, shared, pool_options)


def _look_and_score(pool: ScoringPool, units: Iterable[ScoreUnit], done: Done, bar: Progress) -> None:
    metrics = JobMetrics("score")
    for report in pool.run(units):
        _note(report.commit, done, bar)
        _count(report.commit, metrics)


def _note(commit: ScoreCommit, done: Done, bar: Progress) -> None:
    done.ended = time.monotonic()
    bar.add(Counter(commit.kinds))


def _count(commit: ScoreCommit, metrics: JobMetrics) -> None:
    outcomes = {"scored": commit.kinds.get("scored", 0), **commit.reasons}
    metrics.unit(reasons=outcomes, faces=commit.crops, bytes_read=commit.bytes_read, requests=commit.requests)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(ScoreOptions, "score", __doc__, argv, EXIT_CODES)
    try:
        return guarded(lambda: score(options), "score")
    except KeyboardInterrupt:
        say("interrupted; go on with the same command")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
