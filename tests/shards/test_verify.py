"""Verification of a real small output: clean ones pass, and each kind of damage done by hand is found as what it is."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.records import StoredObject, WorkUnit
from batch.shards.build import build_unit
from batch.shards.commit import Commit, DataFile, commit_key, read_commits
from batch.shards.findings import SHOWN_PER_KIND
from batch.shards.read import outcome_tables
from batch.shards.summary import Summary, summarize
from batch.shards.verify import verify_output
from batch.shards.write import data_file
from batch.storage.base import Storage
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from jobs.verify import main
from tests.support.built_output import FACES, LOOKS, RUN, SHAPING, build, close, everything


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "out"
    build(open_storage(str(folder)), LOOKS)
    return folder


@pytest.fixture
def sink(built: Path, tmp_path: Path) -> Storage:
    return open_storage(str(shutil.copytree(built, tmp_path / "out")))


def one(sink: Storage, unit: str, generation: int = 0) -> Commit:
    [commit] = read_commits(sink, [commit_key(unit, generation)])
    return commit


def shard(sink: Storage, unit: str = "u1") -> str:
    faces = one(sink, unit).faces
    assert faces is not None
    return faces.key


def edit(sink: Storage, key: str, **values: Any) -> None:
    sink.put(key, json.dumps({**json.loads(sink.read(key)), **values}).encode())


def rewrite(sink: Storage, unit: str, name: str, change: Callable[[pa.Table], pa.Table], generation: int = 0) -> None:
    """Changes a file of a unit and names it rightly in the commit, as a wrong writer would."""
    commit = one(sink, unit, generation)
    old: DataFile = getattr(commit, name)
    buffer = pa.BufferOutputStream()
    table = change(pq.read_table(pa.BufferReader(sink.read(old.key))))
    pq.write_table(table, buffer)
    data = buffer.getvalue().to_pybytes()
    stem = old.key.rsplit("/", 1)[1].rsplit("-", 1)[0]
    file = data_file(f"{name}/", stem, data, table.num_rows)
    sink.delete(old.key)
    sink.put(file.key, data)
    sink.put(commit.key, (replace(commit, faces=file) if name == "faces" else replace(commit, outcomes=file)).to_json())


def column(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        array = pa.array(values(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(index, table.schema.field(name), array)

    return change


def found(sink: Storage) -> dict[str, int]:
    return dict(verify_output(sink).counts)


def test_a_clean_output_passes(sink: Storage) -> None:
    report = verify_output(sink, prune=True)
    assert report.ok, report.findings
    assert (report.units, report.videos, report.faces, report.files) == (4, 11, 9, 12)
    assert report.closed
    assert not report.pruned


def test_an_output_whose_job_is_not_finished_passes(sink: Storage) -> None:
    for key in ("summary.json", "plan.json", "report.html", commit_key("u3", 0)):
        sink.delete(key)
    report = verify_output(sink, prune=True)
    assert report.ok, report.findings
    assert (report.closed, len(report.pruned)) == (False, 2)


def truncate(sink: Storage) -> None:
    sink.put(shard(sink), sink.read(shard(sink))[:-100])


def flip(sink: Storage) -> None:
    data = bytearray(sink.read(shard(sink)))
    data[len(data) // 2] ^= 1
    sink.put(shard(sink), bytes(data))


def garbage_with_a_digest(sink: Storage) -> None:
    data = b"PAR1 but not really PAR1"
    file = data_file("outcomes/", "u4", data, 2)
    sink.delete(one(sink, "u4").outcomes.key)
    sink.put(file.key, data)
    sink.put(commit_key("u4", 0), replace(one(sink, "u4"), outcomes=file).to_json())


def old_schema(sink: Storage) -> None:
    rewrite(sink, "u4", "faces", lambda table: table.replace_schema_metadata({"fakesift.schema": "faces/0"}))


def missing_column(sink: Storage) -> None:
    rewrite(sink, "u4", "outcomes", lambda table: table.drop_columns(["size_bytes"]))


def other_options(sink: Storage) -> None:
    shaping = {**SHAPING, "faces": {**asdict(FACES), "frames": 4}}
    sink.put("run.json", replace(RUN, shaping=shaping).to_json())


def copied_commit(sink: Storage) -> None:
    sink.put("commits/u9.json", sink.read(commit_key("u4", 0)))


def same_videos_again(sink: Storage) -> None:
    results = {result.video: result for result in LOOKS["u4"][0]}
    build_unit(WorkUnit(id="u9", videos=tuple(results)), results.__getitem__, "/in", sink, FACES.digest())
    close(sink)


def summary_of_more(sink: Storage) -> None:
    edit(sink, "summary.json", kept=99)


def escaping_file(sink: Storage) -> None:
    raw = json.loads(sink.read(commit_key("u4", 0)))
    raw["faces"]["key"] = "../../etc/passwd"
    sink.put(commit_key("u4", 0), json.dumps(raw).encode())


def retry_of_a_kept_video(sink: Storage) -> None:
    results = {result.video: result for result in LOOKS["u4"][0][:1]}
    unit = WorkUnit(id="u4", videos=tuple(results), generation=1, replaces={"timeout": 1})
    build_unit(unit, results.__getitem__, "/in", sink, FACES.digest())


def killed_writer(sink: Storage, name: str = "faces/.fakesift-tmp-boot-0") -> None:
    """Leaves a hidden file of a writer that was killed two hours ago, elsewhere."""
    path = Path(sink.root, name)
    path.write_bytes(b"a face")
    then = path.stat().st_mtime - 7200
    os.utime(path, (then, then))


def with_counts(sink: Storage, name: str, **values: Any) -> None:
    edit(sink, commit_key(name, 0), **values)


DAMAGE: dict[str, tuple[Callable[[Storage], object], dict[str, int]]] = {
    "truncated shard": (truncate, {"file_size": 1}),
    "flipped byte": (flip, {"file_digest": 1}),
    "deleted shard": (lambda sink: sink.delete(shard(sink)), {"file_missing": 1}),
    "deleted outcomes": (lambda sink: sink.delete(one(sink, "u1").outcomes.key), {"file_missing": 1}),
    "no Parquet": (garbage_with_a_digest, {"file_unreadable": 1}),
    "old schema": (old_schema, {"schema": 1}),
    "missing column": (missing_column, {"schema": 1}),
    "lost row": (
        lambda sink: rewrite(sink, "u1", "faces", lambda t: t.slice(1)),
        {"face_count": 2, "commit_counts": 1},
    ),
    "wrong rows in the commit": (
        lambda sink: sink.put(
            commit_key("u1", 0),
            replace(one(sink, "u1"), outcomes=replace(one(sink, "u1").outcomes, rows=9)).to_json(),
        ),
        {"rows": 1},
    ),
    "deleted commit": (
        lambda sink: sink.delete(commit_key("u1", 0)),
        {"orphan": 2, "summary_differs": 10, "plan_differs": 2},
    ),
    "deleted first commit": (
        lambda sink: sink.delete(commit_key("u2", 0)),
        {"orphan": 2, "retry_of_no_fault": 2, "commit_counts": 1},
    ),
    "garbage commit": (lambda sink: sink.put(commit_key("u1", 0), b"\0\1{"), {"commit_damaged": 1}),
    "list for a commit": (lambda sink: sink.put(commit_key("u1", 0), b"[1]"), {"commit_damaged": 1}),
    "deep commit": (lambda sink: sink.put(commit_key("u1", 0), b"[" * 100_000), {"commit_damaged": 1}),
    "words for numbers": (lambda sink: with_counts(sink, "u1", listed="3"), {"commit_damaged": 1}),
    "unknown reason": (lambda sink: with_counts(sink, "u1", reasons={"dull": 3}), {"commit_damaged": 1}),
    "edited count": (lambda sink: with_counts(sink, "u1", listed=4), {"commit_counts": 1, "summary_differs": 1}),
    "edited reasons": (lambda sink: with_counts(sink, "u1", reasons={"kept": 3}), {"commit_counts": 1}),
    "edited labels": (lambda sink: with_counts(sink, "u1", labels={"fake": 2}), {"commit_counts": 1}),
    "edited size": (lambda sink: with_counts(sink, "u1", bytes_listed=1), {"commit_counts": 1}),
    "edited retry": (lambda sink: edit(sink, commit_key("u2", 1), replaces={"timeout": 1}), {"commit_counts": 1}),
    "edited unit": (lambda sink: with_counts(sink, "u1", unit="u8"), {"commit_name": 1, "file_name": 2}),
    "edited digest": (lambda sink: with_counts(sink, "u1", options_digest="00"), {"options_differ": 1}),
    "commit copied": (copied_commit, {"commit_name": 1, "video_twice": 1}),
    "videos in two units": (same_videos_again, {"video_twice": 1}),
    "file elsewhere": (escaping_file, {"file_name": 1, "orphan": 1}),
    "retry of a kept video": (retry_of_a_kept_video, {"retry_of_no_fault": 1, "commit_counts": 1}),
    "orphan shard": (lambda sink: sink.put("faces/u9-00.parquet", b"left by a killed task"), {"orphan": 1}),
    "hidden file": (killed_writer, {"hidden_file": 1}),
    "edited summary": (summary_of_more, {"summary_differs": 1}),
    "damaged summary": (lambda sink: sink.put("summary.json", b"{"), {"summary_differs": 1}),
    "edited plan": (lambda sink: edit(sink, "plan.json", listed=12), {"plan_differs": 1}),
    "other options": (other_options, {"options_differ": 12}),
    "edited run": (lambda sink: edit(sink, "run.json", digest="0"), {"run_damaged": 1}),
    "damaged run": (lambda sink: sink.put("run.json", b"{"), {"run_damaged": 1}),
    "deleted run": (lambda sink: sink.delete("run.json"), {"run_damaged": 1}),
    "stray object": (lambda sink: sink.put("commits/holiday.jpg", b""), {"stray": 1}),
    "damaged purge record": (lambda sink: sink.put("purged/x.json", b"{}"), {"purge_record_damaged": 1}),
    "double face": (
        lambda sink: rewrite(sink, "u1", "faces", column("track_id", lambda ids: [7] * len(ids))),
        {"face_id": 2},
    ),
    "face of another": (
        lambda sink: rewrite(sink, "u1", "faces", column("video_key", lambda keys: ["x", *keys[1:]])),
        {"face_id": 1, "face_of_no_kept_video": 1, "face_count": 2},
    ),
    "face of a set-aside video": (
        lambda sink: rewrite(sink, "u1", "outcomes", column("outcome", lambda names: ["no_face", *names[1:]])),
        {"outcome_unknown": 1, "commit_counts": 1, "face_of_no_kept_video": 1},
    ),
    "unknown outcome": (
        lambda sink: rewrite(sink, "u1", "outcomes", column("outcome", lambda names: [*names[:-1], "dull"])),
        {"outcome_unknown": 1, "commit_counts": 1},
    ),
    "video twice in a unit": (
        lambda sink: rewrite(sink, "u3", "outcomes", column("video_key", lambda keys: keys[:1] * 2)),
        {"video_twice": 1},
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_as_what_it_is(sink: Storage, name: str) -> None:
    harm, expected = DAMAGE[name]
    harm(sink)
    counts = found(sink)
    assert {kind: counts.get(kind) for kind in expected} == expected, counts
    # Beside it at most what follows from it: counts that no longer fit, files that nobody names any more.
    assert set(counts) - set(expected) <= {"summary_differs", "plan_differs", "orphan"}, counts


def test_what_is_no_output_is_refused(tmp_path: Path, sink: Storage) -> None:
    with pytest.raises(ValueError, match=r"not an output of `fakesift preprocess`: it has no run\.json"):
        verify_output(open_storage(str(tmp_path)))
    sink.put("run.json", replace(RUN, kind="score").to_json())
    with pytest.raises(ValueError, match="an output of `fakesift score`"):
        verify_output(sink)


def test_pruning_removes_orphans_and_nothing_else(sink: Storage) -> None:
    before = everything(sink)
    sink.put("faces/u9-00.parquet", b"left by a killed task")
    sink.put("outcomes/deep/er.parquet", b"")
    sink.put("commits/holiday.jpg", b"")
    report = verify_output(sink, prune=True)
    assert report.pruned == (sink.uri("faces/u9-00.parquet"), sink.uri("outcomes/deep/er.parquet"))
    assert dict(report.counts) == {"stray": 1}
    assert everything(sink) == {**before, "commits/holiday.jpg": b""}


def test_pruning_removes_hidden_files_of_killed_writers_alone(sink: Storage) -> None:
    before = everything(sink)
    killed_writer(sink)
    living = Path(sink.root, "commits/.fakesift-tmp-boot-1")
    living.write_bytes(b"just written, by another machine")
    report = verify_output(sink, prune=True)
    assert report.pruned == (sink.uri("faces/.fakesift-tmp-boot-0"),)
    assert report.ok
    assert [path.name for path in Path(sink.root).rglob(".fakesift-*")] == [living.name]
    assert everything(sink) == before


def test_nothing_is_pruned_while_a_commit_is_damaged(sink: Storage) -> None:
    sink.put(commit_key("u1", 0), b"{")
    before = everything(sink)
    report = verify_output(sink, prune=True)
    assert (report.counts["orphan"], report.pruned) == (2, ())
    assert "not removed while a commit is damaged" in report.findings[-1].found
    assert everything(sink) == before


class Busy(LocalStorage):
    """A folder in which a job commits a unit after the commits were listed."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        yield from list(super().list(prefix))
        if prefix == "commits/":
            self.put("commits/u9.json", b"a commit")


