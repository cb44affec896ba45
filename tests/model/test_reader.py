"""Batches: the planned faces at the planned places on any number of workers, resumed, cached; no thread is left."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from batch.faces.crop import encode
from batch.model.draws import JPEG, identity
from batch.model.plan import DataOptions, plan_epoch, plan_scan
from batch.model.reader import FaceReader
from batch.model.records import UNUSED, Batch, FaceIndex
from batch.storage.base import StorageError
from batch.storage.local import LocalStorage
from tests.support.face_shards import crop_of, rewrite, write_index

SIDE = 32
SIZES = (13, 1, 30, 7, 22, 4, 9)
PLAIN = DataOptions(batch_size=16, augment="none", seed=1)


class Counting(LocalStorage):
    """A folder that remembers which objects were read."""

    reads: list[str]

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)


@dataclass
class Faces:
    """An index and the reads of its store."""

    index: FaceIndex
    reads: list[str] = field(default_factory=list)


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    store = Counting(tmp_path / "faces")
    store.reads = []
    labels = [[(row + shard) % 2 for row in range(size)] for shard, size in enumerate(SIZES)]
    return Faces(write_index(store, labels, side=SIDE), store.reads)


def rows_of(faces: Faces) -> np.ndarray:
    return np.arange(faces.index.table.num_rows)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fakesift")]


def assert_sound(batch: Batch) -> None:
    """Each place holds the picture of its row, or nothing at all."""
    for row, image, weight in zip(batch.rows, batch.images, batch.weights, strict=True):
        if row == UNUSED:
            assert weight == 0 and not image.any()
        else:
            assert np.array_equal(image, crop_of(row, SIDE))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_parts_make_the_planned_batches(faces: Faces, workers: int) -> None:
    plan = plan_epoch(faces.index, rows_of(faces), PLAIN, 1)
    parts = [
        list(FaceReader(faces.index, PLAIN, rank, workers).batches(plan, 1, training=True)) for rank in range(workers)
    ]
    assert {len(part) for part in parts} == {plan.steps}
    seen: list[int] = []
    for step, batches in enumerate(zip(*parts, strict=True)):
        assert {batch.images.shape for batch in batches} == {(plan.places(workers), SIDE, SIDE, 3)}
        rows = np.concatenate([batch.rows for batch in batches])
        planned = [lane.rows[step * plan.lane_batch : (step + 1) * plan.lane_batch] for lane in plan.lanes]
        assert sorted(rows[rows != UNUSED]) == sorted(np.concatenate(planned))
        assert sum(batch.weights.sum() for batch in batches) == plan.total_weights[step] == batches[0].total_weight
        for batch in batches:
            assert_sound(batch)
            here = batch.rows != UNUSED
            assert np.array_equal(batch.labels[here], faces.index.labels[batch.rows[here]])
        seen += rows[rows != UNUSED].tolist()
    assert len(seen) == len(set(seen)) == plan.faces


def test_resuming_reads_only_what_is_left(faces: Faces) -> None:
    options = replace(PLAIN, batch_size=1, cache="none", augment="robust")
    plan = plan_epoch(faces.index, rows_of(faces), options, 3)
    lane = replace(plan.lanes[0], windows=np.append(np.arange(0, plan.faces, 10), plan.faces))
    plan = replace(plan, lanes=[lane])
    with FaceReader(faces.index, options) as reader:
        whole = list(reader.batches(plan, 3, training=True))
        faces.reads.clear()
        start = 2 * plan.steps // 3
        rest = list(reader.batches(plan, 3, start_step=start, training=True))
    assert len(rest) == plan.steps - start
    for one, two in zip(whole[start:], rest, strict=True):
        assert np.array_equal(one.rows, two.rows)
        assert np.array_equal(one.images, two.images)
        assert np.array_equal(one.draws, two.draws)
    window = start // 10 * 10
    shards = faces.index.table["shard"].to_numpy()
    needed = {faces.index.shards[shard].key for shard in shards[lane.rows[window:]]}
    assert set(faces.reads) == needed
    assert len(needed) < len(SIZES)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_caches_give_the_same_and_spare_reads(faces: Faces, cache: str) -> None:
    options = replace(PLAIN, cache=cache)
    with FaceReader(faces.index, options) as reader:
        for epoch in (1, 2):
            faces.reads.clear()
            for batch in reader.batches(plan_epoch(faces.index, rows_of(faces), options, epoch), epoch, training=True):
                assert_sound(batch)
    assert len(faces.reads) == (len(SIZES) if cache == "none" else 0)


def test_memory_cache_is_bounded(faces: Faces) -> None:
    options = replace(PLAIN, cache_mb=0)
    plan = plan_scan(faces.index, rows_of(faces), 16)
    with FaceReader(faces.index, options) as reader:
        list(reader.batches(plan, 0, training=False))
        faces.reads.clear()
        list(reader.batches(plan, 0, training=False))
    assert len(faces.reads) >= len(SIZES)


def test_lanes_of_a_worker_read_a_shard_once_and_then_forget_it(faces: Faces) -> None:
    with FaceReader(faces.index, replace(PLAIN, cache="none")) as reader:
        for _ in range(2):
            faces.reads.clear()
            list(reader.batches(plan_scan(faces.index, rows_of(faces), 16), 0, training=False))
            assert sorted(faces.reads) == sorted(shard.key for shard in faces.index.shards)


def test_disk_cache_is_removed(faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with FaceReader(faces.index, replace(PLAIN, cache="disk")) as reader:
        reader.images(rows_of(faces))
        [folder] = scratch.iterdir()
        assert len(list(folder.glob("files/*"))) == len(SIZES)
    assert not list(scratch.iterdir())


def test_stopping_early_leaves_no_thread(faces: Faces) -> None:
    plan = plan_epoch(faces.index, rows_of(faces), replace(PLAIN, batch_size=2), 1)
    batches = FaceReader(faces.index, PLAIN).batches(plan, 1, training=True)
    next(batches)
    assert decoding_threads()
    batches.close()
    assert not decoding_threads()


def test_jpeg_and_draws_are_for_training_alone(faces: Faces) -> None:
    options = replace(PLAIN, augment="robust")
    plan = plan_epoch(faces.index, rows_of(faces), options, 1)
    with FaceReader(faces.index, options) as reader:
        trained = list(reader.batches(plan, 1, training=True))
        plain = list(reader.batches(plan, 1, training=False))
    changed = compressed = 0
    for one, two in zip(trained, plain, strict=True):
        assert_sound(two)
        assert np.array_equal(two.draws, identity(len(two.draws)))
        differs = (one.images != two.images).any(axis=(1, 2, 3))
        assert np.array_equal(differs, one.draws[:, JPEG] > 0)
        changed, compressed = changed + differs.sum(), compressed + (one.draws[:, JPEG] > 0).sum()
    assert 0 < compressed < plan.faces


def test_draws_do_not_depend_on_workers(faces: Faces) -> None:
    options = replace(PLAIN, augment="robust")
    plan = plan_epoch(faces.index, rows_of(faces), options, 1)
    by_row = []
    for workers in (1, 3):
        found: dict[int, bytes] = {}
        for rank in range(workers):
            for batch in FaceReader(faces.index, options, rank, workers).batches(plan, 1, training=True):
                found |= {
                    int(row): draws.tobytes() + image.tobytes()
                    for row, draws, image in zip(batch.rows, batch.draws, batch.images, strict=True)
                    if row != UNUSED
                }
        by_row.append(found)
    assert by_row[0] == by_row[1]


def test_images_come_in_the_order_asked(faces: Faces) -> None:
    rows = np.array([40, 3, 3, 85])
    assert np.array_equal(FaceReader(faces.index, PLAIN).images(rows), np.stack([crop_of(row, SIDE) for row in rows]))


def read_all(index: FaceIndex) -> None:
    list(FaceReader(index, PLAIN).batches(plan_scan(index, np.arange(index.table.num_rows), 16), 0, training=False))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (encode(crop_of(1, 48), "png"), r"row 4 .*crop of shape \(48, 48, 3\), expected \(32, 32, 3\)"),
        (b"no picture", "row 4 .*10 bytes that are no picture"),
        (b"", "row 4: got no picture, expected a face crop"),
    ],
)
def test_bad_crops_are_named(faces: Faces, picture: bytes, message: str) -> None:
    images = [encode(crop_of(row, SIDE), "png") for row in range(SIZES[0])]
    images[4] = picture
    index = rewrite(faces.index, 0, images)
    with pytest.raises(ValueError, match=f"{index.shards[0].key}: {message}"):
        read_all(index)
    assert not decoding_threads()


def test_a_changed_shard_is_named(faces: Faces) -> None:
    shard = faces.index.shards[2]
    data = bytearray(shard.sink.read(shard.key))
    data[100] ^= 1
    shard.sink.put(shard.key, bytes(data))
    with pytest.raises(ValueError, match=f"{shard.key}: changed or damaged: .*expected {shard.size_bytes} with"):
        read_all(faces.index)
    shard.sink.delete(shard.key)
    with pytest.raises(StorageError, match=shard.key):
        read_all(faces.index)


def test_an_empty_shard_is_named(faces: Faces) -> None:
    index = rewrite(faces.index, 3, [])
    with pytest.raises(ValueError, match=f"{index.shards[3].key}: got 0 faces"):
        read_all(index)


def test_a_step_outside_the_plan_is_refused(faces: Faces) -> None:
    plan = plan_scan(faces.index, rows_of(faces), 16)
    reader = FaceReader(faces.index, PLAIN)
    assert list(reader.batches(plan, 0, start_step=plan.steps, training=False)) == []
    with pytest.raises(ValueError, match=f"step: got {plan.steps + 1}, expected 0 to {plan.steps}"):
        reader.batches(plan, 0, start_step=plan.steps + 1, training=False)


def test_jpeg_crops_are_read(faces: Faces) -> None:
    images = [encode(crop_of(row, SIDE), "jpeg") for row in range(SIZES[0])]
    index = rewrite(faces.index, 0, images)
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(images[2], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(FaceReader(index, PLAIN).images(np.array([2]))[0], expected)
