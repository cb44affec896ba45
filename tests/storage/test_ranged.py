"""Files over ranged reads: the same bytes as the object's, in few requests, and errors that are not lost."""

import io
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest

from batch.storage.base import ChangedObjectError, MissingObjectError, Storage
from batch.storage.local import LocalStorage
from batch.storage.ranged import RangedFile
from batch.storage.s3 import S3Storage
from tests.support.clips import clip

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
CLIPS = sorted(CORPUS.glob("*/*.mp4"))
KIB = 1024


def ranged(storage: Storage, key: str, **options: int) -> RangedFile:
    found = next(item for item in storage.list(key) if item.key == key)
    return RangedFile(storage, key, found.size_bytes, found.etag, **options)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def drawn(path: Path) -> Path:
    """A clip of DFDC's shape: over 2 MB, the index at the end."""
    return clip(path, frames=80, size=(480, 270), noise=15, options={"preset": "ultrafast"})


def first_frame(file: RangedFile | str) -> np.ndarray:
    with av.open(file) as container:
        container.streams.video[0].thread_count = 1
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_reads_as_the_file_itself_does(storage: LocalStorage) -> None:
    data = random.Random(1).randbytes(5_000)
    storage.put("data", data)
    file, plain = ranged(storage, "data", block_bytes=64, max_blocks=3), io.BytesIO(data)
    chance = random.Random(2)
    for _ in range(2_000):
        place = chance.choice([(chance.randrange(5_200), os.SEEK_SET), (-chance.randrange(5_000), os.SEEK_END)])
        if chance.random() < 0.5:
            assert file.seek(*place) == plain.seek(*place)
        count = chance.choice([0, 1, 7, 64, 65, 500, 3_000])
        assert file.read(count) == plain.read(count)
        assert file.tell() == plain.tell()
    file.seek(0)
    assert file.read() == data
    assert io.BufferedReader(ranged(storage, "data", block_bytes=64)).read(300) == data[:300]


def test_asks_nothing_before_it_is_read_or_for_nothing(storage: LocalStorage) -> None:
    storage.put("empty", b"")
    file = ranged(storage, "empty")
    assert (file.size_bytes, file.read(), file.read(10), file.requests) == (0, b"", b"", 0)
    assert file.readable()
    assert file.seekable()
    assert not file.writable()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    for offset, whence in ((-1, os.SEEK_SET), (0, 9)):
        with pytest.raises(ValueError, match="bad seek"):
            ranged(storage, "empty").seek(offset, whence)


def test_reading_on_takes_ever_larger_steps(storage: LocalStorage) -> None:
    storage.put("long", bytes(8 << 20))
    file = ranged(storage, "long")
    while file.read(32 * KIB):
        pass
    assert file.bytes_read == 8 << 20
    # 64, 64, 128, 256, 512 KiB, then seven times 1 MiB
    assert file.requests == 12


def test_a_jump_begins_small_and_the_tail_comes_at_once(storage: LocalStorage) -> None:
    storage.put("long", bytes(8 << 20))
    file = ranged(storage, "long")
    file.read(32 * KIB)
    file.seek(4 << 20)
    file.read(10)
    assert (file.requests, file.bytes_read) == (2, 128 * KIB)
    file.seek(-12_000, os.SEEK_END)
    while file.read(1_000):
        pass
    assert (file.requests, file.bytes_read) == (3, 128 * KIB + 12_000)
    file.seek(0)
    file.read(64 * KIB)
    assert file.requests == 3
    far = ranged(storage, "long")
    far.seek(-200 * KIB, os.SEEK_END)
    while far.read(32 * KIB):
        pass
    assert (far.requests, far.bytes_read) == (1, 200 * KIB)


def test_fetches_no_byte_twice_and_a_large_packet_at_once(storage: LocalStorage) -> None:
    storage.put("long", bytes(8 << 20))
    file = ranged(storage, "long")
    file.seek(4 << 20)
    file.read(10)
    file.seek((4 << 20) - 1_000)
    file.read(2_000)
    assert (file.requests, file.bytes_read) == (2, 64 * KIB + 1_000)
    file.seek(0)
    file.read(300_000)
    file.read(32 * KIB)
    assert file.requests == 3


def test_keeps_the_few_blocks_that_were_used_last(storage: LocalStorage) -> None:
    storage.put("long", bytes(8 << 20))
    file = ranged(storage, "long", max_blocks=2)
    for place, requests in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
        file.seek(place << 20)
        file.read(10)
        assert file.requests == requests


def test_a_small_file_comes_whole(storage: LocalStorage) -> None:
    storage.put("small", bytes(100_000))
    file = ranged(storage, "small")
    file.read(10)
    file.seek(-10, os.SEEK_END)
    file.read(10)
    assert (file.requests, file.bytes_read) == (1, 100_000)
    assert file.waited_s > 0


def test_a_first_frame_takes_little(storage: LocalStorage, tmp_path: Path) -> None:
    path = drawn(tmp_path / "clip.mp4")
    assert path.stat().st_size > 2_000_000
    file = ranged(storage, "clip.mp4")
    assert np.array_equal(first_frame(file), first_frame(str(path)))
    assert file.requests <= 4
    assert file.bytes_read <= 0.15 * path.stat().st_size


@pytest.mark.slow
def test_a_first_frame_from_a_real_store(s3_bucket: str, tmp_path: Path) -> None:
    path = drawn(tmp_path / "clip.mp4")
    store = S3Storage(s3_bucket, "clips")
    store.put("a b/clip.mp4", path.read_bytes())
    file = ranged(store, "a b/clip.mp4")
    assert np.array_equal(first_frame(file), first_frame(str(path)))
    assert file.requests <= 4
    assert file.error is None


@pytest.mark.skipif(not CLIPS, reason="../shared/corpus is not there")
def test_first_frames_of_real_clips() -> None:
    storage, listed, read = LocalStorage(CORPUS), 0, 0
    for path in CLIPS:
        file = ranged(storage, str(path.relative_to(CORPUS)))
        assert np.array_equal(first_frame(file), first_frame(str(path)))
        assert file.requests <= 4
        listed, read = listed + file.size_bytes, read + file.bytes_read
        print(f"{path.name}: {file.requests} requests, {file.bytes_read} of {file.size_bytes} bytes")
        if file.size_bytes > 2_000_000:
            assert file.bytes_read <= 0.15 * file.size_bytes
    print(f"all: {read} of {listed} bytes")
    assert read <= 0.15 * listed


def test_an_object_that_changed_is_an_error_that_stays(storage: LocalStorage, tmp_path: Path) -> None:
    drawn(tmp_path / "clip.mp4")
    file = ranged(storage, "clip.mp4")
    file.read(10)
    storage.put("clip.mp4", b"something else")
    file.seek(0)
    with pytest.raises((av.FFmpegError, ChangedObjectError)):
        first_frame(file)
    assert isinstance(file.error, ChangedObjectError)


def test_an_object_that_is_gone_or_shorter(storage: LocalStorage) -> None:
    storage.put("clip", bytes(1000))
    missing = ranged(storage, "clip")
    short = RangedFile(storage, "clip", 2000, None)
    with pytest.raises(ChangedObjectError, match="ends at byte 1000, listed with 2000"):
        short.read(10)
    storage.delete("clip")
    with pytest.raises(MissingObjectError):
        missing.read(10)
    storage.put("clip", bytes(1000))
    with pytest.raises(MissingObjectError) as again:
        missing.read(10)
    assert again.value is missing.error
    assert (missing.requests, missing.bytes_read) == (1, 0)
