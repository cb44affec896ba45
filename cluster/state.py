"""The local cluster as a record on disk: where it is, who may talk to it, what belongs to it.

One cluster a user: its record and its token lie in `$XDG_STATE_HOME/fakesift` (`~/.local/state/fakesift`), readable by
that user alone.
"""

from __future__ import annotations

import json
import os
import secrets
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
        return state_folder() / "token"

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
    _write_private(folder / "cluster.json", json.dumps(asdict(cluster), indent=1))
    cluster.token_file.unlink(missing_ok=True)
    _write_private(cluster.token_file, secrets.token_hex(32))


def _write_private(path: Path, text: str) -> None:
    """A new file that no other user can read, not even while it is written."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def recorded() -> LocalCluster | None:
    """The cluster of the record, whether or not it still runs; none without a record.

    Raises:
        ValueError: if the record is damaged.
    """
    path = state_folder() / "cluster.json"
    try:
        return LocalCluster(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: got a damaged record ({error}), expected what `cluster up` wrote") from error


def forget(cluster: LocalCluster) -> None:
    """Removes record and token; the record last."""
    cluster.token_file.unlink(missing_ok=True)
    (state_folder() / "cluster.json").unlink(missing_ok=True)
