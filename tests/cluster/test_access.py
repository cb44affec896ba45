"""Which cluster is used, with which token, and what is kept from it; against small servers that answer as Ray does."""

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.job_submission import JobStatus

from cluster.client import Access, RefusedError, Target, connect, find_target, patiently
from cluster.follow import hints
from cluster.manage import StopOptions, stop
from cluster.no_secrets import passed_variables, refuse_secrets
from cluster.ship import ROOT, digest_of, locked_dependencies, staged_code
from cluster.submit import JOBS, JobCommand, split_command
from jobs.cli import COMMANDS
from tests.support.holding import files_in, holding


@pytest.fixture
def server() -> Iterator[Callable[[str | None], tuple[str, list[str]]]]:
    """Starts a server that wants `token`, or none, and keeps the tokens that it was shown."""
    running: list[ThreadingHTTPServer] = []

    def start(token: str | None) -> tuple[str, list[str]]:
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("Authorization")
                if shown:
                    seen.append(shown)
                right = token is None or shown == f"Bearer {token}"
                self.send_response(200 if right else 401 if shown is None else 403)
                self.end_headers()
                self.wfile.write(json.dumps({"ray_version": "2.60.0"}).encode())

            def log_message(self, *_: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(http)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{http.server_port}", seen

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_an_open_cluster_is_refused_even_here_and_never_shown_the_token(server: Callable[..., tuple[str, list[str]]]):
    url, seen = server(None)
    with pytest.raises(ValueError, match="lets anybody run commands"):
        connect(Target(url=url, token="a-token"), allow_open=False)
    connect(Target(url=url, token="a-token"), allow_open=True)
    assert seen == []


def test_a_closed_one_wants_the_right_token(
    server: Callable[..., tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
):
    url, _ = server("right")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # Ray itself would let this override the address
    connect(Target(url=url, token="right"), allow_open=False)
    with pytest.raises(RefusedError, match="token is wrong"):
        connect(Target(url=url, token="wrong"), allow_open=False)
    with pytest.raises(RefusedError, match="asks for a token"):
        connect(Target(url=url, token=None), allow_open=False)


def test_a_dead_address() -> None:
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at http://127\.0\.0\.1:9"):
        connect(Target(url="http://127.0.0.1:9", token=None), allow_open=False)


def test_where_address_and_token_come_from(home: Path) -> None:
    with pytest.raises(ValueError, match="no cluster is named"):
        find_target(Access(), {})
    (home / "token").write_text("from-file\n")
    named = Access(address="ray.example.org:8265", token_file=home / "token")
    assert find_target(named, {"RAY_AUTH_TOKEN": "from-env"}) == Target(
        url="http://ray.example.org:8265", token="from-file"
    )
    found = find_target(Access(), {"RAY_API_SERVER_ADDRESS": "https://ray.example.org/", "RAY_AUTH_TOKEN": "from-env"})
    assert found == Target(url="https://ray.example.org", token="from-env")
    assert not found.is_local
    assert Target(url="http://[::1]:8265", token=None).is_local


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://user:word@head:8265"])
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(ValueError, match="address: got"):
        find_target(Access(address=address), {})


def test_a_token_file_that_is_not_there(home: Path) -> None:
    with pytest.raises(ValueError, match="token file"):
        find_target(Access(address="http://head:8265", token_file=home / "none"), {})


@pytest.mark.parametrize(
    "argument",
    [
        "--s3-endpoint=https://me:word@s3.example.org",
        "s3://AKIAABCDEFGHIJKLMNOP/x",
        "https://b.example.org/o?X-Amz-Signature=abc",
        "--label=hunter22hunter22",
    ],
)
def test_secrets_in_arguments_are_refused_and_not_shown(argument: str) -> None:
    with pytest.raises(ValueError, match="argument 2 of the job") as refusal:
        refuse_secrets(["preprocess", argument], {"AWS_SECRET_ACCESS_KEY": "hunter22hunter22"})
    assert argument.removeprefix("--label=") not in str(refusal.value)


def test_a_secret_is_found_in_a_table_and_an_archive_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["s3://a", "word hunter22"]}), tmp_path / "a.parquet", compression="zstd")
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "hunter22" * 100)
    (tmp_path / "run.json").write_text("hunter22")
    found = holding(files_in(tmp_path), "hunter22")
    assert sorted(Path(name).name for name in found) == ["a.keras", "a.parquet", "run.json"]
    assert holding(files_in(tmp_path), "hunter23") == []


