"""Outputs of scoring that are looked through, damaged, and taken down from."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from batch.faces.options import FaceOptions
from batch.records import Reason
from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.index import COLUMNS, LedgerIndex, Sought
from batch.scoring.kept import recall
from batch.scoring.ledger import ledger_tables, open_runs, read_ledger_files, write_ledger
from batch.scoring.look import pixels
from batch.scoring.plan import Planner, PlanOptions
from batch.scoring.purge import purge_scores
from batch.scoring.records import Item, ScoringOptions
from batch.scoring.status import score_status
from batch.scoring.summary import CommitSums, ScoreSummary, write_summary
from batch.scoring.twins import TwinWriter
from batch.scoring.units import make_unit
from batch.scoring.verify import verify_scores
from batch.shards.findings import Kind
from batch.shards.purged import load_purged
from batch.shards.runfile import RunFile, claim_output
from batch.storage.local import LocalStorage
from tests.support.scored import PICTURE, SIDE, claim, recipe, record

OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))
NIGHT = date(2026, 3, 2)


@pytest.fixture
def bucket(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "bucket")
    for name, data in {"a.jpg": b"a", "b.jpg": b"b", "c.mp4": b"c", "same/a.jpg": b"a"}.items():
        made.put(name, data * 10)
    return made


def planner(sink: LocalStorage, bucket: LocalStorage) -> Planner:
    tables = ledger_tables(sink, read_ledger_files(sink), COLUMNS)
    return Planner([bucket], LedgerIndex(tables, Sought.of("b", OPTIONS, NIGHT)), PlanOptions(), load_purged(sink))


@pytest.fixture
def sink(tmp_path: Path, bucket: LocalStorage) -> LocalStorage:
    """One run that came to its end, with a fault and a twin."""
    made = LocalStorage(tmp_path / "out")
    claim_output(made, RunFile(kind="score", input="", shaping={}, versions={}))
    walked = planner(made, bucket)
    reasons = {"b.jpg": Reason.TRUNCATED}
    record(made, bucket, walked.items(), run=1, options=OPTIONS, reasons=reasons, keep_crops=True)
    list(TwinWriter(made, recipe(bucket, 1, OPTIONS)).write(walked.twins, [], [1]))
    end(made, 1)
    return made


def end(sink: LocalStorage, run: int) -> None:
    write_ledger(sink, run, [run])
    sums = CommitSums().add(read_commits(sink, commit_keys(sink, [run])))
    summary = ScoreSummary(
        run=run, runs=(run,), night="2026-03-02", started_at="s", ended_at="e", bundle="b", bundle_uri="u", options="o",
        total=sums.total, inputs=sums.inputs, listed={"in": 1}, denied={}, filtered=0, pending=1, left={}, vanished=0,
        units=1, bytes_listed=10, bytes_read=0, requests=0, seconds={}, rates={},
    )  # fmt: skip
    write_summary(sink, summary)


def test_a_whole_output_holds(sink: LocalStorage) -> None:
    report = verify_scores(sink)
    assert (report.ok, report.closed, report.videos) == (True, True, 4)
    status = score_status(sink)
    assert (status.runs, status.rows, status.open_claim) == (1, 4, None)
    assert status.last is not None
    assert (status.last.total.items, status.last.total.same) == (4, 1)
    claim(sink, 2, state="running")
    status = score_status(sink)
    assert status.is_alive
    assert status.open_total.items == 0
    assert not verify_scores(sink).closed


@pytest.mark.parametrize("prefix", ["items/", "tracks/", "faces/", "ledger/", "commits/", "summary.json"])
def test_every_damage_is_found(sink: LocalStorage, prefix: str) -> None:
    key = next(item.key for item in sink.list(prefix) if prefix != "ledger/" or item.key.endswith(".parquet"))
    sink.put(key, sink.read(key)[:-20] + b"x" * 20)
    assert not verify_scores(sink).ok
    sink.delete(key)
    assert not verify_scores(sink).ok


def test_a_score_that_stands_twice_is_found(sink: LocalStorage, bucket: LocalStorage) -> None:
    [again] = [item for item in planner(LocalStorage("/nonexistent"), bucket).items() if item.key == "a.jpg"]
    record(sink, bucket, [again], run=2, options=OPTIONS)
    end(sink, 2)
    assert {finding.kind for finding in verify_scores(sink).findings} == {Kind.VIDEO_TWICE}


def test_orphans_are_pruned(sink: LocalStorage) -> None:
    sink.put("items/date=2026-03-02/000001.dead-0000.parquet", b"")
    assert [finding.kind for finding in verify_scores(sink).findings] == [Kind.ORPHAN]
    assert len(verify_scores(sink, prune=True).pruned) == 1
    assert verify_scores(sink).ok


@pytest.mark.parametrize("named", ["a.jpg", "same/a.jpg"])
def test_a_takedown_leaves_nothing_and_holds(sink: LocalStorage, bucket: LocalStorage, named: str) -> None:
    report = purge_scores(sink, [bucket.uri(named)])
    assert (report.videos, report.faces) == (2, 2)  # one has the content of the other, whichever is named
    name = bucket.uri("a.jpg").encode()
    assert not [item.key for item in sink.list() if name in sink.read(item.key)]
    assert verify_scores(sink).ok
    assert sum(table.num_rows for table in ledger_tables(sink, read_ledger_files(sink))) == 2
    again = planner(sink, bucket)
    assert not list(again.items())
    assert (again.purged, list(again.twins)) == (2, [])
    before = {item.key: item.etag for item in sink.list()}
    assert purge_scores(sink, [bucket.uri("a.jpg")]).record is None
    assert {item.key: item.etag for item in sink.list()} == before
    claim(sink, 2, state="running", host="elsewhere")
    with pytest.raises(ValueError, match="at work there"):
        purge_scores(sink, [bucket.uri("b.jpg")])


def test_a_takedown_of_an_empty_file_takes_no_other(sink: LocalStorage, bucket: LocalStorage) -> None:
    for name in ("broken/a.jpg", "broken/b.jpg"):
        bucket.put(name, b"")
    walked = planner(sink, bucket)
    record(sink, bucket, [*walked.items(), *walked.twins], run=2, options=OPTIONS, reasons={})
    end(sink, 2)
    assert purge_scores(sink, [bucket.uri("broken/a.jpg")]).videos == 1


def test_kept_crops_stand_for_the_files(sink: LocalStorage, bucket: LocalStorage) -> None:
    items = [item for item in other_bundle(sink, bucket) if item.key != "c.mp4"]
    assert [(item.key, item.kept is not None) for item in items] == [("a.jpg", True), ("b.jpg", True)]
    unit = make_unit([*items, replace(items[0], key="moved.png", etag="other")], "s")
    seen = recall(sink, unit, SIDE)
    assert seen is not None
    assert [result.reason for result in seen.results] == [Reason.KEPT, Reason.TRUNCATED, Reason.KEPT]
    assert [result.video.key for result in seen.results] == ["a.jpg", "b.jpg", "moved.png"]
    assert [face.video.key for face in seen.results[2].faces] == ["moved.png"] * 2
    assert seen.crops.shape == (4, SIDE, SIDE, 3)
    assert (seen.crops == pixels([PICTURE], SIDE)).all()
    assert recall(sink, make_unit([replace(items[0], fingerprint=None, etag="other")], "s"), SIDE) is None
    sink.delete(f"commits/{unit.kept}.json")
    assert recall(sink, unit, SIDE) is None


@pytest.mark.parametrize("prefix", ["items/", "faces/", "commits/"])
@pytest.mark.parametrize("cut", [True, False])
def test_damaged_kept_crops_are_made_anew(
    sink: LocalStorage, bucket: LocalStorage, prefix: str, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A cut file, and one with a few bytes in its middle changed."""
    unit = make_unit([item for item in other_bundle(sink, bucket) if item.key == "a.jpg"], "s")
    assert unit.kept is not None
    [key] = [item.key for item in sink.list(prefix) if unit.kept.replace("/", ".") in item.key.replace("/", ".")]
    data = sink.read(key)
    sink.put(key, data[:-20] if cut else data[: len(data) // 2] + b"\0\1\2\3" + data[len(data) // 2 + 4 :])
    assert recall(sink, unit, SIDE) is None
    assert "are not used" in caplog.text
    [anew] = record(sink, bucket, unit.items, run=2, options=OPTIONS, bundle="other", keep_crops=True)
    end(sink, 2)
    again = make_unit([item for item in other_bundle(sink, bucket, "third") if item.key == "a.jpg"], "s")
    assert again.kept == f"000002/{anew.commit.unit}"
    seen = recall(sink, again, SIDE)
    assert seen is not None
    assert len(seen.crops) == 2


def other_bundle(sink: LocalStorage, bucket: LocalStorage, name: str = "other") -> list[Item]:
    tables = ledger_tables(sink, read_ledger_files(sink), COLUMNS)
    walked = Planner([bucket], LedgerIndex(tables, Sought.of(name, OPTIONS, NIGHT)), PlanOptions())
    assert not open_runs(sink, read_ledger_files(sink))
    return list(walked.items())
