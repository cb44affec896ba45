"""Where trials lie under OUTPUT: `trials/<id>/` with what was asked, how far it is, and how it ended.

`result.json` is put last and is the only truth about an end: a trial with one is never run again.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from batch.model.fit.engine import Arrays
from batch.model.tuning.records import Progress, Trial, TrialResult
from batch.storage.base import MissingObjectError, Storage

TRIALS = "trials/"
Start = Literal["features", "pixels"]
"""What a network begins with: a checkpoint of one is none of the other."""


class TrialStore:
    """The files of one trial."""

    def __init__(self, output: Storage, trial: str) -> None:
        """`trial` is its id."""
        self._output = output
        self.prefix = f"{TRIALS}{trial}/"

    def result(self) -> TrialResult | None:
        """None while it has not ended."""
        data = self._read("result.json")
        return None if data is None else TrialResult.from_json(data)

    def progress(self) -> Progress:
        """As of its last epoch."""
        data = self._read("progress.json")
        return Progress() if data is None else Progress.from_json(data)

    def asked(self) -> Trial | None:
        """None where nobody asked for it yet."""
        data = self._read("trial.json")
        return None if data is None else Trial.from_json(data)

    def ask(self, trial: Trial) -> None:
        """Keeps what was asked."""
        self._output.put_if_absent(self.prefix + "trial.json", trial.to_json().encode())

    def tell(self, progress: Progress) -> None:
        """Keeps how far it is."""
        self._output.put(self.prefix + "progress.json", progress.to_json())

    def end(self, result: TrialResult, weights: bytes | None = None) -> None:
        """Keeps the end, and lets go of what was needed to go on. Weights: by `packed`, or a `.keras` file."""
        if weights is not None:
            self._output.put(self.prefix + "weights", weights)
        self._output.put(self.prefix + "result.json", result.to_json())
        # Those of Ray Train lie in a folder beside the trial's own.
        for item in list(self._output.list(self.prefix + "checkpoint")):
            self._output.delete(item.key)

    def weights(self) -> bytes:
        """Of the best epoch. Raises `MissingObjectError` for a trial that did not finish."""
        return self._output.read(self.prefix + "weights")

    def drop_weights(self) -> None:
        """Lets go of them."""
        self._output.delete(self.prefix + "weights")

    def save(self, start: Start, folder: Path) -> None:
        """Keeps a checkpoint in the place of the one before: one object, so that it is whole at any moment."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
        self._output.put(f"{self.prefix}checkpoint-{start}.tar", buffer.getvalue())

    @contextmanager
    def restored(self, start: Start) -> Iterator[Path | None]:
        """The last checkpoint in a folder that goes with the block, or None."""
        data = self._read(f"checkpoint-{start}.tar")
        if data is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="fakesift-trial-") as folder:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(folder, filter="data")
            yield Path(folder)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._output.read(self.prefix + name)
        except MissingObjectError:
            return None


def trials_of(output: Storage) -> list[str]:
    """Ids of the trials that were ever started, ascending."""
    keys = (item.key.removeprefix(TRIALS) for item in output.list(TRIALS))
    return sorted({key.partition("/")[0] for key in keys})


def packed(weights: Arrays) -> bytes:
    """Arrays in one file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{f"{place:05}": value for place, value in enumerate(weights)})
    return buffer.getvalue()


def unpacked(data: bytes) -> Arrays:
    """The arrays, in order."""
    with np.load(io.BytesIO(data)) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]
