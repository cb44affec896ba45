"""Shards, outcomes and commits on a real folder: put once, named by content, read back through commits alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.faces.crop import encode
from batch.records import Box, Cost, FaceRow, MediaInfo, Reason, VideoRef, VideoResult, WorkUnit
from batch.shards.build import UnitReport, build_unit
from batch.shards.close import remove_orphans, remove_stale
from batch.shards.commit import read_commits
from batch.shards.read import face_tables, outcome_tables
from batch.shards.runfile import RunFile, claim_output, read_run, refuse_nested
from batch.shards.summary import Summary, summarize
from batch.storage.base import DamagedError, Storage
from batch.storage.open import open_storage

MEDIA = MediaInfo(duration_s=1.0, fps=25.0, codec="h264", width_px=640, height_px=480)
BOX = Box(left=1, top=2, right=101, bottom=102)


def video(key: str, etag: str = "e") -> VideoRef:
    return VideoRef(key=key, size_bytes=10, etag=etag, part="p", label=1, source_id="s")


def kept(key: str, shade: int = 0, seconds: float = 0.1) -> VideoResult:
    image = encode(np.full((16, 16, 3), shade, np.uint8), "png")
    face = FaceRow(
        video=video(key), media=MEDIA, frame_index=0, pts_s=0, track_id=0, image=image, face_box_px=BOX,
        crop_box_px=BOX, detector="hog", score=None,
    )  # fmt: skip
    cost = Cost(bytes_read=5, requests=1, seconds={"decode": seconds})
    return VideoResult(video=video(key), reason=Reason.KEPT, media=MEDIA, faces=(face,), faces_found=1, cost=cost)


def lost(key: str, reason: Reason) -> VideoResult:
    return VideoResult(video=video(key), reason=reason, detail="why")


def commit(sink: Storage, unit: str, *results: VideoResult) -> UnitReport:
    work = WorkUnit(id=unit, videos=tuple(result.video for result in results))
    found = {result.video: result for result in results}
    return build_unit(work, found.__getitem__, "/in", sink, "digest")


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


def files(sink: Storage) -> dict[str, bytes]:
    return {item.key: sink.read(item.key) for item in sink.list()}


def test_a_commit_names_what_was_written(sink: Storage) -> None:
    report = commit(sink, "u1", kept("p/a.mp4"), lost("p/b.mp4", Reason.NO_FACE))
    assert report.won
    [found] = read_commits(sink)
    assert found == report.commit
    [faces] = face_tables(sink, [found])
    [outcomes] = outcome_tables(sink, [found], ["video_key", "outcome", "kind"])
    assert faces["video_uri"].to_pylist() == ["/in/p/a.mp4"]
    assert outcomes.to_pylist() == [
        {"video_key": "p/a.mp4", "outcome": "kept", "kind": "kept"},
        {"video_key": "p/b.mp4", "outcome": "no_face", "kind": "set_aside"},
    ]


def test_a_unit_done_twice_leaves_what_once_leaves(sink: Storage) -> None:
    commit(sink, "u1", kept("a", seconds=0.1))
    before = files(sink)
    again = commit(sink, "u1", kept("a", seconds=9.9))
    assert not again.won
    assert files(sink) == before


def test_a_loser_with_other_bytes_removes_its_own_files(sink: Storage) -> None:
    commit(sink, "u1", kept("a", shade=0))
    before = files(sink)
    assert not commit(sink, "u1", kept("a", shade=9)).won
    assert files(sink) == before


def test_a_unit_without_faces_has_no_shard(sink: Storage) -> None:
    report = commit(sink, "u1", lost("a", Reason.TRUNCATED))
    assert report.commit.faces is None
    assert not list(sink.list("faces/"))
    assert list(face_tables(sink, [report.commit])) == []


def test_orphans_go_and_missing_files_are_found_out(sink: Storage) -> None:
    one, two = commit(sink, "u1", kept("a")).commit, commit(sink, "u2", kept("b")).commit
    sink.put("faces/u3-0000.parquet", b"left by a killed task")
    hidden = Path(sink.root, "faces", ".fakesift-tmp-0-0")
    hidden.write_bytes(b"left by a killed writer")
    os.utime(hidden, (0, 0))
    assert remove_orphans(sink, read_commits(sink)) == 2
    assert not hidden.exists()
    assert two.faces is not None
    sink.delete(two.faces.key)
    with pytest.raises(RuntimeError, match="files of 1 units are missing"):
        remove_orphans(sink, read_commits(sink))
    assert [left.unit for left in read_commits(sink)] == [one.unit]


def test_stale_units_go_and_their_videos_are_accounted_for(sink: Storage) -> None:
    commit(sink, "old", kept("a"), kept("b"), kept("c"))
    changed = replace(kept("b"), video=video("b", etag="new"))
    commit(sink, "new", kept("a"), changed)
    replaced = remove_stale(sink, {"new"}, ["new"])
    assert (replaced.vanished, replaced.changed) == (1, 1)
    assert [left.unit for left in read_commits(sink)] == ["new"]
    commit(sink, "old", kept("a"), kept("b"), kept("c"))
    assert remove_stale(sink, {"new"}, []) == replaced


def test_the_summary_adds_up(sink: Storage) -> None:
    commit(sink, "u1", kept("a"), lost("b", Reason.NO_FACE), lost("c", Reason.TRUNCATED))
    commit(sink, "u2", kept("d"), lost("e", Reason.TRUNCATED))
    summary = summarize(read_commits(sink), {"unlabelled": 1})
    assert (summary.listed, summary.kept, summary.faces, summary.units) == (5, 2, 2, 2)
    assert (summary.set_aside, summary.faults) == ({"no_face": 1}, {"truncated": 2})
    assert summary.closes
    assert Summary.from_json(summary.to_json()) == summary
    assert not replace(summary, listed=6).closes


def test_a_damaged_commit_is_named(sink: Storage) -> None:
    sink.put("commits/u1.json", b'{"unit": "u1"}')
    with pytest.raises(ValueError, match=r"damaged commit .*u1\.json"):
        list(read_commits(sink))


def test_a_damaged_table_is_named(sink: Storage) -> None:
    outcomes = commit(sink, "u1", kept("a")).commit.outcomes
    whole = sink.read(outcomes.key)
    for columns in (None, ["video_key"]):
        for spoilt in (whole[: len(whole) // 2].ljust(len(whole), b"?"), b"?" * len(whole)):
            sink.put(outcomes.key, spoilt)
            with pytest.raises(DamagedError, match=rf"{outcomes.key}: .*; see `fakesift verify`"):
                list(outcome_tables(sink, read_commits(sink), columns))


RUN = RunFile(kind="preprocess", input="/in", shaping={"faces": {"margin": 0.15}, "seed": 0}, versions={})


def test_an_output_belongs_to_one_run(sink: Storage) -> None:
    claim_output(sink, RUN)
    claim_output(sink, replace(RUN, versions={"python": "other"}))
    with pytest.raises(ValueError, match=r"faces\.margin was 0\.15, got 0\.2"):
        claim_output(sink, replace(RUN, shaping={"faces": {"margin": 0.2}, "seed": 0}))
    with pytest.raises(ValueError, match="made from input /in, got /other"):
        claim_output(sink, replace(RUN, input="/other"))
    with pytest.raises(ValueError, match="fakesift preprocess"):
        read_run(sink, "score")


def test_a_place_that_is_not_ours_is_refused(sink: Storage) -> None:
    sink.put("holiday.jpg", b"")
    with pytest.raises(ValueError, match=r"not empty and not ours .*holiday\.jpg"):
        claim_output(sink, RUN)
    sink.put("run.json", json.dumps({"name": "somebody else's"}).encode())
    with pytest.raises(ValueError, match="damaged"):
        claim_output(sink, RUN)


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    source = open_storage(str(tmp_path))
    for place in (tmp_path, tmp_path / "deep" / "out"):
        with pytest.raises(ValueError, match="inside the input"):
            refuse_nested(source, open_storage(str(place)))
    refuse_nested(source, open_storage(f"{tmp_path}-out"))
