"""Which cluster, by what right: an address, a token, and a client of Ray's job API that was let in.

A cluster's job API runs commands, so one that anybody may use is not used from here unless a person says so. That it
answers on this machine tells nothing: what listens there may be the end of a tunnel.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from cluster.console import say, shown
from cluster.state import DamagedRecordError, recorded

T = TypeVar("T")
_TIMEOUT_S = 20.0
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


class RefusedError(RuntimeError):
    """The cluster wants a token, or another one."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Options of every command that talks to a cluster."""

    address: Annotated[str | None, shown("URL", "RAY_API_SERVER_ADDRESS, or the cluster of `fakesift cluster up`")] = (
        None
    )
    """Where the cluster's job API listens: http://host:8265 or https://host."""
    token_file: Annotated[Path | None, shown("FILE", "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token")] = None
    """A file that holds the cluster's token."""
    allow_open_cluster: bool = False
    """Use a cluster that asks for no token. Whoever reaches such a cluster can run commands on it with its rights, read
    what it reads and change what it writes."""

    def spelled(self) -> str:
        """These options as a person would repeat them, each after a space."""
        given = {"--address": self.address, "--token-file": self.token_file}
        words = [f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None]
        return "".join(words) + (" --allow-open-cluster" if self.allow_open_cluster else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A cluster's job API and the token for it, if there is one."""

    url: str
    token: str | None

    @property
    def is_local(self) -> bool:
        """Whether it listens on this machine's loopback."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def find_target(access: Access, environ: Mapping[str, str]) -> Target:
    """The cluster that is meant.

    Raises:
        ValueError: if none is named, or the address or the token file cannot be.
    """
    url = access.address or environ.get("RAY_API_SERVER_ADDRESS")
    is_named = url not in {None, "auto"}
    try:
        cluster = recorded()
    except DamagedRecordError:
        if not is_named:
            raise
        cluster = None  # it stands in nobody's way to another cluster
    if not is_named:
        if cluster is None:
            raise ValueError("no cluster is named: expected --address URL, or one started by `fakesift cluster up`")
        url = cluster.dashboard
    url = _checked(str(url))
    if access.token_file is not None:
        return Target(url=url, token=_read_token(access.token_file))
    if cluster is not None and url == cluster.dashboard:
        return Target(url=url, token=_read_token(cluster.token_file))
    return Target(url=url, token=_token_of(environ))


def _checked(address: str) -> str:
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"address: got {address!r}, expected the job API as http://host:8265 or https://host")
    if parts.username or parts.password:
        raise ValueError("address: got one with a user or password in it, expected a token file (--token-file)")
    return url


def _read_token(path: Path) -> str:
    try:
        token = path.expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"token file {path}: {error.strerror}, expected a file with the cluster's token") from error
    if not token or not token.isprintable() or " " in token:
        raise ValueError(f"token file {path}: expected one line with the cluster's token")
    return token


def _token_of(environ: Mapping[str, str]) -> str | None:
    """As Ray itself looks for it."""
    if environ.get("RAY_AUTH_TOKEN"):
        return environ["RAY_AUTH_TOKEN"].strip()
    if environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read_token(Path(environ["RAY_AUTH_TOKEN_PATH"]))
    usual = Path.home() / ".ray" / "auth_token"
    return _read_token(usual) if usual.is_file() else None


def connect(target: Target, *, allow_open: bool) -> Any:
    """A `JobSubmissionClient` that the cluster lets in. An open cluster is never shown the token.

    Raises:
        ConnectionError: if nothing answers there; `RefusedError` if the token is missing or wrong; `ValueError` for an
            open cluster, unless `allow_open`.
    """
    is_open = _is_open(target)
    if is_open and not allow_open:
        raise ValueError(
            f"{target.url} lets anybody run commands: it asks for no token. Start it with RAY_AUTH_MODE=token, or say "
            "--allow-open-cluster if you know that nobody else reaches it"
        )
    headers = {}
    if not is_open:
        if target.token is None:
            raise RefusedError(
                f"{target.url} asks for a token, and there is none; expected --token-file or RAY_AUTH_TOKEN"
            )
        request_json(target.url, "/api/version", target.token)
        headers["Authorization"] = f"Bearer {target.token}"
        if not target.is_local and target.url.startswith("http://"):
            say(f"the token travels unencrypted to {target.url}: right in a private network or a tunnel alone")
    # Ray lets these override an address that was given.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    # Uploads and closed sockets, told to a person who asked for a job's log.
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    return JobSubmissionClient(target.url, headers=headers)


def open_client(access: Access) -> Any:
    """`connect` to what the options mean."""
    return connect(find_target(access, os.environ), allow_open=access.allow_open_cluster)


def _is_open(target: Target) -> bool:
    try:
        request_json(target.url, "/api/version", None)
    except RefusedError:
        return False
    return True


def request_json(url: str, path: str, token: str | None) -> Any:
    """What the cluster answers to a GET.

    Raises:
        RefusedError: for a missing or wrong token; `ConnectionError` where no Ray answers.
    """
    request = urllib.request.Request(url + path)  # noqa: S310  (http and https alone: `_checked`)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token.strip()}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            problem = "the token is wrong" if token else "it asks for a token"
            raise RefusedError(f"{url} refused ({error.code}): {problem}") from error
        raise ConnectionError(f"{url} answered {error.code}, expected the job API of a Ray cluster") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"no Ray cluster answers at {url}: {reason}") from error


def patiently(call: Callable[[], T]) -> T:
    """Repeats a call that a cluster which just started, or a network that stutters, did not answer.

    Ray answers 500 ("No available agent") until its agents have come up.

    Raises:
        ConnectionError: if it never does; `RuntimeError` for an answer that would not change.
    """
    import requests

    for wait_s in (*_BACKOFF_S, None):
        try:
            return call()
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, ConnectionError) as error:
            problem: Exception = ConnectionError(f"the cluster does not answer: {type(error).__name__}")
        except RuntimeError as error:
            if not any(f"status code {code}" in str(error) for code in (500, 502, 503, 504)):
                raise
            problem = RuntimeError(" ".join(str(error).split())[:300])
        if wait_s is None:
            raise problem
        time.sleep(wait_s)
    raise AssertionError("not reached")
