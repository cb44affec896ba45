"""Creates a RayJob inside Kubernetes and waits for its end: what the nightly CronJob runs.

python -m cluster.create_rayjob /manifest/rayjob.yaml

It speaks to Kubernetes with the pod's own service account, which may create RayJobs and read them. The RayJob has the
name of the pod's Job, so that another pod in its place finds it and waits on; and it belongs to that Job, so that
Kubernetes removes both together. Exit code 0 if the RayJob succeeded, 1 if not, 2 if it could not be created.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.console import Exit, guarded, say

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_POLL_S = 15.0
_TIMEOUT_S = 30.0
# A control plane that is being upgraded answers nothing for minutes.
_MOST_FAILURES = 40
_ENDED = {"Complete", "Failed"}


class ExistsError(Exception):
    """There is an object of that name already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The API of Kubernetes, as a pod sees it."""

    url: str
    account: Path = _ACCOUNT

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request. Raises `ExistsError`, `PermissionError` or `ConnectionError`."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310
        # Read each time: Kubernetes replaces the token every hour.
        request.add_header("Authorization", f"Bearer {(self.account / 'token').read_text(encoding='utf-8').strip()}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        authority = self.account / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if self.url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:500]
            refused = PermissionError if error.code in {401, 403, 404, 422} else ConnectionError
            kind = ExistsError if error.code == 409 else refused
            raise kind(f"Kubernetes answered {error.code} to {method} {path}: {told}") from error
        except (OSError, ValueError) as error:
            raise ConnectionError(f"Kubernetes does not answer: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The Job of Kubernetes that this pod belongs to."""

    name: str
    uid: str

    def own(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest as one of this Job's: of its name, and removed with it."""
        metadata = {name: value for name, value in manifest["metadata"].items() if name != "generateName"}
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": self.uid}
        return {**manifest, "metadata": {**metadata, "name": self.name, "ownerReferences": [reference]}}

    def owns(self, found: Mapping[str, Any]) -> bool:
        """Whether an object is this Job's."""
        return any(reference.get("uid") == self.uid for reference in found["metadata"].get("ownerReferences", []))


def create_and_wait(api: Api, manifest: dict[str, Any], owner: Owner, poll_s: float = _POLL_S) -> Exit:
    """Creates the job that the manifest describes, or finds the owner's, and waits until it has ended.

    Raises:
        ValueError: for a manifest of something else, or where another's job has the name; `PermissionError`,
            `ConnectionError`.
    """
    if manifest.get("kind") != "RayJob":
        raise ValueError(f"manifest: got kind {manifest.get('kind')!r}, expected RayJob")
    path = f"/apis/{manifest['apiVersion']}/namespaces/{manifest['metadata']['namespace']}/rayjobs"
    try:
        # A request whose answer was lost may be repeated, since the name is the same.
        _patiently(lambda: api.request("POST", path, owner.own(manifest)), poll_s)
        say(f"created RayJob {owner.name}")
    except ExistsError as error:
        if not owner.owns(_patiently(lambda: api.request("GET", f"{path}/{owner.name}"), poll_s)):
            raise ValueError(f"RayJob {owner.name}: it is there and not of this Job, expected another name") from error
        say(f"RayJob {owner.name} is there already: waiting for it")
    status = _wait(api, f"{path}/{owner.name}", poll_s)
    result = status.get("jobStatus")
    say(f"RayJob {owner.name}: {result or status.get('reason')} {status.get('message', '')}".rstrip())
    return Exit.OK if result == "SUCCEEDED" else Exit.FAILED


def _wait(api: Api, path: str, poll_s: float) -> dict[str, Any]:
    while True:
        status: dict[str, Any] = _patiently(lambda: api.request("GET", path), poll_s).get("status", {})
        if status.get("jobDeploymentStatus") in _ENDED:
            return status
        time.sleep(poll_s)


def _patiently(request: Callable[[], dict[str, Any]], poll_s: float) -> dict[str, Any]:
    """The answer, once there is one. Raises `ConnectionError` if none comes for long."""
    for _ in range(_MOST_FAILURES - 1):
        try:
            return request()
        except ConnectionError as error:
            say(str(error))
        time.sleep(poll_s)
    return request()


def _run(argv: list[str]) -> Exit:
    import yaml

    if len(argv) != 1:
        raise ValueError(f"got {len(argv)} arguments, expected one: the manifest of a RayJob")
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ValueError("KUBERNETES_SERVICE_HOST is not set; expected to run in a pod of Kubernetes")
    name, uid = os.environ.get("JOB_NAME"), os.environ.get("JOB_UID")
    if not name or not uid:
        raise ValueError(
            "JOB_NAME or JOB_UID is not set; expected those of the pod's Job, as nightly-cronjob.yaml does"
        )
    shown = f"[{host}]" if ":" in host else host
    manifest = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8"))
    try:
        return create_and_wait(Api(url=f"https://{shown}:{port}"), manifest, Owner(name=name, uid=uid))
    except PermissionError as error:
        raise ValueError(str(error)) from error


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return guarded(lambda: _run(sys.argv[1:] if argv is None else argv), "nightly")


if __name__ == "__main__":
    raise SystemExit(main())
