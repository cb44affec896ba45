"""The embedded cluster dies, the disk fills, a commit is spoilt, while the whole job runs: one line, and it goes on."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch.shards.commit import committed_keys, read_commits
from batch.shards.verify import verify_output
from batch.storage.base import Storage
from batch.storage.open import open_storage
from jobs.preprocess import main
from tests.faults.test_nodes import PATIENCE_S, cmdline, wait_for_commits
from tests.support.job import ROOT, fakesift, files, outcomes
from tests.support.processes import family, kill_all

pytestmark = [pytest.mark.slow, pytest.mark.soak]


def start(corpus: Path, output: Path, *prefix: str) -> "subprocess.Popen[str]":
    """The job, with one worker so that it lasts."""
    command = [*prefix, sys.executable, "-m", "jobs.cli", "preprocess", str(corpus), str(output), "--workers", "1"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def told(job: "subprocess.Popen[str]") -> str:
    """The one line with which a job failed, which is its last."""
    text, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, text
    assert "Traceback" not in text
    [line] = [line for line in text.splitlines() if line.startswith("fakesift")]
    assert text.rstrip().endswith(line)
    return line


def same(output: Path, calm: Path) -> bool:
    """Whether faces are the same byte by byte, and outcomes row by row."""
    one, other = open_storage(str(output)), open_storage(str(calm))
    return files(one, "faces/") == files(other, "faces/") and outcomes(one) == outcomes(other)


def named(pids: list[int], name: bytes) -> list[int]:
    """Those that run a program of that name."""
    return [pid for pid in pids if name in cmdline(pid).split(b"\0")[0]]


def wait_for_end(pids: list[int]) -> None:
    """Until none of them is there any more."""
    deadline = time.monotonic() + PATIENCE_S
    while any(map(cmdline, pids)):
        assert time.monotonic() < deadline, [cmdline(pid) for pid in pids]
        time.sleep(0.1)


@pytest.mark.timeout(1200)
def test_an_embedded_cluster_that_dies_ends_the_job_and_the_next_run_goes_on(
    drawn_corpus: Path, calm: Path, tmp_path: Path
) -> None:
    sink = open_storage(str(tmp_path / "out"))
    for vital in ("gcs_server", "raylet"):
        before = len(list(committed_keys(sink)))
        job = start(drawn_corpus, tmp_path / "out")
        wait_for_commits(sink, before + 2, job)
        relatives = [pid for pid in family(job.pid) if pid != job.pid]
        victims = named(relatives, vital.encode())
        assert len(victims) == 1
        kill_all(victims)
        assert f"the embedded Ray died ({vital})" in told(job)
        wait_for_end(relatives)
        assert before + 2 <= len(list(committed_keys(sink))) < len(list(committed_keys(open_storage(str(calm)))))
    done = fakesift("preprocess", drawn_corpus, tmp_path / "out", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "out", calm)
    assert list((tmp_path / "out").rglob(".fakesift-*")) == []


Inside = Callable[..., list[str]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Inside]]:
    """A folder that is a disk of 700 kB in a mount namespace of its own, and what runs a command in there."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("a mount namespace needs root, unshare and nsenter")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=700k none {disk} && echo ready && read line"
    holder = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "ready\n":
            pytest.skip("mounting is not allowed here")
        inside = ["nsenter", "-t", str(holder.pid), "-m", f"--wd={ROOT}"]
        yield disk, lambda *command: [*inside, *map(str, command)]
    finally:
        holder.communicate("\n")


def test_a_full_disk_ends_the_job_and_the_next_run_has_room(
    drawn_corpus: Path, calm: Path, tmp_path: Path, small_disk: tuple[Path, Inside]
) -> None:
    disk, inside = small_disk
    output, copy = disk / "out", tmp_path / "copy"
    line = told(start(drawn_corpus, output, *inside()))
    assert f"{output}/" in line
    assert "No space left on device" in line
    subprocess.run(inside("cp", "-r", output, copy), check=True)
    left = verify_output(open_storage(str(copy)))
    assert left.units > 0  # some were committed, and those are whole
    assert set(left.counts) <= {"orphan"}, left.findings
    assert not left.closed
    subprocess.run(inside("mount", "-o", "remount,size=64m", disk), check=True)
    done = start(drawn_corpus, output, *inside())
    text, _ = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, text
    shutil.rmtree(copy)
    subprocess.run(inside("cp", "-r", output, copy), check=True)
    assert same(copy, calm)
    assert verify_output(open_storage(str(copy))).ok


def spoil_first(sink: Storage) -> str:
    key = next(committed_keys(sink))
    sink.put(key, b"{")
    return key


def test_a_commit_that_is_spoilt_meanwhile_is_a_failure_and_no_wrong_usage(
    drawn_corpus: Path, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = open_storage(str(tmp_path / "out"))
    job = start(drawn_corpus, tmp_path / "out")
    wait_for_commits(sink, 2, job)
    key = spoil_first(sink)
    line = told(job)
    assert f"stopped: damaged commit {sink.uri(key)}" in line
    advice = f"remove {sink.uri(key).removesuffix('.json')}*.json and run the job again"
    assert advice in line
    # A run with nothing left to do meets it as well.
    assert main([str(drawn_corpus), str(tmp_path / "out")]) == 1
    assert advice in capsys.readouterr().err
    sink.delete(key)
    assert fakesift("preprocess", drawn_corpus, tmp_path / "out").returncode == 0
    assert same(tmp_path / "out", calm)
    assert [commit.generation for commit in read_commits(sink, [key])] == [0]
