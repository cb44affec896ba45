"""From a unit's items to its commit: aggregation, files, and who may write."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.faces.options import FaceOptions
from batch.model.aggregate import Aggregation
from batch.records import Cost, Reason, VideoRef, VideoResult
from batch.scoring.close import remove_orphans
from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.look import look
from batch.scoring.records import Item, Looked, ScoringOptions
from batch.scoring.runs import check_free, claimed, new_claim, read_claim
from batch.scoring.summary import CommitSums, ScoreSummary, read_history, write_summary
from batch.scoring.tables import Recipe, unit_tables
from batch.scoring.units import UNIT_FRAMES, cut_units, make_unit
from batch.scoring.write import write_unit
from batch.storage.base import AccessError, DeniedError
from batch.storage.local import LocalStorage
from tests.support.scored import claim, face, looked, recipe, record

OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))


def item(key: str, **changes: object) -> Item:
    made = Item(input=0, key=key, size_bytes=10, etag="e", modified_s=0, fingerprint=key.encode().ljust(16))
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def sink(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    return recipe(LocalStorage(tmp_path / "bucket"), 1, OPTIONS)


def test_an_item_is_as_suspicious_as_its_worst_face(made: Recipe) -> None:
    """Two faces over two frames: the mean over each face's frames, then the larger."""
    one = item("a.mp4")
    faces = (face(one, 0, 0), face(one, 0, 1), face(one, 5, 0), face(one, 5, 1))
    seen = looked([one], {})
    seen = Looked(results=(replace(seen.results[0], faces=faces),), crops=np.zeros((4, 8, 8, 3), np.uint8))
    logits = np.array([-2, 1, -1, 3], np.float32)
    tables = unit_tables(make_unit([one], "s"), seen, logits, made)
    [row], tracks = tables.items.to_pylist(), tables.tracks.to_pylist()
    chances = 1 / (1 + np.exp(-logits.astype(float)))
    assert row["probability"] == pytest.approx(chances[[1, 3]].mean(), rel=1e-6)
    assert (row["top_track"], row["tracks"], row["faces"], row["band"]) == (1, 2, 4, "likely fake")
    assert row["uncertainty"] == pytest.approx(np.std(chances, ddof=1) / 2, rel=1e-6)
    assert [track["probability"] for track in tracks] == pytest.approx([chances[[0, 2]].mean(), row["probability"]])
    assert [frame["logit"] for frame in tracks[1]["frames"]] == [1, 3]
    assert [frame["frame_index"] for frame in tracks[1]["frames"]] == [0, 5]
    highest = unit_tables(make_unit([one], "s"), seen, logits, replace(made, aggregation=Aggregation(frames="max")))
    assert highest.items["probability"][0].as_py() == pytest.approx(chances[3], rel=1e-6)


def test_no_score_is_null_with_a_reason(made: Recipe) -> None:
    reasons = {"b.jpg": Reason.NO_FACE, "c.mp4": Reason.TRUNCATED}
    items = [item("a.jpg"), item("b.jpg"), item("c.mp4")]
    seen = looked(items, reasons, frames=1)
    tables = unit_tables(make_unit(items, "s"), seen, np.zeros(1, np.float32), made)
    rows = {row["key"]: row for row in tables.items.to_pylist()}
    assert rows["a.jpg"]["probability"] == 0.5
    assert rows["a.jpg"]["uncertainty"] is None
    assert rows["a.jpg"]["reason"] is None
    for key, kind in (("b.jpg", "set_aside"), ("c.mp4", "fault")):
        assert (rows[key]["probability"], rows[key]["band"], rows[key]["top_track"]) == (None, None, None)
        assert (rows[key]["reason"], rows[key]["kind"], rows[key]["tracks"]) == (str(reasons[key]), kind, 0)
    assert tables.tracks.num_rows == 1
    nothing = unit_tables(make_unit(items[1:], "s"), looked(items[1:], reasons), np.zeros(0, np.float32), made)
    assert nothing.items["probability"].null_count == 2


