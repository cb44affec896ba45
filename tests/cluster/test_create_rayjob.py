"""The nightly pod's program, against a server that answers as the API of Kubernetes does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.create_rayjob import Api, create_and_wait

JOBS = Path(__file__).parents[2] / "cluster" / "kuberay" / "jobs"


class Kubernetes(ThreadingHTTPServer):
    """Gives a created job each of `states` in turn."""

    def __init__(self, states: list[Any], code: int = 201) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states = iter(states)
        self.code = code
        self.created: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_POST(self) -> None:
        self.note()
        self.server.created.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(self.server.code, {"metadata": {"name": "nightly-score-x7k2p"}})

    def do_GET(self) -> None:
        self.note()
        state = next(self.server.states)
        self.answer(*((state, {}) if isinstance(state, int) else (200, {"status": state})))

    def note(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))

    def answer(self, code: int, body: dict[str, Any]) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def manifest() -> dict[str, Any]:
    config = next(yaml.safe_load_all((JOBS / "nightly-cronjob.yaml").read_text()))
    return dict(yaml.safe_load(config["data"]["rayjob.yaml"]))


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("pod-token\n")
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Any]:
    running: list[Kubernetes] = []

    def start(states: list[Any], code: int = 201) -> Kubernetes:
        running.append(Kubernetes(states, code))
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def run(server: Kubernetes, account: Path, manifest: dict[str, Any]) -> int:
    return create_and_wait(Api(url=f"http://127.0.0.1:{server.server_port}", account=account), manifest, poll_s=0.0)


def test_waits_for_the_jobs_end(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    server = serve([{}, running, 503, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}])
    assert run(server, account, manifest) == 0
    assert server.created == [manifest]
    path = "/apis/ray.io/v1/namespaces/fakesift/rayjobs"
    assert server.asked[0] == ("POST", path, "Bearer pod-token")
    assert server.asked[1:] == [("GET", f"{path}/nightly-score-x7k2p", "Bearer pod-token")] * 4


def test_a_failed_job_is_a_failure(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    assert run(serve([{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}]), account, manifest) == 1


def test_a_missing_right_is_named(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(PermissionError, match="answered 403 to POST"):
        run(serve([], code=403), account, manifest)


def test_only_rayjobs_are_created(serve: Any, account: Path) -> None:
    with pytest.raises(ValueError, match="expected RayJob"):
        run(serve([]), account, {"kind": "Pod"})
