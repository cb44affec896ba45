"""A real S3 server on loopback: SeaweedFS, on free ports, in a folder of its own."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.nodes import free_ports

START_ATTEMPTS = 3
START_POLLS = 300  # of a fifth of a second
_PORTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server with two identities: one that may do everything, one that may only read and list."""

    endpoint: str
    access_key: str = "writer"
    secret_key: str = "writer-secret"
    reader_access_key: str = "reader"
    reader_secret_key: str = "reader-secret"


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Starts a server that keeps its data in `folder`, and stops that very process in the end."""
    identities = folder / "ids.json"
    identities.write_text(json.dumps(_identities(S3Server(endpoint=""))))
    for attempt in range(START_ATTEMPTS):  # a free port may be taken before the server binds it
        data = folder / f"data{attempt}"
        data.mkdir()
        ports = free_ports(2 * len(_PORTS))
        server = S3Server(endpoint=f"http://127.0.0.1:{ports[-2]}")
        with (folder / f"log{attempt}.txt").open("wb") as log:
            process = subprocess.Popen(_command(data, identities, ports), stdout=log, stderr=log, cwd=folder)
        try:
            if _is_up(process, server):
                yield server
                return
        finally:
            _stop(process, ports)
    raise RuntimeError(f"no S3 server came up: {(folder / f'log{attempt}.txt').read_text()[-2000:]}")


def _identities(server: S3Server) -> dict[str, object]:
    def identity(access_key: str, secret_key: str, actions: list[str]) -> dict[str, object]:
        keys = [{"accessKey": access_key, "secretKey": secret_key}]
        return {"name": access_key, "credentials": keys, "actions": actions}

    return {
        "identities": [
            identity(server.access_key, server.secret_key, ["Admin", "Read", "List", "Tagging", "Write"]),
            identity(server.reader_access_key, server.reader_secret_key, ["Read", "List"]),
        ]
    }


def _command(data: Path, identities: Path, ports: list[int]) -> list[str]:
    weed = Path(sys.executable).parent / "weed"
    command = [str(weed if weed.exists() else shutil.which("weed") or "weed"), "server", "-s3"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", f"-s3.config={identities}"]
    for number, name in enumerate(_PORTS):
        command += [f"-{name}.port={ports[2 * number]}", f"-{name}.port.grpc={ports[2 * number + 1]}"]
    # Nothing phones home, no further ports, no bucket made by a mistyped name.
    command += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
    # Each bucket takes seven volumes and gives them back when it is deleted.
    return [*command, "-s3.autoCreateBucket=false", "-master.volumeSizeLimitMB=64", "-volume.max=200"]


def _is_up(process: "subprocess.Popen[bytes]", server: S3Server) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(START_POLLS):
        try:
            with opener.open(f"{server.endpoint}/healthz", timeout=2):
                return True
        except OSError:
            pass
        try:
            process.wait(0.2)  # returns at once if the server gave up
            return False
        except subprocess.TimeoutExpired:
            continue
    return False


def _stop(process: "subprocess.Popen[bytes]", ports: list[int]) -> None:
    # Asked politely it takes 18 seconds. Its data is thrown away, so it need not; only its sockets stay behind.
    process.kill()
    process.wait()
    for number, name in enumerate(_PORTS):
        for socket_name in (f"{name}-{ports[2 * number]}", f"{name}-grpc-{ports[2 * number + 1]}"):
            Path(f"/tmp/seaweedfs-{socket_name}.sock").unlink(missing_ok=True)
