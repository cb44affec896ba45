"""`run.json`: what kind of output a folder is, and the options that shaped it. Written before anything else."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from batch.faces.options import digest_of
from batch.storage.base import MissingObjectError, Storage

RUN = "run.json"
_PACKAGES = (
    "fakesift", "ray", "av", "opencv-python", "opencv-python-headless", "dlib", "dlib-bin", "face-recognition",
    "ai-edge-litert", "numpy", "pyarrow", "boto3", "keras", "tensorflow", "jax", "scikit-learn",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """The content of `run.json`."""

    kind: str
    """The job: `preprocess`."""
    input: str
    shaping: Mapping[str, Any]
    """Options that shape the output: they may not change under one OUTPUT."""
    versions: Mapping[str, str]

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps({**asdict(self), "digest": digest_of(self.shaping)}, indent=1).encode()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that touch pixels, scores or files."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_run(sink: Storage, kind: str) -> RunFile:
    """The `run.json` of an OUTPUT. Raises `ValueError` if there is none of that kind of job."""
    try:
        raw = json.loads(sink.read(RUN))
        run = RunFile(kind=raw["kind"], input=raw["input"], shaping=raw["shaping"], versions=raw.get("versions", {}))
    except MissingObjectError:
        raise ValueError(f"{sink.root}: not an output of `fakesift {kind}`: it has no {RUN}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sink.uri(RUN)}: damaged: {error}") from error
    if run.kind != kind:
        raise ValueError(f"{sink.root}: an output of `fakesift {run.kind}`, expected one of `fakesift {kind}`")
    return run


def kind_of(sink: Storage) -> str | None:
    """The job that made an OUTPUT: `preprocess`, `train`, ...; None where no `run.json` says it."""
    try:
        return str(json.loads(sink.read(RUN))["kind"])
    except (MissingObjectError, ValueError, KeyError, TypeError):
        return None


def claim_output(sink: Storage, run: RunFile, binding: str | None = None) -> None:
    """Makes OUTPUT this run's: writes `run.json` into an empty one, or checks the one that is there.

    Args:
        sink: OUTPUT.
        run: of this run.
        binding: the first object that the options shape. As long as OUTPUT lacks it, an earlier call of the same job
            got nowhere, and does not bind this one to its options. None: options bind from the start.

    Raises:
        ValueError: if OUTPUT holds something else, or was made with other options (both values are named).
    """
    check_claim(sink, run, binding)
    if _unbound(sink, run, binding):
        sink.put(RUN, run.to_json())
    elif not sink.exists(RUN):
        sink.put_if_absent(RUN, run.to_json())
        check_claim(sink, run)


def _unbound(sink: Storage, run: RunFile, binding: str | None) -> bool:
    return binding is not None and kind_of(sink) == run.kind and not sink.exists(binding)


def check_claim(sink: Storage, run: RunFile, binding: str | None = None) -> None:
    """Whether `claim_output` would make OUTPUT this run's; writes nothing, and raises as it does."""
    if _unbound(sink, run, binding):
        return
    if not sink.exists(RUN):
        first = next(iter(sink.list()), None)
        if first is not None:
            raise ValueError(
                f"output {sink.root}: not empty and not ours (it holds {first.key} and no {RUN}); expected an empty "
                "place or an earlier output of this job"
            )
        return
    there = read_run(sink, run.kind)
    if there.input != run.input:
        raise ValueError(f"output {sink.root}: made from input {there.input}, got {run.input}; choose another output")
    differing = _differences(there.shaping, json.loads(json.dumps(run.shaping)))
    if differing:
        raise ValueError(
            f"output {sink.root}: made with other options: {'; '.join(differing)}; repeat them or choose another output"
        )


def refuse_nested(source: Storage, sink: Storage) -> None:
    """Raises `ValueError` if OUTPUT lies inside INPUT, or is INPUT: a next run would list what this one writes."""
    if sink.root == source.root or sink.root.startswith(source.root.rstrip("/") + "/"):
        raise ValueError(f"output {sink.root}: lies inside the input {source.root}; choose a place outside of it")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    rows: list[str] = []
    for name in sorted(set(old) | set(new)):
        here = f"{path}{name}"
        was, now = old.get(name), new.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            rows += _differences(was, now, f"{here}.")
        elif was != now:
            rows.append(f"{here} was {was!r}, got {now!r}")
    return rows
