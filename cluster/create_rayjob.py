"""Creates a RayJob inside Kubernetes and waits for its end: what the nightly CronJob runs.

python -m cluster.create_rayjob /manifest/rayjob.yaml

It speaks to Kubernetes with the pod's own service account, which may create RayJobs and read them. Exit code 0 if the
job succeeded, 1 if it did not, 2 if it could not be created.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The API of Kubernetes, as a pod sees it."""

    url: str
    account: Path = _ACCOUNT

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request. Raises `PermissionError` or `ConnectionError`."""
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
            kind = PermissionError if error.code in {401, 403, 404, 409, 422} else ConnectionError
            raise kind(f"Kubernetes answered {error.code} to {method} {path}: {told}") from error
        except (OSError, ValueError) as error:
            raise ConnectionError(f"Kubernetes does not answer: {error}") from error


def create_and_wait(api: Api, manifest: dict[str, Any], poll_s: float = _POLL_S) -> Exit:
    """Creates the job that the manifest describes, under a fresh name, and waits until it has ended.

    Raises:
        ValueError: for a manifest of something else; `PermissionError`, `ConnectionError`.
    """
    if manifest.get("kind") != "RayJob":
        raise ValueError(f"manifest: got kind {manifest.get('kind')!r}, expected RayJob")
    path = f"/apis/{manifest['apiVersion']}/namespaces/{manifest['metadata']['namespace']}/rayjobs"
    name = api.request("POST", path, manifest)["metadata"]["name"]
    say(f"created RayJob {name}")
    status = _wait(api, f"{path}/{name}", poll_s)
    result = status.get("jobStatus")
    say(f"RayJob {name}: {result or status.get('reason')} {status.get('message', '')}".rstrip())
    return Exit.OK if result == "SUCCEEDED" else Exit.FAILED


def _wait(api: Api, path: str, poll_s: float) -> dict[str, Any]:
    failures = 0
    while True:
        try:
            status: dict[str, Any] = api.request("GET", path).get("status", {})
            failures = 0
        except ConnectionError:
            failures += 1
            if failures == _MOST_FAILURES:
                raise
            status = {}
        if status.get("jobDeploymentStatus") in _ENDED:
            return status
        time.sleep(poll_s)


def _run(argv: list[str]) -> Exit:
    import yaml

    if len(argv) != 1:
        raise ValueError(f"got {len(argv)} arguments, expected one: the manifest of a RayJob")
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ValueError("KUBERNETES_SERVICE_HOST is not set; expected to run in a pod of Kubernetes")
    shown = f"[{host}]" if ":" in host else host
    manifest = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8"))
    try:
        return create_and_wait(Api(url=f"https://{shown}:{port}"), manifest)
    except PermissionError as error:
        raise ValueError(str(error)) from error


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return guarded(lambda: _run(sys.argv[1:] if argv is None else argv), "nightly")


if __name__ == "__main__":
    raise SystemExit(main())
