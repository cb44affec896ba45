"""The end of a scoring run: its commits added up, drift, page, `summary.json`, and the ledger last of all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from batch.model.bundle import Bundle
from batch.scoring.close import remove_orphans
from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.drift import EARLIER_RUNS, Drift, compare
from batch.scoring.ledger import LEDGER, LedgerFile, write_ledger
from batch.scoring.plan import Planner
from batch.scoring.records import ScoringOptions
from batch.scoring.runs import check_held, drop_late, now, read_claim, still_held
from batch.scoring.summary import (
    MOST_LIKELY_FAKE,
    CommitSums,
    LastCheck,
    LikelyFake,
    ScoreSummary,
    note_check,
    read_history,
    write_summary,
)
from batch.scoring.suspicious import Findings, find
from batch.shards.runfile import installed_versions
from batch.storage.base import AccessError, Storage
from jobs.console import Exit, listing, say
from jobs.quiet import import_keras_on_cores
from jobs.score_options import ScoreOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a run works with, all of it read before the first task."""

    options: ScoreOptions
    bundle: Bundle
    scoring: ScoringOptions
    inputs: tuple[Storage, ...]
    sink: Storage
    last: int
    """The number of the run before."""
    files: Sequence[LedgerFile]
    open_runs: Sequence[int]
    """Runs that were killed."""
    known: frozenset[str]
    """Keys of their commits, as far as this run has read them."""
    is_first: bool
    """Whether no object was ever looked at."""
    planner: Planner
    started_s: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def in_time(self) -> bool:
        """Whether work may still be begun."""
        minutes = self.options.budget_minutes
        return minutes is None or time.monotonic() - self.started_s < minutes * 60


@dataclass(slots=True, kw_only=True)
class Done:
    """What a run did: counts alone."""

    began: float | None = None
    ended: float | None = None
    """Of its units."""
    left_twins: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    refused_items: int = 0
    actor_seconds: float = 0.0
    runtimes: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """The first unit may start."""
        self.began = self.began or time.monotonic()

    @property
    def busy_s(self) -> float:
        """From the first unit's start to the last one's end."""
        return 0.0 if self.began is None or self.ended is None else max(1e-9, self.ended - self.began)


def nothing_to_do(night: Night) -> Exit:
    """The end of a run that found nothing new: OUTPUT stays as it is, but for a word in `summary.json`."""
    planner = night.planner
    problems = {**planner.denied, **planner.failed}
    is_closed = len(planner.denied) == len(night.inputs)
    if not (is_closed or planner.listed.total() or problems) and night.is_first:
        raise ValueError(f"inputs {', '.join(each.root for each in night.inputs)}: no video and no image there")
    code = Exit.USAGE if is_closed else Exit.FAILED if problems else Exit.OK
    if still_held(night.sink, night.last):
        check = LastCheck(at=now(), exit_code=code, pending=0, vanished=planner.vanished(), denied=problems)
        note_check(night.sink, check)
    if is_closed:
        raise AccessError("; ".join(planner.denied.values()))
    for root, error in problems.items():
        say(f"input {root}: {error}")
    say(f"nothing to do: of {planner.listed.total()} objects none is new; {planner.vanished()} vanished since")
    return code


def close_run(night: Night, run: int, done: Done) -> Exit:
    """Adds the commits up, writes page, summary and ledger, and says how it ended.

    What killed runs scored with another bundle or other options goes into the ledger and into no figure of this run.
    The ledger is last: until it is there the run counts as killed, and the next one does all of this again.
    """
    sink, runs = night.sink, [*night.open_runs, run]
    check_held(sink, run)
    drop_late(sink, night.open_runs, night.known)
    remove_orphans(sink, runs, read_commits(sink, commit_keys(sink, runs)))
    added = [each for each in runs if _scores_alike(night, each)]
    sums = CommitSums().add(read_commits(sink, commit_keys(sink, added)))
    own = CommitSums().add(read_commits(sink, commit_keys(sink, [run])))
    findings = find(sink, read_commits(sink, commit_keys(sink, added)), files=night.files)
    summary = replace(_summary(night, run, added, done, sums, own), likely_fake=_likely_fake(findings))
    drift = compare(read_history(sink, EARLIER_RUNS + len(added), with_items=True), summary)
    summary = _judged(night.options, replace(summary, drift=drift.alarms, psi=drift.psi), own)
    _write_page(night, summary, drift, findings)
    check_held(sink, run)
    write_summary(sink, summary)
    _drop_parts(sink, night.open_runs)
    write_ledger(sink, run, runs)
    _tell(sink, summary)
    return Exit(summary.exit_code)


