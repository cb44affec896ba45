"""Jobs through `submit` on a real cluster of two nodes that is closed by a token."""

import json
import os
import signal
from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from tests.cluster.conftest import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def followed(cluster: Cluster, drawn: DrawnCorpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a followed preprocess job printed, and its output."""
    output = tmp_path_factory.mktemp("submitted") / "out"
    done = cluster.fakesift("submit", "--follow", "preprocess", drawn.folder, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, output


def test_preprocess_is_followed_to_its_end(followed: tuple[str, Path], drawn: DrawnCorpus) -> None:
    log, output = followed
    assert json.loads((output / "summary.json").read_text())["listed"] == drawn.files
    assert log.count("listed ") == 1
    assert f"page       {output}/report.html" in log


def test_a_stopped_job_goes_on_where_it_stood(cluster: Cluster, drawn: DrawnCorpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    # Slow enough that it is stopped in the middle, on any machine: what stops it computes, too.
    command = ("preprocess", drawn.folder, output, "--workers", 1, "--detector", "hog", "--frames", 4)
    sent = cluster.fakesift("submit", *command)
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    follower = cluster.start("submit", "--follow", *command)
    commits = output / "commits"
    while not (commits.is_dir() and len(list(commits.glob("*.json"))) >= 2):
        assert follower.poll() is None, follower.communicate()
    assert cluster.fakesift("jobs", "stop", job).returncode == 0
    log, told = follower.communicate(timeout=120)
    assert follower.returncode == 130, log + told
    assert f"this very job runs already, as {job}" in told
    assert "interrupted; what was committed stays" in log
    assert "goes on from there" in told
    before = {path.name: path.stat().st_mtime_ns for path in commits.iterdir()}
    assert not (output / "summary.json").exists()

    again = cluster.fakesift("submit", "--follow", *command)
    assert again.returncode == 0, again.stdout + again.stderr
    after = {path.name: path.stat().st_mtime_ns for path in commits.iterdir()}
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert json.loads((output / "summary.json").read_text())["listed"] == drawn.files


def test_ctrl_c_detaches_and_attach_comes_back(cluster: Cluster, drawn: DrawnCorpus, tmp_path: Path) -> None:
    follower = cluster.start("submit", "--follow", "preprocess", drawn.folder, tmp_path / "out", "--limit", 4)
    assert follower.stderr is not None
    assert follower.stdout is not None
    job = follower.stderr.readline().split()[1].rstrip(":")
    while "Running entrypoint" not in follower.stdout.readline():
        assert follower.poll() is None
    os.kill(follower.pid, signal.SIGINT)
    _, told = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"fakesift jobs attach {job}" in told
    assert "Traceback" not in told
    back = cluster.fakesift("jobs", "attach", job)
    assert back.returncode == 0, back.stderr
    assert "listed " in back.stdout
    shown = cluster.fakesift("jobs", "list", job).stdout
    assert "SUCCEEDED" in shown
    assert "exit code  0" in shown


def test_a_job_that_fails_gives_its_own_code(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = cluster.fakesift("submit", "--follow", "preprocess", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 2
    assert "no mp4, mov, mkv" in done.stdout
    usage = cluster.fakesift("submit", "--follow", "preprocess", tmp_path / "in", tmp_path / "out", "--no-such-option")
    assert usage.returncode == 2


def test_wrong_token_and_unknown_job(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    url = json.loads((cluster.state / "fakesift" / "cluster.json").read_text())["dashboard"]
    asked = {
        "wrong": cluster.fakesift("jobs", "list", "--address", url, "--token-file", tmp_path / "token"),
        "dead": cluster.fakesift("submit", "--address", "http://127.0.0.1:9", "status", tmp_path),
        "unknown": cluster.fakesift("jobs", "attach", "nobody"),
    }
    assert {name: done.returncode for name, done in asked.items()} == {"wrong": 1, "dead": 1, "unknown": 2}
    assert "the token is wrong" in asked["wrong"].stderr
    assert "no Ray cluster answers" in asked["dead"].stderr
    assert "no job 'nobody'" in asked["unknown"].stderr
    assert not any("Traceback" in done.stderr for done in asked.values())


def test_no_secret_reaches_log_record_or_output(cluster: Cluster, followed: tuple[str, Path]) -> None:
    token = (cluster.state / "fakesift" / "token").read_text()
    listed = cluster.fakesift("jobs", "list").stdout.split()
    jobs = [word for word in listed if word.startswith("preprocess-")]
    assert jobs
    shown = [cluster.fakesift("jobs", word, jobs[0]).stdout for word in ("list", "logs")]
    log, output = followed
    assert all(token not in text for text in (log, *shown))
    assert all(token.encode() not in path.read_bytes() for path in output.rglob("*") if path.is_file())
