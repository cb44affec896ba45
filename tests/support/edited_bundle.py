"""A bundle that says something else than it did, with digests that hold: as if training had written it so."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batch.faces.options import digest_of


def edited(
    bundle: Path, copy: Path, change: Callable[[dict[str, Any]], object], files: Mapping[str, bytes] | None = None
) -> Path:
    """A copy whose manifest went through `change`, with other files of the same names."""
    shutil.copytree(bundle, copy)
    raw = json.loads((copy / "bundle.json").read_text())
    raw.pop("digest")
    for name, data in (files or {}).items():
        (copy / name).write_bytes(data)
        raw["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    change(raw)
    (copy / "bundle.json").write_text(json.dumps({"digest": digest_of(raw), **raw}))
    return copy