def test_ordinary_arguments_pass() -> None:
    refuse_secrets(["s3://corpus/a", "--s3-endpoint", "http://127.0.0.1:8333"], {"RAY_AUTH_TOKEN_PATH": "/x/token"})


def test_variables_for_the_job() -> None:
    here = {"AWS_ENDPOINT_URL": "http://s3:8333", "AWS_SECRET_ACCESS_KEY": "hunter22hunter22"}
    passed = passed_variables(["AWS_ENDPOINT_URL", "LEVEL=3"], here)
    assert passed == {"AWS_ENDPOINT_URL": "http://s3:8333", "LEVEL": "3"}
    for wanted in ("AWS_SECRET_ACCESS_KEY", "X=hunter22hunter22", "NOT_SET", "a b=c"):
        with pytest.raises(ValueError, match=r"env: |argument 1"):
            passed_variables([wanted], here)


def test_the_jobs_command_is_quoted_and_joins_the_cluster() -> None:
    own, command = split_command(["--follow", "preprocess", "in put", "out", "--workers", "2"])
    assert own == ["--follow"]
    assert command is not None
    assert command.entrypoint() == "python -m jobs.cli preprocess 'in put' out --workers 2 --address auto"
    named = JobCommand(job="preprocess", arguments=("a", "b", "--address=h:1"))
    assert named.entrypoint().endswith("a b --address=h:1")
    assert split_command(["--follow"]) == (["--follow"], None)
    for options in (
        ["--token-file", "score"],
        ["--env", "A=1", "--address", "train"],
        ["--follow", "--token-file=plan"],
    ):
        own, command = split_command([*options, "tune", "purge"])
        assert own == options
        assert command == JobCommand(job="tune", arguments=("purge",))


def test_what_may_be_submitted_is_what_there_is() -> None:
    assert set(JOBS) <= set(COMMANDS)
    for job, takes_address in JOBS.items():
        source = (ROOT / COMMANDS[job][0].replace(".", "/")).with_suffix(".py")
        options = source.with_name(f"{source.stem}_options.py")
        text = source.read_text() + (options.read_text() if options.exists() else "")
        has = "    address: " in text or "(TrainOptions):" in text
        assert has == takes_address, job


def test_only_the_packages_and_their_lock_are_shipped(tmp_path: Path) -> None:
    for name in ("batch/a.py", "jobs/b.py", "cluster/c.py", "requirements.lock", ".env", "batch/clip.mp4", "demo/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    with staged_code(tmp_path) as folder:
        shipped = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert shipped == {"batch/a.py", "jobs/b.py", "cluster/c.py", "requirements.lock"}
    assert not folder.exists()


def test_what_was_sent_is_told_apart_by_code_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = digest_of(tmp_path, "{}")
    assert digest_of(tmp_path, "{}") == first
    assert digest_of(tmp_path, '{"env": 1}') != first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert digest_of(tmp_path, "{}") != first
    (tmp_path / "b.py").rename(tmp_path / "a.py")
    (tmp_path / "a.py").write_text("2")
    assert digest_of(tmp_path, "{}") != first


def test_a_job_that_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(status=JobStatus.RUNNING)
    client = SimpleNamespace(get_job_info=lambda _: running, stop_job=lambda _: True)
    monkeypatch.setattr("cluster.manage.open_client", lambda _: client)
    clock = iter(range(0, 1000, 50))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(TimeoutError, match="still RUNNING after 3 minutes"):
        stop(StopOptions(job="train-1"))


def test_the_lock_needs_a_checkout(tmp_path: Path) -> None:
    assert "requirements.lock" in locked_dependencies()["uv"]["packages"][0]
    with pytest.raises(ValueError, match="expected a checkout"):
        locked_dependencies(tmp_path)


def test_the_start_up_race_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers = iter([RuntimeError("Request failed with status code 500: No available agent"), None])

    def call() -> str:
        problem = next(answers)
        if problem:
            raise problem
        return "sent"

    assert patiently(call) == "sent"

    def wrong() -> None:
        raise RuntimeError("Request failed with status code 400: bad request")

    with pytest.raises(RuntimeError, match="400"):
        patiently(wrong)


def test_hints_repeat_what_names_the_cluster() -> None:
    access = Access(address="http://head:8265", token_file=Path("a token"))
    assert "fakesift jobs attach job-1 --address http://head:8265 --token-file 'a token'" in hints("job-1", access)
    assert "fakesift jobs stop job-1\n" in f"{hints('job-1', Access())}\n"