def test_a_unit_done_twice_is_committed_once(sink: LocalStorage, made: Recipe) -> None:
    claim(sink, 1)
    items = [item("a.jpg"), item("b.jpg")]
    unit, seen = make_unit(items, "s"), looked(items, {})

    def write(logit: float) -> bool:
        logits = np.full(len(seen.crops), logit, np.float32)
        return write_unit(sink, unit, seen, unit_tables(unit, seen, logits, made), made, {}).won

    assert write(0.0)
    write(0.0)
    assert not write(1.0)
    [commit] = read_commits(sink, commit_keys(sink, [1]))
    assert len(list(sink.list("items/"))) == len(list(sink.list("tracks/"))) == 1
    table = pq.read_table(sink.uri(commit.items.key), partitioning=None)
    assert table["probability"].to_pylist() == [0.5, 0.5]
    assert commit.kinds == {"scored": 2}
    assert sum(commit.histogram) == 2
    assert CommitSums().add([commit]).total.closes


def test_files_that_no_commit_names_go_at_the_end(sink: LocalStorage, tmp_path: Path) -> None:
    bucket = LocalStorage(tmp_path / "bucket")
    [report] = record(sink, bucket, [item("a.jpg")], run=1, options=OPTIONS)
    sink.put("items/date=2026-03-02/000001.dead-0000.parquet", b"")
    sink.put("items/date=2026-03-02/000002.other-0000.parquet", b"")
    assert remove_orphans(sink, [1], [report.commit]) == 1
    assert len(list(sink.list("items/"))) == 2
    sink.delete(report.commit.items.key)
    with pytest.raises(RuntimeError, match="files of 1 units are missing"):
        remove_orphans(sink, [1], [report.commit])
    assert not list(commit_keys(sink, [1]))


def test_only_these_runs_orphans_go(sink: LocalStorage, tmp_path: Path) -> None:
    """Two killed runs of two nights, thousands of files of another run beside them."""
    bucket = LocalStorage(tmp_path / "bucket")
    reports = record(sink, bucket, [item("a.jpg")], run=1, options=OPTIONS, keep_crops=True)
    reports += record(sink, bucket, [item("b.jpg")], run=2, options=OPTIONS, night=date(2026, 3, 3))
    orphans = ["faces/000001.u-0.parquet", "tracks/date=2026-03-02/000001.u-0.parquet"]
    orphans += ["items/date=2026-03-03/000002.u-0.parquet"]
    others = [f"items/date=2026-03-03/000003.{number:04}-0.parquet" for number in range(1100)]
    others += ["faces/0000010.u-0.parquet"]
    for key in [*orphans, *others]:
        sink.put(key, b"")
    assert remove_orphans(sink, [1, 2], [report.commit for report in reports]) == len(orphans)
    left = {each.key for prefix in ("items/", "tracks/", "faces/") for each in sink.list(prefix)}
    assert left == {*others, *(file.key for report in reports for file in report.commit.files)}


