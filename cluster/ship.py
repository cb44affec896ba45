"""What is shipped to a cluster: the three packages with their lock, nothing else of the folder that they lie in."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("batch", "jobs", "cluster")
# Named, rather than all but some: a folder of credentials or of clips beside the code is never shipped by accident.
_SHIPPED = {".py", ".html", ".md", ".yaml", ".lock"}
_LOCK = "requirements.lock"


@contextmanager
def staged_code(root: Path = ROOT) -> Iterator[Path]:
    """A folder for Ray's `working_dir`. Its content, and so its digest on the cluster, depends on the code alone."""
    with tempfile.TemporaryDirectory(prefix="fakesift-code-") as folder:
        files = [path for package in PACKAGES for path in sorted((root / package).rglob("*"))]
        for path in [*files, root / _LOCK]:
            if path.is_file() and path.suffix in _SHIPPED:
                target = Path(folder) / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        yield Path(folder)


def digest_of(folder: Path, settings: str) -> str:
    """What tells one submission's code and settings from another's: 16 hexadecimal digits."""
    digest = hashlib.sha256(settings.encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"\n{path.relative_to(folder)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def locked_dependencies(root: Path = ROOT) -> dict[str, Any]:
    """Ray's `runtime_env` fields that install the shipped lock, hashes checked, on each node before the job.

    The lock travels with the code rather than in these fields, since every task's description repeats them.

    Raises:
        ValueError: where this is an installed package, without the lock beside it.
    """
    if not (root / _LOCK).is_file():
        raise ValueError(f"dependencies: no {_LOCK} in {root}; expected a checkout, or --dependencies image")
    packages = [f"-r ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{_LOCK}"]
    return {"uv": {"packages": packages, "uv_pip_install_options": ["--no-deps", "--require-hashes"]}}
