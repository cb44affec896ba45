"""Checkpoints under OUTPUT: which one a run goes on from when some are in pieces, and which ones go."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from pyarrow.fs import copy_files

from batch.model.fit.engine import Snapshot
from batch.model.fit.state import RunState, save_state
from batch.storage.s3 import S3Options, S3Storage
from batch.storage.s3_arrow import S3ArrowFileSystem
from jobs.checkpoints import Checkpoints


def saved(folder: Path, name: str, epoch_step: int) -> Path:
    path = folder / "checkpoints" / name
    path.mkdir(parents=True)
    values = [np.arange(12, dtype=np.float32).reshape(3, 4)]
    state = RunState(
        stage="whole", stage_step=epoch_step, step=epoch_step, epoch_step=epoch_step, loss_sum=1.0, weight_sum=1.0,
        seconds=1.0, history=(), best=values, snapshot=Snapshot(network=values, optimizer=values, average=[]),
        fingerprint={},
    )  # fmt: skip
    save_state(path, state)
    return path


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(storage_path=str(folder), file_system=None)


def furthest(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    with ExitStack() as held:
        found = checkpoints(folder).chosen(held)
        return found.folder and found.folder.name, found.damaged


def test_the_furthest_is_taken_whatever_its_name_and_whoever_heard_of_it(tmp_path: Path) -> None:
    assert furthest(tmp_path) == (None, ())
    saved(tmp_path, "checkpoint_2026-01-02", 3)
    saved(tmp_path, "checkpoint_2026-01-01", 8)  # of a machine whose clock is slow
    (tmp_path / "checkpoints" / "checkpoint_manager_snapshot.json").write_text("{}")
    assert furthest(tmp_path) == ("checkpoint_2026-01-01", ())


@pytest.mark.parametrize("damage", ["bit", "header", "cut", "gone", "no state", "half a state", "another state"])
def test_what_is_in_pieces_is_passed_over(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, "checkpoint_1", 4)
    last = saved(tmp_path, "checkpoint_2", 8)
    arrays, state = last / "optimizer.npz", last / "state.json"
    data = bytearray(arrays.read_bytes())
    match damage:
        case "bit":
            data[data.index(np.float32(5).tobytes())] ^= 1
            arrays.write_bytes(data)
        case "header":  # "encrypted", as zip has it
            data[data.index(b"PK\x01\x02") + 8] ^= 1
            arrays.write_bytes(data)
        case "cut":
            arrays.write_bytes(data[:-60])
        case "gone":
            arrays.unlink()
        case "no state":
            state.unlink()
        case "half a state":
            state.write_bytes(state.read_bytes()[:40])
        case _:
            state.write_text(state.read_text().replace('"step": 8', '"step": 9'))
    assert furthest(tmp_path) == ("checkpoint_1", ("checkpoint_2",))
    (tmp_path / "checkpoints/checkpoint_1/best.npz").unlink()
    assert furthest(tmp_path)[0] is None


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1", "metrics": {}}]}', True),
        ('{"checkpoint_results": []}', True),
        ('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2", "metrics": {}}]}', False),
        ('{"checkpoint_results": [{"checkpoint_dir', False),
        ("", False),
        ("[]", False),
    ],
)
def test_a_list_that_ray_would_refuse_goes(tmp_path: Path, text: str, stays: bool) -> None:
    saved(tmp_path, "checkpoint_1", 1)
    path = tmp_path / "checkpoints" / "checkpoint_manager_snapshot.json"
    path.write_text(text)
    checkpoints(tmp_path).drop_broken_list()
    assert path.exists() == stays
    checkpoints(tmp_path / "new").drop_broken_list()


def test_what_ray_never_heard_of_goes_but_the_furthest(tmp_path: Path) -> None:
    """Ray does not know the last one either, where its worker died before it was told."""
    for number, epoch_step in enumerate((4, 8, 2, 9)):
        saved(tmp_path, f"checkpoint_{number}", epoch_step)
    folder = tmp_path / "checkpoints"
    (folder / "other").mkdir()
    (folder / "checkpoint_9").mkdir()
    (folder / "checkpoint_manager_snapshot.json").write_text("{}")
    checkpoints(tmp_path).sweep([])
    assert len(list(folder.iterdir())) == 7
    checkpoints(tmp_path).sweep([str(folder / "checkpoint_1"), str(folder / "checkpoint_0")])
    left = ["checkpoint_0", "checkpoint_1", "checkpoint_3", "checkpoint_manager_snapshot.json", "other"]
    assert sorted(path.name for path in folder.iterdir()) == left


@pytest.mark.slow
def test_in_a_bucket_too(tmp_path: Path, s3_bucket: str) -> None:
    for number, epoch_step in enumerate((3, 5, 7, 4)):
        saved(tmp_path, f"checkpoint_{number}", epoch_step)
    (tmp_path / "checkpoints/checkpoint_2/best.npz").write_bytes(b"PK")
    (tmp_path / "checkpoints/checkpoint_manager_snapshot.json").write_text('{"checkpoint_results": [{"ch')
    store = S3ArrowFileSystem(S3Options())
    there = Checkpoints(storage_path=f"{s3_bucket}/model", file_system=store)
    there.drop_broken_list()
    with ExitStack() as held:
        assert there.chosen(held).path is None
    copy_files(str(tmp_path), f"{s3_bucket}/model", destination_filesystem=store)
    there.drop_broken_list()
    with ExitStack() as held:
        found = there.chosen(held)
        assert found.path == f"{s3_bucket}/model/checkpoints/checkpoint_1"
        assert found.damaged == ("checkpoint_2",)
        assert found.folder is not None and (found.folder / "optimizer.npz").is_file()
    there.sweep([f"{s3_bucket}/model/checkpoints/checkpoint_3"])
    left = {item.key.split("/")[1] for item in S3Storage(s3_bucket, "model").list("")}
    assert left == {"checkpoint_2", "checkpoint_3"}, "the furthest by what it says, though not whole, and the one kept"
