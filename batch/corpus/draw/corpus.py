"""A folder and options in, a DFDC-shaped corpus of drawn clips out.

DIR/corpus.json                     what was drawn, written last
DIR/dfdc_train_part_0/metadata.json
DIR/dfdc_train_part_0/abcdefghij.mp4 ...
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from batch.corpus.draw.options import DrawOptions
from batch.corpus.draw.plan import Plan, plan_corpus
from batch.corpus.draw.planted import PlantedFile, Work
from batch.corpus.draw.portrait import knead

MARKER = "corpus.json"
_FORMAT = 1

Progress = Callable[[int, int], None]
"""Called with the files written so far and the files in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnCorpus:
    """What lies in the folder. Keys are relative to it."""

    folder: Path
    files: int
    """Files that a listing of videos finds, whole or not."""
    reals: tuple[str, ...]
    """The ordinary real clips, one an identity."""
    fakes: dict[str, str]
    """The ordinary fakes, and of which real each is made."""
    planted: tuple[PlantedFile, ...]
    """What is odd or broken on purpose, with the outcomes that are right for it."""
    missing: tuple[str, ...]
    """What metadata names and is not there."""
    size_bytes: int
    """Of all video files."""
    drawn: bool
    """False if the folder held this very corpus already."""


def draw_corpus(
    folder: Path, options: DrawOptions, progress: Progress | None = None, *, workers: int = 2
) -> DrawnCorpus:
    """Draws the corpus into a folder that is missing, empty, or holds the same corpus already.

    It is drawn beside the folder and moved there when it is whole: an interrupted drawing leaves no half corpus. The
    number of workers changes no byte. Raises `ValueError` for a folder that holds anything else.
    """
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected 1 or more")
    report = progress or (lambda done, total: None)
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        plan = plan_corpus(folder, options)
        _check_same(folder, options, plan)
        report(plan.files, plan.files)
        return _describe(folder, plan, drawn=False)
    building = folder.with_name(f".{folder.name}.drawing")
    shutil.rmtree(building, ignore_errors=True)
    plan = plan_corpus(building, options)
    _write(building, options, plan, report, workers)
    _move(building, folder)
    return _describe(folder, plan, drawn=True)


def _move(building: Path, folder: Path) -> None:
    if not folder.exists():
        building.rename(folder)
        return
    # An empty folder is filled, not replaced: it may be a mount, or somebody's working directory.
    for child in sorted(building.iterdir(), key=lambda path: path.name == MARKER):
        child.rename(folder / child.name)
    building.rmdir()


def _write(building: Path, options: DrawOptions, plan: Plan, report: Progress, workers: int) -> None:
    for part, entries in plan.metadata.items():
        (building / part).mkdir(parents=True)
        (building / part / "metadata.json").write_text(json.dumps(entries, indent=1) + "\n")
    written = 0
    report(0, plan.files)
    for count in _perform(plan.work, workers):
        written += count
        report(written, plan.files)
    note = {
        "about": "Drawn, no photographs: a corpus to try the programs with, which proves nothing about accuracy.",
        "format": _FORMAT,
        "options": asdict(options),
        "files": plan.files,
    }
    (building / MARKER).write_text(json.dumps(note, indent=1) + "\n")


def _perform(work: list[Work], workers: int) -> Iterator[int]:
    """Does all of the work, in processes if there are several workers, and gives each one's count as it ends."""
    if workers == 1:
        threads = cv2.getNumThreads()
        _single_thread()
        try:
            yield from (one() for one in work)
        finally:
            cv2.setNumThreads(threads)
            knead.cache_clear()
        return
    # Spawned, not forked: OpenCV and the codecs keep threads that a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_single_thread) as pool:
        pending = [pool.submit(one) for one in work]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _single_thread() -> None:
    # The workers are the parallelism; OpenCV's own threads beside them only get in each other's way.
    cv2.setNumThreads(1)


def _check_same(folder: Path, options: DrawOptions, plan: Plan) -> None:
    """Raises `ValueError` unless the folder holds the planned corpus, as far as names tell."""
    try:
        note = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        raise ValueError(f"{folder}: not empty and not a drawn corpus; expected an empty or a new folder") from None
    wanted = asdict(options)
    if not isinstance(note, dict) or note.get("format") != _FORMAT or note.get("options") != wanted:
        raise ValueError(
            f"{folder}: holds a corpus drawn with {note}, which differs from {wanted}; choose another folder"
        )
    absent = [key for key in _keys(plan) if not (folder / key).is_file()]
    if absent:
        raise ValueError(f"{folder}: {absent[0]} is gone ({len(absent)} in all); remove the folder to draw it anew")


def _keys(plan: Plan) -> list[str]:
    return [*plan.reals, *plan.fakes, *(item.key for item in plan.planted)]


def _describe(folder: Path, plan: Plan, *, drawn: bool) -> DrawnCorpus:
    return DrawnCorpus(
        folder=folder,
        files=plan.files,
        reals=tuple(plan.reals),
        fakes=dict(plan.fakes),
        planted=tuple(plan.planted),
        missing=tuple(plan.missing),
        size_bytes=sum((folder / key).stat().st_size for key in _keys(plan)),
        drawn=drawn,
    )
