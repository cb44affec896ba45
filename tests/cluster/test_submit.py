"""A real cluster of two nodes that is closed by a token, and jobs sent to it: the three uses, and every end.

All tests of the running cluster stand in this file, so that it is started once, however the files are shared out.
"""

import json
import os
import re
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from batch.corpus.draw.planted import PlantedKind
from batch.shards.commit import read_commits
from batch.shards.read import outcome_tables
from batch.storage.local import LocalStorage
from cluster.processes import members
from jobs.session import asks_no_token
from tests.cluster.conftest import ROOT, Cluster, record
from tests.cluster.test_watching import drawn_names
from tests.support.holding import files_in, holding

pytestmark = pytest.mark.slow

HOLD_CPUS = ROOT / "tests" / "support" / "hold_cpus.py"
REPORT_AND_SCRAPE = ROOT / "tests" / "support" / "report_and_scrape.py"
TRAIN = ("--model", "cnn", "--epochs", 1, "--batch-size", 8, "--augment", "none", "--no-pictures")


def status_of(url: str, token: str | None = None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_all_nodes_are_there_and_closed(cluster: Cluster) -> None:
    local = record(cluster.state)
    status = cluster.here("cluster", "status")
    assert status.returncode == 0
    assert "2 of 2 alive" in status.stdout
    token_file = cluster.state / "fakesift" / "token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    jobs = f"{local.dashboard}/api/jobs/"
    assert [status_of(jobs), status_of(jobs, "wrong"), status_of(jobs, token_file.read_text())] == [401, 403, 200]
    assert not asks_no_token(local.address)


def test_a_second_one_is_refused(cluster: Cluster) -> None:
    again = cluster.here("cluster", "up")
    assert again.returncode == 2
    assert "is up or coming up" in again.stderr
    assert cluster.here("cluster", "status").returncode == 0


def test_the_token_is_in_no_command_line_and_no_log(cluster: Cluster) -> None:
    token = (cluster.state / "fakesift" / "token").read_text()
    shown = [cluster.here("cluster", word) for word in ("status", "env")]
    assert all(token not in done.stdout + done.stderr for done in shown)
    local = record(cluster.state)
    assert all(token not in " ".join(process.cmdline()) for process in members(local))
    logs = [
        path for path in Path(local.folder).rglob("*") if path.is_file() and path.suffix in {".log", ".out", ".err"}
    ]
    assert logs
    assert all(token.encode() not in path.read_bytes() for path in logs)


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


def records(cluster: Cluster) -> Iterable[dict[str, object]]:
    """What the jobs logged on the nodes."""
    folder = Path(record(cluster.state).folder)
    for log in (folder / "session_latest" / "logs").glob("worker-*.err"):
        for line in log.read_text().splitlines():
            if '"name": "fakesift"' in line:
                yield json.loads(line)


def test_workers_log_units_and_faults_with_their_ids(
    cluster: Cluster, followed: tuple[str, Path], drawn: DrawnCorpus
) -> None:
    _, output = followed
    (cut,) = [item.key for item in drawn.planted if item.kind is PlantedKind.CUT_FILE]
    logged = list(records(cluster))
    (fault,) = [record for record in logged if record.get("uri") == f"{drawn.folder}/{cut}"]
    assert (fault["message"], fault["levelname"], fault["attempt"]) == ("video fault", "WARNING", 0)
    assert fault["node_id"] and fault["task_id"]
    sink = LocalStorage(str(output))
    (commit,) = [commit for commit in read_commits(sink) if commit.unit == fault["unit"]]
    rows = {row["video_key"]: row for table in outcome_tables(sink, [commit]) for row in table.to_pylist()}
    assert (rows[cut]["outcome"], rows[cut]["detail"]) == (fault["reason"], fault["detail"])
    told = [record["message"] for record in logged if record.get("unit") == fault["unit"]]
    assert (told[0], told[-1]) == ("unit started", "unit committed")
    done = {record["unit"] for record in logged if record["message"] == "unit committed"}
    assert done == {commit.unit for commit in read_commits(sink)}


def test_train_then_score(cluster: Cluster, followed: tuple[str, Path], drawn: DrawnCorpus, tmp_path: Path) -> None:
    _, faces = followed
    model, scores = tmp_path / "model", tmp_path / "scores"
    trained = cluster.fakesift("submit", "--follow", "train", faces, model, *TRAIN, "--workers", 2)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert json.loads((model / "run.json").read_text())["shaping"]["workers"] == 2
    digest = json.loads((model / "bundle" / "bundle.json").read_text())["digest"]
    assert f"bundle       {model}/bundle/   {digest}" in trained.stdout
    few = ("--limit", 3, "--frames", 1, "--no-pictures")
    scored = cluster.fakesift("submit", "--follow", "score", model / "bundle", drawn.folder, scores, *few)
    assert scored.returncode == 0, scored.stdout + scored.stderr
    summary = json.loads((scores / "summary.json").read_text())
    assert (summary["bundle"], summary["total"]["items"]) == (digest, 3)
    assert {"unit looked at", "unit scored"} <= {record["message"] for record in records(cluster)}
    token = (cluster.state / "fakesift" / "token").read_text()
    assert token not in trained.stdout + trained.stderr + scored.stdout + scored.stderr
    assert {"run.json", "MODEL_CARD.md", "summary.json"} <= {path.name for path in tmp_path.rglob("*")}
    assert holding(files_in(model, scores), token) == []


def lines_to(job: subprocess.Popen[str], wanted: str) -> str:
    """Reads what a follower prints until a line holds this; gives that line."""
    assert job.stdout is not None
    for line in job.stdout:
        if wanted in line:
            return line
    raise AssertionError((wanted, job.communicate()))


def interrupted(job: subprocess.Popen[str]) -> str:
    """Sends Ctrl-C; gives what was said on standard error."""
    os.kill(job.pid, signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "Traceback" not in told
    return told


def submitted(told: str) -> str:
    found = re.search(r"submitted (\S+):", told)
    assert found, told
    return found.group(1)


def test_a_full_cluster_detaching_stopping_and_going_on(cluster: Cluster, drawn: DrawnCorpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    commits = output / "commits"
    # Slow enough that it is stopped in the middle, on any machine: what stops it computes, too.
    slow = ("preprocess", drawn.folder, output, "--detector", "hog", "--frames", 3, "--limit", 10, "--workers", 1)
    holder = cluster.join(HOLD_CPUS)
    lines_to(holder, "held")
    first = cluster.start("submit", "--follow", *slow)
    assert "other jobs have all 2 of the cluster" in lines_to(first, "waiting for a CPU")
    told = interrupted(first)
    job = submitted(told)
    assert f"fakesift jobs attach {job}" in told
    assert "RUNNING" in cluster.here("jobs", "list", job).stdout
    assert not any(commits.glob("*.json"))
    other = cluster.here("submit", "--env", "LEVEL=3", *slow)
    assert other.returncode == 2
    assert f"{job} runs with this command, but with other code, --env" in other.stderr
    holder.communicate("")
    assert holder.returncode == 0

    follower = cluster.start("submit", "--follow", *slow)
    while not any(commits.glob("*.json")):
        assert follower.poll() is None, follower.communicate()
    assert cluster.here("jobs", "stop", job).returncode == 0
    log, told = follower.communicate(timeout=120)
    assert follower.returncode == 130, log + told
    assert f"this very job runs already, as {job}" in told
    assert "stopping; what was committed stays" in log
    assert "goes on from there" in told
    before = {path.name: path.stat().st_mtime_ns for path in commits.iterdir()}
    assert not (output / "summary.json").exists()

    again = cluster.here("submit", *slow).stdout.strip()
    assert again != job
    back = cluster.fakesift("jobs", "attach", again)
    assert back.returncode == 0, back.stdout + back.stderr
    assert "listed " in back.stdout
    after = {path.name: path.stat().st_mtime_ns for path in commits.iterdir()}
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert json.loads((output / "summary.json").read_text())["listed"] == 10
    shown = cluster.here("jobs", "list", again).stdout
    assert "SUCCEEDED" in shown
    assert "exit code  0" in shown


def test_a_plan_jobs_that_fail_and_one_that_asks_for_too_much(
    cluster: Cluster, drawn: DrawnCorpus, followed: tuple[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    _, faces = followed
    # Side by side, since each waits for Ray most of its time.
    large = cluster.start("submit", "--follow", "train", faces, tmp_path / "model", *TRAIN, "--gpus-per-worker", 1)
    empty = cluster.start("submit", "--follow", "preprocess", tmp_path / "in", tmp_path / "out")
    usage = cluster.start("submit", "--follow", "preprocess", tmp_path / "in", tmp_path / "out", "--no-such-option")
    plan = cluster.start("submit", "--follow", "plan", "preprocess", drawn.folder, "--sample", 3, "--nodes", 2)
    told, _ = empty.communicate(timeout=300)
    assert empty.returncode == 2
    assert "no mp4, mov, mkv" in told
    usage.communicate(timeout=300)
    assert usage.returncode == 2
    told, error = plan.communicate(timeout=300)
    assert plan.returncode == 0, told + error
    assert f"looking at 3 of {drawn.files} videos" in told
    assert re.search(r"^ +2 nodes +\d+\.\d\d h", told, re.MULTILINE)
    line = lines_to(large, "waiting for room")
    assert "ask for 1 CPU and 1 GPU at once, and there are 2 CPU and 0 GPU" in line
    job = submitted(interrupted(large))
    assert cluster.here("jobs", "stop", job).returncode == 0
    assert "STOPPED" in cluster.here("jobs", "list", job).stdout


def counted(text: str, job: str) -> list[dict[str, float]]:
    """What each run of a job counted, by the metric's name and a video's outcome."""
    runs: dict[str, dict[str, float]] = {}
    for name, tags, value in re.findall(r"^ray_fakesift_(\w+){(.*)} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        if told["job_name"] == job:
            runs.setdefault(told["WorkerId"], {})[" ".join([name, *filter(None, [told.get("outcome")])])] = float(value)
    return list(runs.values())


def test_what_the_dashboard_draws_is_exported_by_the_jobs(cluster: Cluster, followed: tuple[str, Path]) -> None:
    """Beside the run that was followed, a driver reports as training does, and waits until the nodes export it."""
    reporter = cluster.join(REPORT_AND_SCRAPE)
    text, error = reporter.communicate(timeout=400)
    assert reporter.returncode == 0, error
    assert drawn_names() <= set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    assert {"loss": 0.5, "images_per_second": 3.0} in counted(text, "train")
    commits = list(read_commits(LocalStorage(str(followed[1]))))
    outcomes: Counter[str] = Counter()
    for commit in commits:
        outcomes.update(commit.reasons)
    faces = sum(0 if commit.faces is None else commit.faces.rows for commit in commits)
    assert {
        "units_total": len(commits),
        "faces_total": faces,
        "bytes_read_total": sum(commit.bytes_read for commit in commits),
        "requests_total": sum(commit.requests for commit in commits),
        **{f"videos_total {outcome}": videos for outcome, videos in outcomes.items() if videos},
    } in counted(text, "preprocess")


def test_wrong_token_and_unknown_job(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    url = record(cluster.state).dashboard
    asked = {
        "wrong": cluster.here("jobs", "list", "--address", url, "--token-file", tmp_path / "token"),
        "dead": cluster.here("submit", "--address", "http://127.0.0.1:9", "status", tmp_path),
        "unknown": cluster.here("jobs", "attach", "nobody"),
    }
    assert {name: done.returncode for name, done in asked.items()} == {"wrong": 1, "dead": 1, "unknown": 2}
    assert "the token is wrong" in asked["wrong"].stderr
    assert "no Ray cluster answers" in asked["dead"].stderr
    assert "no job 'nobody'" in asked["unknown"].stderr
    assert not any("Traceback" in done.stderr for done in asked.values())


def test_no_secret_reaches_log_record_or_output(cluster: Cluster, followed: tuple[str, Path]) -> None:
    token = (cluster.state / "fakesift" / "token").read_text()
    listed = cluster.here("jobs", "list").stdout.split()
    jobs = [word for word in listed if word.startswith(("preprocess-", "train-", "score-", "plan-"))]
    assert jobs
    shown = [cluster.here("jobs", word, job).stdout for word in ("list", "logs") for job in jobs]
    log, output = followed
    assert all(token not in text for text in (log, *shown))
    assert all(token not in json.dumps(record) for record in records(cluster))
    assert holding(files_in(output), token) == []
