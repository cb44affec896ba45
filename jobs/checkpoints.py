"""A run's checkpoints in, the one that it goes on from out: the furthest that is whole.

They lie in one folder, in Ray Train's layout: `checkpoint_*` folders, and Ray's list of those that it has heard of.
Neither is relied on to be whole. A disk lies, a worker dies as it writes, and Ray 2.60 writes its list in place: a
driver that was killed then leaves half of it. And it refuses a list that names a folder which is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from batch.model.fit.state import check_state, progress_of
from jobs.console import say

CHECKPOINTS = "checkpoints"
_LIST = "checkpoint_manager_snapshot.json"
_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The folder of one run."""

    storage_path: str
    """Above the folder: a path, or `bucket/prefix` with a file system."""
    file_system: Any
    """pyarrow's for S3, or None."""

    @property
    def _place(self) -> Any:
        return self.file_system or LocalFileSystem()

    @property
    def _folder(self) -> PurePosixPath:
        return PurePosixPath(self.storage_path) / CHECKPOINTS

    @contextmanager
    def furthest(self) -> Iterator[Furthest]:
        """The furthest whole one as a local folder, while the block runs.

        Raises:
            OSError: where the folder cannot be read.
        """
        import ray.train

        damaged: list[str] = []
        for path in self._furthest_first(damaged):
            with ray.train.Checkpoint(str(path), self.file_system).as_directory() as folder:
                try:
                    check_state(Path(folder))
                except ValueError:
                    damaged.append(path.name)
                    continue
                yield Furthest(folder=Path(folder), damaged=tuple(damaged))
                return
        yield Furthest(folder=None, damaged=tuple(damaged))

    def drop_broken_list(self) -> None:
        """Away with Ray's list if it is in pieces or names what is gone: the run then goes on without one."""
        place, path = self._place, str(self._folder / _LIST)
        if place.get_file_info(path).type == FileType.NotFound:
            return
        with place.open_input_stream(path) as file:
            data = file.read()
        try:
            names = [entry["checkpoint_dir_name"] for entry in json.loads(data)["checkpoint_results"]]
        except (ValueError, KeyError, TypeError):
            names = None
        if names is None or FileType.NotFound in [
            info.type for info in place.get_file_info([str(self._folder / name) for name in names])
        ]:
            say("the list of checkpoints is damaged: going on from the furthest one that is there")
            place.delete_file(path)

    def sweep(self, kept: Sequence[PurePosixPath]) -> None:
        """Away with those that Ray Train never heard of, since their worker died as it wrote them."""
        place = self._place
        try:
            for found in self._found() if kept else ():
                if found.base_name not in {path.name for path in kept}:
                    place.delete_dir(found.path)
        except OSError as error:
            say(f"a checkpoint that nothing needs could not be removed: {error}")

    def _found(self) -> list[Any]:
        selector = FileSelector(str(self._folder), allow_not_found=True)
        return [
            found
            for found in self._place.get_file_info(selector)
            if found.base_name.startswith("checkpoint_") and not found.is_file
        ]

    def _furthest_first(self, damaged: list[str]) -> list[PurePosixPath]:
        """By what their small file says; those without a readable one are added to `damaged`."""
        far = []
        for found in self._found():
            path = PurePosixPath(found.path)
            try:
                with self._place.open_input_stream(str(path / _STATE)) as file:
                    far.append((progress_of(file.read()), path.name, path))
            except (FileNotFoundError, ValueError):
                damaged.append(path.name)
        return [path for _, _, path in sorted(far, reverse=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Furthest:
    """What there is to go on from."""

    folder: Path | None
    """None where no checkpoint is whole."""
    damaged: tuple[str, ...]
    """Names of those that were passed over, also of those that no worker finished."""
