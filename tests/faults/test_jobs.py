"""The whole job through its command line, from and to a real S3 server, while things break."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from batch.shards.commit import read_commits
from batch.shards.read import face_tables, latest_outcomes, outcome_tables
from batch.storage.s3 import S3Options, S3Storage
from tests.faults.test_nodes import wait_for_commits
from tests.support.fault_proxy import Rule, proxying
from tests.support.job import SABOTAGE
from tests.support.seaweed import S3Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("FAKESIFT_FAULT_SEED", "1"))
PATIENCE_S = 400

# A reply that is short and says that it is whole can be told by its range alone, so only clips get it.
ANY_MOMENT = (
    *(Rule(fault=fault, method="GET|HEAD|PUT|DELETE", chance=0.03, each=1) for fault in ("500", "503", "reset")),
    *(Rule(fault=fault, method="GET", chance=0.03, each=1) for fault in ("cut", "delay")),
    Rule(fault="short", path=r"/corpus/.*\.mp4", chance=0.05, each=1),
    Rule(fault="lost_reply", method="PUT", chance=0.1, each=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket with a corpus, and what a calm run made of it."""

    server: S3Server
    bucket: str
    environment: dict[str, str]

    def run(self, endpoint: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """`fakesift` in a process of its own, to its end."""
        job = self.start(endpoint, *arguments, **environment)
        out, err = job.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(job.args, job.returncode, out, err)

    def start(self, endpoint: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        """The same, begun."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
            cwd=ROOT,
            env={**self.environment, **environment, "AWS_ENDPOINT_URL": endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def preprocess(self, endpoint: str, output: str, *more: object, **env: str) -> subprocess.CompletedProcess[str]:
        """The job from the corpus to a prefix of the same bucket."""
        return self.run(endpoint, *self.command(output), *more, **env)

    def command(self, output: str) -> list[str]:
        """The job's arguments."""
        return ["preprocess", f"s3://{self.bucket}/corpus", f"s3://{self.bucket}/{output}", "--workers", "2"]

    def store(self, prefix: str) -> S3Storage:
        """Past every proxy."""
        return S3Storage(self.bucket, prefix, S3Options(endpoint=self.server.endpoint))

    def faces(self, output: str) -> dict[str, bytes]:
        """Every shard's bytes."""
        sink = self.store(output)
        return {item.key: sink.read(item.key) for item in sink.list("faces/")}

    def rows(self, output: str) -> dict[str, dict[str, Any]]:
        """The faces, by id."""
        sink = self.store(output)
        rows = [row for table in face_tables(sink, read_commits(sink)) for row in table.to_pylist()]
        assert len({row["face_id"] for row in rows}) == len(rows)
        return {row["face_id"]: row for row in rows}

    def outcomes(self, output: str) -> dict[str, str]:
        """The outcome of each video; each is there once."""
        sink = self.store(output)
        tables = outcome_tables(sink, read_commits(sink), ["video_key", "outcome"])
        rows = [row for table in tables for row in table.to_pylist()]
        assert len({row["video_key"] for row in rows}) == len(rows)
        return {row["video_key"]: row["outcome"] for row in rows}


@pytest.fixture(scope="module")
def place(s3_server: S3Server, drawn_corpus: Path) -> Iterator[Place]:
    """The drawn corpus in a bucket, and a run over it that nothing disturbed, under `calm`."""
    session = boto3.session.Session(s3_server.access_key, s3_server.secret_key, region_name="us-east-1")
    bucket = "faults-jobs"  # what is injected hangs on the paths: a name of its own each time would change it
    session.client("s3", endpoint_url=s3_server.endpoint).create_bucket(Bucket=bucket)
    credentials = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials.items():
            patch.setenv(name, value)
        made = Place(server=s3_server, bucket=bucket, environment={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"})
        for path in sorted(drawn_corpus.rglob("*")):
            if path.is_file():
                made.store("corpus").put(str(path.relative_to(drawn_corpus)), path.read_bytes())
        done = made.preprocess(s3_server.endpoint, "calm")
        assert done.returncode == 0, done.stderr
        yield made


def test_faults_at_any_moment_leave_no_trace(place: Place) -> None:
    with proxying(place.server.endpoint, ANY_MOMENT, SEED) as proxy:
        done = place.preprocess(proxy.endpoint, "shaken")
        print(f"seed {SEED}: {proxy.requests} requests, injected {dict(sorted(proxy.injected.items()))}")
    assert done.returncode == 0, done.stderr
    assert proxy.injected.total() >= 20
    summary = json.loads(place.store("shaken").read("summary.json"))
    accounted = summary["kept"] + sum(summary["set_aside"].values()) + sum(summary["faults"].values())
    assert summary["listed"] == accounted == len(place.outcomes("shaken"))
    assert place.outcomes("shaken") == place.outcomes("calm")
    assert place.faces("shaken") == place.faces("calm") != {}


@pytest.mark.soak
def test_credentials_that_expire_end_the_job_and_the_next_run_finishes_it(place: Place) -> None:
    with proxying(place.server.endpoint) as proxy:
        proxy.rules = [Rule(fault="expired", path=r"/corpus/.*\.mp4", skip=40)]
        done = place.preprocess(proxy.endpoint, "expired")
        assert done.returncode == 1, done.stderr
        [told] = [line for line in done.stderr.splitlines() if "fakesift preprocess:" in line]
        assert "stopped: " in told
        assert "ExpiredToken" in told
        assert "Traceback" not in done.stderr
        assert len(list(read_commits(place.store("expired")))) < len(list(read_commits(place.store("calm"))))
        proxy.rules = []
        again = place.preprocess(proxy.endpoint, "expired")
    assert again.returncode == 0, again.stderr
    assert place.outcomes("expired") == place.outcomes("calm")
    assert place.faces("expired") == place.faces("calm")


@pytest.mark.soak
def test_a_store_that_is_gone_for_good_ends_the_job_and_the_next_run_finishes_it(place: Place) -> None:
    sink = place.store("gone")
    with proxying(place.server.endpoint) as proxy:
        job = place.start(proxy.endpoint, *place.command("gone"))
        wait_for_commits(sink, 2, job)
        proxy.rules = [Rule(fault="reset", method=".*")]  # what is under way breaks off; then nobody listens
    _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, err
    assert "Traceback" not in err
    [told] = [line for line in err.splitlines() if line.startswith("fakesift preprocess:")]
    assert f"{sink.root}/" in told
    assert 2 <= len(list(read_commits(sink))) < len(list(read_commits(place.store("calm"))))
    again = place.preprocess(place.server.endpoint, "gone")
    assert again.returncode == 0, again.stderr
    assert place.outcomes("gone") == place.outcomes("calm")
    assert place.faces("gone") == place.faces("calm")


@pytest.mark.soak
def test_a_bucket_that_cannot_be_read_stops_the_job_early_and_a_retry_finishes_it(place: Place) -> None:
    calm = place.outcomes("calm")
    with proxying(place.server.endpoint, [Rule(fault="500", path=r"/corpus/.*\.mp4")]) as proxy:
        done = place.preprocess(proxy.endpoint, "unread", "--max-faults", 2)
    assert done.returncode == 1, done.stderr
    [told] = [line for line in done.stderr.splitlines() if line.startswith("fakesift preprocess:")]
    found = re.search(r"stopped: (\d+) faults in (\d+) videos \(storage_error (\d+)", told)
    assert found is not None, told
    assert 2 < int(found[1]) == int(found[2]) < len(calm)
    before = place.outcomes("unread")
    assert 2 < len(before) < len(calm)
    assert not place.store("unread").exists("summary.json")
    again = place.preprocess(place.server.endpoint, "unread", "--max-faults", "5", "--retry", "faults")
    assert again.returncode == 0, again.stderr
    rows = latest_outcomes(place.store("unread"), read_commits(place.store("unread")), ["video_key", "outcome"])
    assert {row["video_key"]: row["outcome"] for table in rows for row in table.to_pylist()} == calm
    assert place.rows("unread") == place.rows("calm")


def test_a_clip_that_kills_and_one_that_hangs_the_decoder_cost_themselves_alone(place: Place) -> None:
    kept = sorted(key for key, outcome in place.outcomes("calm").items() if outcome == "kept")
    culprits = {kept[1]: "decoder_crashed", kept[-2]: "timeout"}
    poison = json.dumps({"abort": [kept[1]], "hang": [kept[-2]]})
    done = place.preprocess(
        place.server.endpoint, "poisoned", "--clip-seconds", 15, PYTHONPATH=SABOTAGE, FAKESIFT_POISON=poison
    )
    assert done.returncode == 0, done.stderr
    assert place.outcomes("poisoned") == {**place.outcomes("calm"), **culprits}
    others = {name: row for name, row in place.rows("calm").items() if row["video_key"] not in culprits}
    assert place.rows("poisoned") == others
    told = place.run(place.server.endpoint, "status", f"s3://{place.bucket}/poisoned", "--json")
    faults = {row["video_uri"]: row["outcome"] for row in json.loads(told.stdout)["fault_videos"]}
    for key, outcome in culprits.items():
        assert faults[f"s3://{place.bucket}/corpus/{key}"] == outcome
