"""Retries: a new generation of a unit holds its faulted videos alone, and counts in the place of what it replaces."""

from pathlib import Path

import pytest

from batch.records import Reason, WorkUnit
from batch.shards.close import remove_orphans, remove_stale
from batch.shards.commit import read_commits
from batch.shards.read import latest_outcomes
from batch.shards.retry import retry_unit
from batch.shards.summary import summarize
from batch.storage.base import Storage
from batch.storage.open import open_storage
from tests.shards.test_outputs import build_unit, kept, lost, video

FAULTS = frozenset(reason for reason in Reason if reason.is_fault)


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


def commit(sink: Storage, unit: WorkUnit, *results: object) -> None:
    found = {result.video: result for result in results}  # type: ignore[attr-defined]
    assert build_unit(unit, found.__getitem__, "/in", sink, "digest").won


def latest(sink: Storage) -> dict[str, str]:
    tables = latest_outcomes(sink, read_commits(sink), ["video_key", "outcome"])
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["video_key"] for row in rows}) == len(rows)
    return {row["video_key"]: row["outcome"] for row in rows}


def test_faults_are_looked_at_again_and_nothing_else(sink: Storage) -> None:
    unit = WorkUnit(id="u1", videos=tuple(map(video, "abcd")))
    commit(sink, unit, kept("a"), lost("b", Reason.NO_FACE), lost("c", Reason.TIMEOUT), lost("d", Reason.STORAGE_ERROR))
    again = retry_unit(unit, list(read_commits(sink)), FAULTS, sink)
    assert again is not None
    assert [v.key for v in again.videos] == ["c", "d"]
    assert (again.generation, dict(again.replaces)) == (1, {"timeout": 1, "storage_error": 1})

    commit(sink, again, kept("c"), lost("d", Reason.TRUNCATED))
    assert latest(sink) == {"a": "kept", "b": "no_face", "c": "kept", "d": "truncated"}
    summary = summarize(read_commits(sink))
    assert (summary.listed, summary.kept, summary.faces, summary.units) == (4, 2, 2, 1)
    assert (dict(summary.set_aside), dict(summary.faults)) == ({"no_face": 1}, {"truncated": 1})
    assert summary.closes

    third = retry_unit(unit, list(read_commits(sink)), FAULTS, sink)
    assert third is not None
    assert ([v.key for v in third.videos], third.generation) == (["d"], 2)
    commit(sink, third, kept("d"))
    assert retry_unit(unit, list(read_commits(sink)), FAULTS, sink) is None
    assert summarize(read_commits(sink)).closes
    assert remove_orphans(sink, read_commits(sink)) == 0
    remove_stale(sink, {"u1"}, [])
    assert set(latest(sink).values()) == {"kept", "no_face"}


def test_only_the_wanted_reason_is_retried(sink: Storage) -> None:
    unit = WorkUnit(id="u1", videos=tuple(map(video, "ab")))
    commit(sink, unit, lost("a", Reason.TIMEOUT), lost("b", Reason.STORAGE_ERROR))
    again = retry_unit(unit, list(read_commits(sink)), frozenset({Reason.TIMEOUT}), sink)
    assert again is not None
    assert [v.key for v in again.videos] == ["a"]
    assert retry_unit(unit, list(read_commits(sink)), frozenset({Reason.TRUNCATED}), sink) is None


def test_a_stale_unit_goes_with_its_retries(sink: Storage) -> None:
    unit = WorkUnit(id="u1", videos=(video("a"),))
    commit(sink, unit, lost("a", Reason.TIMEOUT))
    again = retry_unit(unit, list(read_commits(sink)), FAULTS, sink)
    assert again is not None
    commit(sink, again, kept("a"))
    assert remove_stale(sink, set(), []).vanished == 1
    assert not list(read_commits(sink))
