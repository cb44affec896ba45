"""Takedowns from real small outputs: by source and by video, done twice, cut off anywhere, on a folder and on S3."""

import json
import shutil
from pathlib import Path

import pytest

from batch.shards.commit import read_commits
from batch.shards.purge import PurgeRequest, purge_outputs
from batch.shards.purged import load_purged
from batch.shards.read import face_tables, latest_outcomes
from batch.shards.summary import Summary
from batch.shards.verify import verify_output
from batch.storage.base import AccessError, Storage
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from jobs.purge import main
from tests.reports.outputs import video
from tests.shards.test_verify import built, sink
from tests.support.built_output import LOOKS, Looks, build, everything, no_face, timeout

__all__ = ["built", "sink"]  # fixtures

S1 = PurgeRequest(sources=("s1",))
WITHOUT_S1: dict[str, list[Looks]] = {
    "u1": [LOOKS["u1"][0][2:]],
    "u2": [[LOOKS["u2"][0][1], LOOKS["u2"][0][3]], LOOKS["u2"][1][1:], LOOKS["u2"][2]],
    "u4": LOOKS["u4"],
}


class Killed(BaseException):
    """The process is gone: no `except Exception` sees it."""


class Mortal(LocalStorage):
    """A folder whose process dies after a number of changes. To die at a read is to die before the next change."""

    def __init__(self, root: str, lives: int) -> None:
        super().__init__(root)
        self.lives = lives
        self.changes: list[str] = []

    def spend(self, change: str) -> None:
        if len(self.changes) >= self.lives:
            raise Killed
        self.changes.append(change)

    def put(self, key: str, data: bytes) -> None:
        self.spend(f"put {key}")
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.spend(f"put {key}")
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self.spend(f"delete {key}")
        super().delete(key)


def data(sink: Storage) -> dict[str, bytes]:
    """What readers read, and what adds it up; timings, which stay as they were, left out."""
    found = {key: value for key, value in everything(sink).items() if key.startswith(("faces/", "outcomes/", "plan"))}
    for key, value in everything(sink).items():
        if key.startswith("commits/") or key == "summary.json":
            raw = json.loads(value)
            kept = {name: raw[name] for name in raw if name not in {"seconds", "started_at", "bytes_read", "requests"}}
            found[key] = json.dumps(kept, sort_keys=True).encode()
    return found


def rows(sink: Storage) -> tuple[set[str], set[str]]:
    """The videos in the outcomes and those in the faces."""
    outcomes = latest_outcomes(sink, read_commits(sink), ["video_key"])
    faces = face_tables(sink, read_commits(sink), ["video_key"])
    return (
        {key for table in outcomes for key in table["video_key"].to_pylist()},
        {key for table in faces for key in table["video_key"].to_pylist()},
    )


def test_a_source_goes_with_all_that_came_from_it(sink: Storage, tmp_path: Path) -> None:
    page = sink.read("report.html").decode()
    assert "p/real1.mp4" in page
    [report] = purge_outputs([sink], S1)
    assert (report.videos, report.faces) == (6, 5)
    assert verify_output(sink).ok, verify_output(sink).findings
    # Byte by byte what an output is in which the source never was.
    expected = open_storage(str(tmp_path / "expected"))
    build(expected, WITHOUT_S1)
    assert data(sink) == data(expected)
    assert Summary.from_json(sink.read("summary.json")).corpus == {"unlabelled": 1}


def test_no_picture_and_no_name_is_left(sink: Storage) -> None:
    """Neither in the page nor in any other object, the record included."""
    gone = ["real1", "fake1", "fake2", "fake3", "q/a.mp4", "none1"]
    crops = [face.image for looks in LOOKS.values() for seen in looks for r in seen for face in r.faces]
    assert crops
    page = sink.read("report.html").decode()
    assert any(name in page for name in gone)
    before = page.count("data:image")
    purge_outputs([sink], S1)
    page = sink.read("report.html").decode()
    assert 0 < page.count("data:image") < before
    for key, content in everything(sink).items():
        for name in (*gone, '"s1"'):
            assert name.encode() not in content, key
    assert rows(sink)[0] == {"p/none.mp4", "q/real2.mp4", "q/b.mp4", "q/real4.mp4", "q/fake4.mp4"}


def test_a_single_video_goes_alone(sink: Storage) -> None:
    [report] = purge_outputs([sink], PurgeRequest(videos=("/in/p/fake1.mp4",)))
    assert (report.videos, report.faces) == (1, 1)
    outcomes, faces = rows(sink)
    assert "p/fake1.mp4" not in outcomes | faces
    assert len(outcomes) == 10
    assert verify_output(sink).ok
    purged = load_purged(sink)
    assert purged.covers(video("p/fake1.mp4", 1, "s1"))
    assert not purged.covers(video("p/real1.mp4", 0, "s1"))


