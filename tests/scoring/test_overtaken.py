"""Runs that take over from others, INPUTs that are listed in part, and what the last runs are held against."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from batch.faces.isolate import LimitOptions
from batch.faces.options import FaceOptions
from batch.records import StoredObject
from batch.scoring.commit import commit_keys
from batch.scoring.drift import compare
from batch.scoring.index import LedgerIndex, Sought
from batch.scoring.plan import Planner, PlanOptions
from batch.scoring.records import Item, ScoringOptions
from batch.scoring.revisit import revisit
from batch.scoring.runs import drop_late
from batch.scoring.summary import ScoreSummary, Tally, read_history, write_summary
from batch.scoring.suspicious import Suspect
from batch.storage.base import AccessError, Storage, StorageError
from batch.storage.local import LocalStorage
from tests.support.scored import claim, record

OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))
ITEM = Item(input=0, key="a.jpg", size_bytes=10, etag="e", modified_s=0)


def test_a_run_that_is_overtaken_while_it_writes_does_not_commit(tmp_path: Path) -> None:
    class Overtaken(LocalStorage):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            if key.startswith("items/"):
                claim(self, 2)

    sink = Overtaken(tmp_path / "out")
    with pytest.raises(RuntimeError, match="run 2 has taken this output over"):
        record(sink, LocalStorage(tmp_path / "in"), [ITEM], run=1, options=OPTIONS)
    assert list(sink.list("items/"))
    assert not list(commit_keys(sink, [1]))


def test_commits_that_came_too_late_go(tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path / "out")
    for name in "ab":
        record(sink, LocalStorage(tmp_path / "in"), [replace(ITEM, key=f"{name}.jpg")], run=1, options=OPTIONS)
    first, second = commit_keys(sink, [1])
    assert drop_late(sink, [1], {first}) == 1
    assert not sink.exists(second)
    assert drop_late(sink, [1], {first}) == 0


def planner(*inputs: Storage, **options: object) -> Planner:
    index = LedgerIndex([], Sought.of("b", OPTIONS, date(2026, 3, 2)))
    return Planner(inputs, index, PlanOptions(**options))  # type: ignore[arg-type]


def test_what_is_beyond_the_limit_is_known_though_time_runs_out_first(tmp_path: Path) -> None:
    source = LocalStorage(tmp_path / "in")
    for number in range(5):
        source.put(f"{number}.jpg", bytes([number]))
    plan = planner(source, limit=3, newest=True)
    next(plan.items())
    assert (plan.pending.total(), plan.beyond_limit) == (5, 2)
    assert planner(source).beyond_limit == 0


def test_a_listing_that_breaks_off_is_no_refusal(tmp_path: Path) -> None:
    class Breaking(LocalStorage):
        error: StorageError

        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            yield StoredObject(key="a.jpg", size_bytes=1, etag="e", modified_s=0)
            raise self.error

    refusing, failing = Breaking(tmp_path / "one"), Breaking(tmp_path / "two")
    refusing.error, failing.error = AccessError("AccessDenied"), StorageError("SlowDown")
    plan = planner(refusing, failing)
    assert list(plan.items()) == [], "a page that is not whole is not looked at"
    assert plan.denied == {refusing.root: "AccessDenied"}
    assert plan.failed == {failing.root: "SlowDown"}
    assert plan.vanished() == 0


def summary(run: int, items: int, runs: tuple[int, ...] = ()) -> ScoreSummary:
    total = Tally(items=items, set_aside={"no_face": items} if items else {})
    return ScoreSummary(
        run=run, runs=runs or (run,), night="2026-03-01", started_at="", ended_at="", bundle="b", bundle_uri="",
        options="o", total=total, inputs={}, listed={}, denied={}, filtered=0, pending=items, left={}, vanished=0,
        units=1, bytes_listed=0, bytes_read=0, requests=0, seconds={}, rates={},
    )  # fmt: skip


def test_runs_without_items_take_no_place_among_the_last(tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path / "out")
    for run in range(1, 31):
        write_summary(sink, summary(run, items=5 if run % 3 == 0 else 0))
    assert [each.run for each in read_history(sink, 14, with_items=True)] == [3 * n for n in range(1, 11)]
    assert [each.run for each in read_history(sink, 3, with_items=True)] == [24, 27, 30]
    assert [each.run for each in read_history(sink, 3)] == [28, 29, 30]


def test_a_run_is_not_held_against_what_it_adds_up(tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path / "out")
    for run in (1, 2):
        write_summary(sink, summary(run, items=5))
    whole = summary(3, items=5, runs=(2, 3))
    assert [each.run for each in compare(read_history(sink), whole).earlier] == [1]
    write_summary(sink, whole)
    assert [each.run for each in read_history(sink)] == [1, 3]


def test_the_page_says_why_it_opened_no_file() -> None:
    here = Suspect(
        uri="u", input="here", key="a.jpg", media="image", size_bytes=1, etag="e", probability=0.9, uncertainty=None,
        band="likely fake", faces=0, tracks=0, frames_seen=1, same_as="other", duration_s=None, width_px=1, height_px=1,
    )  # fmt: skip
    sources = [LocalStorage(Path("/here"))]
    suspects = [replace(here, input=sources[0].root), replace(here, input="/elsewhere")]
    told = [seen.problem for seen in revisit(suspects, sources, OPTIONS.faces, LimitOptions())]
    assert told[0] == "the frames of other, scored on an earlier night, are not there any more"
    assert "this one does not look at /elsewhere" in told[1]
