"""The local cluster as a record on disk: where it is, who may talk to it, what belongs to it.

One cluster a user: its record and its token lie in `$XDG_STATE_HOME/fakesift` (`~/.local/state/fakesift`), readable by
that user alone.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = "FAKESIFT_CLUSTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """A cluster that `fakesift cluster up` started, or is starting."""

    id: str
    """Stands in the environment of each of its processes, under `FAKESIFT_CLUSTER`."""
    address: str
    """Of its Ray, `host:port`: what `--address` and RAY_ADDRESS take."""
    dashboard: str
    """Of its job API and its pages, `http://host:port`."""
    client_port: int
    folder: str
    """Ray's sessions, logs and sockets; gone with the cluster."""
    nodes: int
    cpus_per_node: int

    @property
    def token_file(self) -> Path:
        """The token that every request needs."""
        return _token()

    def environment(self) -> dict[str, str]:
        """What a process of this user needs to join, without the token itself."""
        return {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }


def state_folder() -> Path:
    """Where the record lies."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "fakesift"


def claim(cluster: LocalCluster) -> None:
    """Writes the record and a fresh token, before the first process is started.

    Raises:
        FileExistsError: if there is a record already.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_at_once(_record(), json.dumps(asdict(cluster), indent=1))
    cluster.token_file.unlink(missing_ok=True)
    _write_private(cluster.token_file, secrets.token_hex(32))


def _record() -> Path:
    return state_folder() / "cluster.json"


def _token() -> Path:
    return state_folder() / "token"


def _write_at_once(path: Path, text: str) -> None:
    """A new file that is there as a whole or not at all, whenever this process is killed."""
    # mkstemp gives a file that no other user can read.
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # unlike a renaming, it fails where there is one already
    finally:
        Path(name).unlink()


def _write_private(path: Path, text: str) -> None:
    """A new file that no other user can read, not even while it is written."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


class DamagedRecordError(ValueError):
    """The record is there, and is not what `cluster up` wrote."""


def recorded() -> LocalCluster | None:
    """The cluster of the record, whether or not it still runs; none without a record.

    Raises:
        DamagedRecordError: if it cannot be read.
    """
    path = _record()
    try:
        return LocalCluster(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedRecordError(
            f"{path}: got a damaged record ({error}), expected what `cluster up` wrote; "
            "`fakesift cluster down` removes it"
        ) from error


def forget() -> None:
    """Removes record and token; the record last."""
    _token().unlink(missing_ok=True)
    _record().unlink(missing_ok=True)