def test_units_grow_and_hold_one_input_and_one_source_of_crops() -> None:
    items = [item(f"{n}.mp4", input=n % 2) for n in range(2000)]
    units = list(cut_units(items, 16, "s"))
    assert [each.key for unit in units for each in unit.items if each.input == 0] == [
        f"{n}.mp4" for n in range(0, 2000, 2)
    ]
    assert all(len({each.input for each in unit.items}) == 1 for unit in units)
    assert len(units[0].items) < len(units[-3].items) == UNIT_FRAMES // 16
    assert len({unit.id for unit in units}) == len(units)
    images = list(cut_units([item(f"{n}.jpg") for n in range(10_000)], 16, "s"))
    assert max(len(unit.items) for unit in images) == UNIT_FRAMES
    scattered = list(cut_units([item(f"{n}.jpg", kept=str(n % 500)) for n in range(2000)], 16, "s"))
    assert sum(len(unit.items) for unit in scattered) == 2000, "however many are open at once"
    assert all({each.kept for each in unit.items} == {unit.kept} for unit in scattered)
    kept = list(cut_units([item(f"{n}.jpg", kept=str(n // 5)) for n in range(15)], 16, "s"))
    assert [unit.kept for unit in kept] == ["0", "1", "2"]
    turns = [item(f"{n}.jpg", kept="k" if n % 2 else None) for n in range(60)]
    assert [(unit.kept, len(unit.items)) for unit in cut_units(turns, 16, "s")] == [(None, 30), ("k", 30)]
    assert not list(cut_units([], 16, "s"))


def test_runs_take_turns(sink: LocalStorage) -> None:
    fresh, other = (new_claim(night="2026-03-02", inputs=("in",), bundle="b", options="o") for _ in range(2))
    assert check_free(sink) == 0
    with claimed(sink, 0, fresh) as mine:
        assert mine.run == 1
        with pytest.raises(ValueError, match="run 1 is at work there"):
            check_free(sink)
        with pytest.raises(ValueError, match="another run began"), claimed(sink, 0, other):
            pass
    assert check_free(sink) == 1
    assert read_claim(sink, 1).state == "ended"
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    claim(sink, 2, state="running", host="elsewhere", beat_at=long_ago)
    assert check_free(sink) == 2
    claim(sink, 3, state="running", pid=2**22 + 1)  # above the largest process number there can be
    assert check_free(sink) == 3
    claim(sink, 4, state="running", host="elsewhere")
    with pytest.raises(ValueError, match="on elsewhere"):
        check_free(sink)


def test_a_run_that_was_overtaken_commits_no_more(sink: LocalStorage, tmp_path: Path) -> None:
    claim(sink, 2)
    with pytest.raises(RuntimeError, match="run 2 has taken this output over"):
        record(sink, LocalStorage(tmp_path / "bucket"), [item("a.jpg")], run=1, options=OPTIONS)
    assert not list(commit_keys(sink, [1]))


def test_a_summary_is_kept_for_later_runs(sink: LocalStorage, tmp_path: Path) -> None:
    [report] = record(sink, LocalStorage(tmp_path / "bucket"), [item("a.jpg")], run=1, options=OPTIONS)
    sums = CommitSums().add([report.commit])
    summary = ScoreSummary(
        run=1, runs=(1,), night="2026-03-02", started_at="s", ended_at="e", bundle="b", bundle_uri="u", options="o",
        total=sums.total, inputs=sums.inputs, listed={"in": 1}, denied={}, filtered=0, pending=1, left={}, vanished=0,
        units=1, bytes_listed=10, bytes_read=0, requests=0, seconds={}, rates={},
    )  # fmt: skip
    write_summary(sink, summary)
    assert read_history(sink) == [summary]
    told = json.loads(sink.read("summary.json"))
    assert told["total"]["coverage"] == told["inputs"][str(tmp_path / "bucket")]["coverage"] == 1.0
    assert read_history(sink, last=3) == [summary]


def refusing(*keys: str) -> Callable[[VideoRef], VideoResult]:
    """What looks at an item, where a store refuses some."""

    def extract(video: VideoRef) -> VideoResult:
        if video.key in keys:
            raise DeniedError(f"{video.key}: AccessDenied")
        if video.size_bytes == 0:
            return VideoResult(video=video, reason=Reason.EMPTY_FILE)
        return VideoResult(video=video, reason=Reason.NO_FACE, cost=Cost(bytes_read=10))

    return extract


def test_an_object_that_is_denied_costs_itself_alone() -> None:
    items = [item(key) for key in ("a.jpg", "b.jpg", "c.jpg")]
    unit = make_unit(items, "s")
    seen, taken = look(unit, refusing("a.jpg", "c.jpg"), 8, keep_encoded=False)
    assert [each.reason for each in seen.results] == [Reason.STORAGE_ERROR, Reason.NO_FACE, Reason.STORAGE_ERROR]
    assert (taken, seen.results[0].detail) == (3, "a.jpg: AccessDenied")


def test_a_unit_of_which_nothing_may_be_read_says_so_unless_others_of_its_input_may() -> None:
    """What is empty needs no reading."""
    unit = make_unit([item("a.jpg"), item("b.jpg"), item("c.jpg", size_bytes=0)], "s")
    with pytest.raises(DeniedError, match=r"a\.jpg: AccessDenied"):
        look(unit, refusing("a.jpg", "b.jpg"), 8, keep_encoded=False)
    seen, _ = look(unit, refusing("a.jpg", "b.jpg"), 8, keep_encoded=False, is_readable=True)
    assert [each.reason for each in seen.results] == [*[Reason.STORAGE_ERROR] * 2, Reason.EMPTY_FILE]


def test_wrong_credentials_are_no_outcome() -> None:
    def extract(video: VideoRef) -> VideoResult:
        if video.key == "b.jpg":
            raise AccessError("ExpiredToken")
        return VideoResult(video=video, reason=Reason.NO_FACE)

    with pytest.raises(AccessError, match="ExpiredToken"):
        look(make_unit([item("a.jpg"), item("b.jpg")], "s"), extract, 8, keep_encoded=False, is_readable=True)