@pytest.mark.parametrize("name", ["p/fake1.mp4", "/in/p/fake1.mp4", "s1"])
def test_a_source_may_be_named_by_one_of_its_videos(sink: Storage, name: str) -> None:
    [report] = purge_outputs([sink], PurgeRequest(sources=(name,)))
    assert report.videos == 6
    purged = load_purged(sink)
    assert purged.covers(video("never/seen.mp4", 1, "s1"))
    assert not purged.covers(video("q/real2.mp4", 0, "s2"))
    again = everything(sink)
    [report] = purge_outputs([sink], PurgeRequest(sources=(name,)))
    assert (report.videos, report.faces, report.record) == (0, 0, None)
    assert everything(sink) == again


def test_a_source_id_goes_before_a_key_of_the_same_name(tmp_path: Path) -> None:
    sink = open_storage(str(tmp_path / "out"))
    build(sink, {"u1": [[no_face("a.mp4", "b.mp4"), no_face("c.mp4", "a.mp4")]]})
    purge_outputs([sink], PurgeRequest(sources=("a.mp4",)))
    assert rows(sink)[0] == {"a.mp4"}


def test_what_was_never_there_is_refused_from_then_on(sink: Storage) -> None:
    before = data(sink)
    [report] = purge_outputs([sink], PurgeRequest(sources=("/in/new/x.mp4",)))
    assert (report.videos, report.faces) == (0, 0)
    assert report.record is not None
    assert data(sink) == before
    assert load_purged(sink).covers(video("new/x.mp4", 0, "whoever"))
    assert verify_output(sink).ok


def test_several_outputs_share_what_one_of_them_knows(sink: Storage, tmp_path: Path) -> None:
    """The video that names the source is in one output alone."""
    other, third = open_storage(str(tmp_path / "b")), open_storage(str(tmp_path / "c"))
    build(other, {"u1": [[no_face("z.mp4", "s1"), timeout("y.mp4", "s2")]]})
    build(third, {"u1": [[no_face("x.mp4", "s3")]]})
    found = purge_outputs([other, sink, third], PurgeRequest(sources=("p/fake1.mp4",)))
    assert [report.videos for report in found] == [1, 6, 0]
    assert all(verify_output(place).ok for place in (sink, other, third))
    assert rows(other)[0] == {"y.mp4"}


def test_nothing_is_touched_if_one_place_is_no_output(sink: Storage, tmp_path: Path) -> None:
    before = everything(sink)
    with pytest.raises(ValueError, match="not an output"):
        purge_outputs([sink, open_storage(str(tmp_path / "empty"))], S1)
    with pytest.raises(ValueError, match="nothing to purge"):
        PurgeRequest(sources=("s1", " "))
    with pytest.raises(ValueError, match="nowhere"):
        purge_outputs([], S1)
    assert everything(sink) == before