def _scores_alike(night: Night, run: int) -> bool:
    """Whether a run has the bundle and the options of this one."""
    claim = read_claim(night.sink, run)
    return (claim.bundle, claim.options) == (night.bundle.digest, night.scoring.digest())


def _drop_parts(sink: Storage, killed: Sequence[int]) -> None:
    """Removes what runs that died while they wrote the ledger put there: `ledger/*.parquet` is for people to read."""
    for run in killed:
        for item in sink.list(f"{LEDGER}{run:06d}."):
            sink.delete(item.key)


def _likely_fake(findings: Findings) -> tuple[LikelyFake, ...]:
    return tuple(
        LikelyFake(uri=each.uri, probability=each.probability, uncertainty=each.uncertainty, others=each.others)
        for each in findings.suspects
        if each.band == "likely fake"
    )[:MOST_LIKELY_FAKE]


def _write_page(night: Night, summary: ScoreSummary, drift: Drift, findings: Findings) -> None:
    # Here, since charts and network take seconds to load and a run with nothing to do needs neither.
    from batch.reports.score import PictureOptions, write_score_report

    if not night.options.no_pictures:
        import_keras_on_cores()
    pictures = PictureOptions(sources=night.inputs, faces=night.scoring.faces, limits=night.options.limits())
    write_score_report(
        night.sink,
        summary=summary,
        findings=findings,
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
    night: Night, run: int, runs: Sequence[int], done: Done, sums: CommitSums, own: CommitSums
) -> ScoreSummary:
    planner = night.planner
    denied = {**planner.denied, **{night.inputs[number].root: error for number, error in done.refused.items()}}
    pending = planner.pending.total()
    left = {"limit": planner.beyond_limit, "denied": done.refused_items, "twins": done.left_twins}
    left["budget"] = pending - own.total.items - sum(left.values())
    wall_s, busy_s = time.monotonic() - night.started_s, done.busy_s
    rates = {
        "items_per_second": own.total.items / busy_s if busy_s else 0.0,
        "crops_per_second": own.total.crops / busy_s if busy_s else 0.0,
        "model_busy": own.seconds["predict"] / done.actor_seconds if done.actor_seconds else 0.0,
    }
    return ScoreSummary(
        run=run,
        runs=tuple(runs),
        night=night.options.when().isoformat(),
        started_at=night.started_at,
        ended_at=now(),
        bundle=night.bundle.digest,
        bundle_uri=night.bundle.uri,
        options=night.scoring.digest(),
        total=sums.total,
        inputs=sums.inputs,
        listed=dict(planner.listed),
        denied=denied,
        failed=dict(planner.failed),
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
        runtime=", ".join(sorted(done.runtimes)),
        precision=night.scoring.precision,
    )


def _judged(options: ScoreOptions, summary: ScoreSummary, own: CommitSums) -> ScoreSummary:
    """With how the run ends."""
    total, left, problem = summary.total, summary.left, ""
    if not total.closes or min(left.values(), default=0) < 0:
        problem = f"the accounting does not close: {summary.pending} to look at, {own.total.items} accounted"
    elif not options.budget_minutes and left.get("budget"):
        problem = f"{left['budget']} items were not looked at; run again to go on"
    code = Exit.OK
    if problem or summary.denied or summary.failed:
        code = Exit.FAILED
    elif options.strict and summary.drift:  # before faults, of which most nights have some
        code = Exit.DRIFT
    elif options.strict and total.faults:
        code = Exit.FAULTS
    check = LastCheck(
        at=summary.ended_at, exit_code=code, pending=summary.pending, vanished=summary.vanished,
        denied={**summary.denied, **summary.failed},
    )  # fmt: skip
    return replace(summary, exit_code=code, problem=problem, last_check=check)


def _tell(sink: Storage, summary: ScoreSummary) -> None:
    total = summary.total
    print(f"listed     {sum(summary.listed.values()):>8}   {listing(summary.listed)}")
    print(f"looked at  {total.items:>8}   {listing(total.why)}; {total.same} by the content of others")
    print(f"scored     {total.scored:>8}   {listing(total.bands)}")
    print(f"set aside  {sum(total.set_aside.values()):>8}   {listing(total.set_aside)}")
    print(f"faults     {sum(total.faults.values()):>8}   {listing(total.faults)}")
    print(f"left       {sum(summary.left.values()):>8}   {listing(summary.left)}")
    print(f"vanished   {summary.vanished:>8}")
    print(f"scores     {sink.uri('items/')}")
    print(f"page       {sink.uri('report.html')}")
    for root, error in {**summary.denied, **summary.failed}.items():
        say(f"input {root}: {error}")
    for line in summary.drift:
        say(f"drift: {line}")
    if summary.problem:
        say(f"fakesift score: {summary.problem}")