def test_nothing_is_pruned_while_a_job_commits(sink: Storage) -> None:
    sink.put("faces/u9-00.parquet", b"not committed yet")
    report = verify_output(Busy(sink.root), prune=True)
    assert (dict(report.counts), report.pruned) == ({"orphan": 1}, ())
    assert "a job is writing here" in report.findings[0].found
    assert sink.exists("faces/u9-00.parquet")


def test_the_listing_is_bounded(sink: Storage) -> None:
    for number in range(SHOWN_PER_KIND + 30):
        sink.put(f"faces/u9-{number:03}.parquet", b"")
    report = verify_output(sink)
    assert report.counts == {"orphan": SHOWN_PER_KIND + 30}
    assert len(report.findings) == SHOWN_PER_KIND


def test_a_video_of_a_stopped_job_is_not_missed(sink: Storage) -> None:
    """A commit that is gone with its files and its part of the summary still differs from the last listing."""
    for name in ("faces", "outcomes"):
        sink.delete(getattr(one(sink, "u1"), name).key)
    sink.delete(commit_key("u1", 0))
    sink.put("summary.json", summarize(read_commits(sink), {}).to_json())
    assert found(sink) == {"plan_differs": 2}


def test_the_command_line(sink: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sink.root]) == 0
    assert "4 units, 11 videos, 9 faces, 12 files" in capsys.readouterr().out
    truncate(sink)
    for number in range(SHOWN_PER_KIND + 1):
        sink.put(f"faces/u9-{number:03}.parquet", b"")
    assert main([sink.root]) == 1
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("file_size")]
    size = len(sink.read(shard(sink)))
    assert line.split(maxsplit=1)[1] == f"{sink.uri(shard(sink))}: found {size} bytes, expected {size + 100} bytes"
    assert "orphan                 and 1 more" in lines
    assert main([sink.root, "--json", "--prune"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["counts"], len(told["pruned"])) == (False, {"file_size": 1}, SHOWN_PER_KIND + 1)
    assert main([str(tmp_path)]) == 2


def test_outcomes_and_summary_agree_with_the_readers(sink: Storage) -> None:
    """What verification counts is what readers of the output get."""
    keys = {row["video_key"] for table in outcome_tables(sink, read_commits(sink)) for row in table.to_pylist()}
    summary = Summary.from_json(sink.read("summary.json"))
    report = verify_output(sink)
    assert len(keys) == report.videos == summary.listed
    assert report.faces == summary.faces