def test_a_damaged_shard_gets_no_digest_that_fits(sink: Storage) -> None:
    [commit, *_] = read_commits(sink)
    assert commit.faces is not None
    content = bytearray(sink.read(commit.faces.key))
    content[len(content) // 2] ^= 1
    sink.put(commit.faces.key, bytes(content))
    with pytest.raises(RuntimeError, match="fakesift verify"):
        purge_outputs([sink], S1)
    # The record stands already: the next run leaves the videos out whatever became of the purge.
    assert load_purged(sink).covers(video("x", 1, "s1"))
    assert verify_output(sink).counts["file_digest"] == 1


def test_faces_that_a_killed_job_left_go_too(sink: Storage) -> None:
    sink.put("faces/u9-00.parquet", b"faces of s1 that were never committed")
    purge_outputs([sink], S1)
    assert not sink.exists("faces/u9-00.parquet")


def test_hidden_files_go_too_whoever_wrote_them(sink: Storage) -> None:
    path = Path(sink.root, "faces", ".fakesift-tmp-another-machine-0")
    path.write_bytes(b"faces of s1, half a minute ago")
    purge_outputs([sink], S1)
    assert not path.exists()
    assert verify_output(sink).ok


class Refusing(Mortal):
    """A folder whose permissions are taken away after a number of changes."""

    def spend(self, change: str) -> None:
        if len(self.changes) >= self.lives:
            raise AccessError(f"{self.root}: Permission denied")
        super().spend(change)


def test_permission_that_is_lost_on_the_way_is_a_failure(sink: Storage, tmp_path: Path) -> None:
    """Before anything is touched it is wrong usage."""
    with pytest.raises(AccessError):
        purge_outputs([Refusing(sink.root, 0)], S1)
    with pytest.raises(RuntimeError, match=r"stopped: .*Permission denied"):
        purge_outputs([Refusing(sink.root, 1)], S1)
    other = open_storage(str(tmp_path / "other"))
    build(other, LOOKS)
    with pytest.raises(RuntimeError, match=r"stopped: .*Permission denied"):
        purge_outputs([sink, Refusing(other.root, 0)], S1)
    purge_outputs([sink, other], S1)
    assert verify_output(sink).ok
    assert verify_output(other).ok


def test_an_unfinished_output_gets_no_summary(sink: Storage) -> None:
    for key in ("summary.json", "plan.json", "report.html"):
        sink.delete(key)
    purge_outputs([sink], S1)
    assert not any(sink.exists(key) for key in ("summary.json", "plan.json", "report.html"))
    assert verify_output(sink).ok


def test_an_output_may_be_emptied(sink: Storage) -> None:
    [report] = purge_outputs([sink], PurgeRequest(sources=("s1", "s2", "s4")))
    assert (report.videos, report.faces) == (11, 9)
    assert not [item.key for item in sink.list() if item.key.startswith(("faces/", "outcomes/", "commits/"))]
    assert b"data:image" not in sink.read("report.html")
    assert verify_output(sink).ok


def test_the_plan_of_another_listing_stays(sink: Storage) -> None:
    """A job that has listed more than the summary tells is not finished: what is left to do must still be seen."""
    sink.put("plan.json", b'{"listed": 50, "units": 9}')
    purge_outputs([sink], S1)
    assert json.loads(sink.read("plan.json")) == {"listed": 50, "units": 9}


def test_a_kill_at_any_point_is_made_good_by_the_next_purge(built: Path, tmp_path: Path) -> None:
    """Named by a video whose own row goes early: what is left must be found all the same."""
    request = PurgeRequest(sources=("q/fake3.mp4",))
    calm = Mortal(str(shutil.copytree(built, tmp_path / "calm")), 10**9)
    purge_outputs([calm], request)
    expected = data(calm)
    assert calm.changes[0].startswith("put purged/")
    assert calm.changes[0] == calm.changes[-1]
    assert len(calm.changes) > 20
    for lives in range(len(calm.changes)):
        folder = shutil.copytree(built, tmp_path / "cut")
        with pytest.raises(Killed):
            purge_outputs([Mortal(str(folder), lives)], request)
        sink = open_storage(str(folder))
        assert load_purged(sink).covers(video("x", 1, "s1")) == (lives > 0)
        purge_outputs([sink], request)
        report = verify_output(sink)
        assert report.ok, (lives, report.findings)
        assert data(sink) == expected, lives
        assert b"real1" not in sink.read("report.html"), lives
        [record] = load_purged(sink).records
        assert (record.finished_at is not None, record.found_videos) == (True, 6)
        shutil.rmtree(folder)


def test_verification_finds_a_purge_that_was_cut_off(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "cut")
    storage = Mortal(str(folder), 10**9)
    removed = storage.delete

    def die(key: str) -> None:
        raise Killed

    storage.delete = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        purge_outputs([storage], S1)
    storage.delete = removed  # type: ignore[method-assign]
    counts = verify_output(storage).counts
    assert counts["purged_left"] >= 1
    assert counts["orphan"] >= 1
    purge_outputs([storage], PurgeRequest(videos=("anything/else.mp4",)))
    assert verify_output(storage).ok


def test_the_command_line(sink: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", "s1", "--source", "s4", sink.root]) == 0
    assert f"{sink.root}: 8 videos, 7 faces removed" in capsys.readouterr().out
    assert main(["--source", "s1", sink.root]) == 0
    assert f"{sink.root}: nothing of it here" in capsys.readouterr().out
    assert main([sink.root]) == 2
    assert main(["--source", "s1"]) == 2
    assert main(["--source", "s1", str(tmp_path)]) == 2
    assert verify_output(sink).ok


@pytest.mark.slow
def test_a_purge_on_s3(s3_bucket: str) -> None:
    sink = open_storage(f"s3://{s3_bucket}/out")
    build(sink, LOOKS)
    [report] = purge_outputs([sink], PurgeRequest(sources=("/in/p/fake1.mp4",)))
    assert (report.videos, report.faces) == (6, 5)
    assert verify_output(sink).ok
    assert rows(sink)[0] == {"p/none.mp4", "q/real2.mp4", "q/b.mp4", "q/real4.mp4", "q/fake4.mp4"}
    again = everything(sink)
    purge_outputs([sink], PurgeRequest(sources=("/in/p/fake1.mp4",)))
    assert everything(sink) == again
