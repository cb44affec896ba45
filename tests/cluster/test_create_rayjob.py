"""The nightly pod's program, against a server that answers as the API of Kubernetes does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.create_rayjob import Api, Owner, create_and_wait

JOBS = Path(__file__).parents[2] / "cluster" / "kuberay" / "jobs"


NIGHT = Owner(name="nightly-score-29123456", uid="e8b1")
ENDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


class Kubernetes(ThreadingHTTPServer):
    """Refuses to create a job that is there; gives it each of `states` in turn, and to a POST each of `codes`."""

    def __init__(self, states: list[Any], codes: tuple[int, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states = iter(states)
        self.codes = iter(codes)
        self.created: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_POST(self) -> None:
        self.note()
        manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = next(self.server.codes, 409 if self.server.created else 201)
        # An answer of 504 may come after the work was done.
        if code in {201, 504}:
            self.server.created.append(manifest)
        self.answer(code, manifest)

    def do_GET(self) -> None:
        self.note()
        state = next(self.server.states)
        self.answer(*((state, {}) if isinstance(state, int) else (200, {**self.server.created[0], "status": state})))

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

    def start(states: list[Any], *codes: int) -> Kubernetes:
        running.append(Kubernetes(states, codes))
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def run(server: Kubernetes, account: Path, manifest: dict[str, Any], owner: Owner = NIGHT) -> int:
    api = Api(url=f"http://127.0.0.1:{server.server_port}", account=account)
    return create_and_wait(api, manifest, owner, poll_s=0.0)


def test_waits_for_the_jobs_end(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    server = serve([{}, running, 503, ENDED])
    assert run(server, account, manifest) == 0
    path = "/apis/ray.io/v1/namespaces/fakesift/rayjobs"
    assert server.asked[0] == ("POST", path, "Bearer pod-token")
    assert server.asked[1:] == [("GET", f"{path}/{NIGHT.name}", "Bearer pod-token")] * 4
    (created,) = server.created
    assert created["spec"] == manifest["spec"]
    assert created["metadata"] == {
        **manifest["metadata"],
        "name": NIGHT.name,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": NIGHT.name, "uid": NIGHT.uid}],
    }


def test_a_pod_in_anothers_place_waits_for_the_same_job(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    server = serve([ENDED, {}, ENDED])
    assert [run(server, account, manifest), run(server, account, manifest)] == [0, 0]
    assert len(server.created) == 1


def test_an_answer_that_is_lost_creates_no_second_job(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    server = serve([{}, ENDED], 503, 504)
    assert run(server, account, manifest) == 0
    assert len(server.created) == 1
    assert [method for method, *_ in server.asked] == ["POST"] * 3 + ["GET"] * 2


def test_a_job_of_that_name_that_is_anothers_is_left_alone(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    server = serve([ENDED, ENDED])
    assert run(server, account, manifest) == 0
    with pytest.raises(ValueError, match="not of this Job"):
        run(server, account, manifest, Owner(name=NIGHT.name, uid="another"))


def test_a_failed_job_is_a_failure(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    assert run(serve([{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}]), account, manifest) == 1


def test_a_missing_right_is_named(serve: Any, account: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(PermissionError, match="answered 403 to POST"):
        run(serve([], 403), account, manifest)


def test_only_rayjobs_are_created(serve: Any, account: Path) -> None:
    with pytest.raises(ValueError, match="expected RayJob"):
        run(serve([]), account, {"kind": "Pod"})
