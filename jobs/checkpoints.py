"""A run's checkpoints in, the one that it goes on from out: the furthest that is whole.

They lie in one folder, in Ray Train's layout: `checkpoint_*` folders, and Ray's list of those that it has heard of.
Neither is relied on to be whole. A disk lies, a worker dies as it writes, and Ray 2.60 writes its list in place: a
driver that was killed then leaves half of it. And it refuses a list that names a folder which is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from batch.model.fit.state import STATE, check_state, progress_of
from jobs.console import say

CHECKPOINTS = "checkpoints"
_LIST = "checkpoint_manager_snapshot.json"


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
    def restored(self) -> Iterator[Restored]:
        """The furthest whole one as a local folder while the block runs, the same for all workers: the first chooses.

        To be called in the training function of Ray Train, by all of them. Raises `OSError` where the folder cannot be
        read.
        """
        import ray.train
        from ray.train.collective import broadcast_from_rank_zero

        last = ray.train.get_checkpoint()
        with ExitStack() as held:
            first = not ray.train.get_context().get_world_rank()
            chosen = self.chosen(held, last) if first else None
            path = broadcast_from_rank_zero(chosen and chosen.path)
            if chosen is None:
                folder = Path(held.enter_context(self._opened(path, last))) if path else None
                chosen = Restored(path=path, folder=folder, damaged=())
            yield chosen

    def chosen(self, held: ExitStack, last: Any = None) -> Restored:
        """The furthest whole one; its local folder stays until `held` ends. `last`: the one that Ray Train names."""
        damaged: list[str] = []
        for path in self._furthest_first(damaged):
            with ExitStack() as tried:
                folder = Path(tried.enter_context(self._opened(path, last)))
                try:
                    check_state(folder)
                except ValueError:
                    damaged.append(PurePosixPath(path).name)
                    continue
                held.push(tried.pop_all())
                return Restored(path=path, folder=folder, damaged=tuple(damaged))
        return Restored(path=None, folder=None, damaged=tuple(damaged))

    def _opened(self, path: str, last: Any) -> Any:
        """Ray's own object where it is that one: of it the workers of a node share one download."""
        import ray.train

        named = last is not None and PurePosixPath(last.path).name == PurePosixPath(path).name
        return (last if named else ray.train.Checkpoint(path, self.file_system)).as_directory()

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

    def sweep(self, kept: Sequence[str]) -> None:
        """Away with all but these and the furthest: Ray Train never heard of them, since a worker died beside them."""
        place = self._place
        try:
            if kept:
                names = {PurePosixPath(path).name for path in (*kept, *self._furthest_first([])[:1])}
                for found in self._found():
                    if found.base_name not in names:
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

    def _furthest_first(self, damaged: list[str]) -> list[str]:
        """By what their small file says; those without a readable one are added to `damaged`."""
        far = []
        for found in self._found():
            try:
                with self._place.open_input_stream(f"{found.path}/{STATE}") as file:
                    far.append((progress_of(file.read()), found.base_name, found.path))
            except (FileNotFoundError, ValueError):
                damaged.append(found.base_name)
        return [path for _, _, path in sorted(far, reverse=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What there is to go on from."""

    path: str | None
    """In the store; None where no checkpoint is whole."""
    folder: Path | None
    """Here."""
    damaged: tuple[str, ...]
    """Names of those that were passed over, also of those that no worker finished: known to who chose."""
