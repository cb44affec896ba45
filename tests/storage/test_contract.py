"""What every store promises, asked of a folder, of moto in this process and of a real S3 server."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from batch.storage.base import ChangedObjectError, MissingObjectError, Storage
from batch.storage.local import LocalStorage
from batch.storage.open import probe_put_if_absent
from batch.storage.s3 import S3Storage

ODD_NAMES = [
    *("a", "a-b", "a.b", "a b", "a+b", "a%b", "a%20b", "a'\"&<>b", "a0", "Z", "#h?q=1", "~t", "ä", "a\u0308"),
    *("日本.mp4", "\uffee", "\U0001d11e", "part/a", "part-2/a", "part 3/a", "part.d/a", "part/b/c", "part/b-c"),
]


@pytest.fixture(params=["local", "moto", pytest.param("weed", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield LocalStorage(tmp_path / "root")
    elif request.param == "weed":
        yield S3Storage(request.getfixturevalue("s3_bucket"), "some/prefix")
    else:
        environment = request.getfixturevalue("aws_environment")
        environment.setenv("AWS_ACCESS_KEY_ID", "moto")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "moto")
        with mock_aws():
            boto3.session.Session(region_name="us-east-1").client("s3").create_bucket(Bucket="bucket")
            yield S3Storage("bucket", "some/prefix")


def keys(storage: Storage, prefix: str = "") -> list[str]:
    return [item.key for item in storage.list(prefix)]


def etag(storage: Storage, key: str) -> str:
    return next(item.etag for item in storage.list(key) if item.key == key)


def test_lists_in_binary_key_order_whatever_the_names(storage: Storage) -> None:
    # A folder cannot hold a file and a folder of the same name, so "a" has no keys below it.
    for name in ODD_NAMES:
        storage.put(name, name.encode())
    assert keys(storage) == sorted(ODD_NAMES, key=str.encode)
    assert [storage.read(name).decode() for name in ODD_NAMES] == ODD_NAMES
    assert [item.size_bytes for item in storage.list()] == [len(key.encode()) for key in keys(storage)]


def test_lists_by_any_prefix(storage: Storage) -> None:
    for name in ("commits/a.json", "commits/b.json", "commits-old/a.json", "faces/x/y"):
        storage.put(name, b"1")
    assert keys(storage, "commits/") == ["commits/a.json", "commits/b.json"]
    assert keys(storage, "com") == ["commits-old/a.json", "commits/a.json", "commits/b.json"]
    assert keys(storage, "faces/x/y") == ["faces/x/y"]
    assert keys(storage, "none/") == keys(storage, "faces/x/y/z") == []


def test_a_missing_root_lists_nothing(storage: Storage) -> None:
    assert keys(storage) == []


def test_reads_ranges_to_the_true_end_and_none_beyond(storage: Storage) -> None:
    storage.put("ten", b"0123456789")
    storage.put("empty", b"")
    tag = etag(storage, "ten")
    assert storage.read_range("ten", 2, 3, etag=tag) == b"234"
    assert storage.read_range("ten", 8, 10, etag=tag) == b"89"
    assert storage.read_range("ten", 10, 1) == storage.read_range("ten", 3, 0) == b""
    assert storage.read_range("empty", 0, 5, etag=etag(storage, "empty")) == storage.read("empty") == b""
    with pytest.raises(ValueError, match="received start -1"):
        storage.read_range("ten", -1, 3)


def test_a_replaced_object_is_not_read_for_the_listed_one(storage: Storage) -> None:
    storage.put("clip", b"first")
    listed = etag(storage, "clip")
    storage.put("clip", b"other content")
    assert etag(storage, "clip") != listed
    with pytest.raises(ChangedObjectError, match="clip"):
        storage.read_range("clip", 0, 4, etag=listed)
    assert storage.read_range("clip", 0, 5, etag=etag(storage, "clip")) == b"other"


def test_a_missing_object_is_told_apart(storage: Storage) -> None:
    storage.put("there", b"1")
    for read in (lambda: storage.read("none"), lambda: storage.read_range("none", 0, 1, etag="x")):
        with pytest.raises(MissingObjectError, match="none"):
            read()
    assert storage.exists("there")
    assert not storage.exists("none")


def test_deletes_what_is_there_and_minds_nothing_else(storage: Storage) -> None:
    storage.put("folder/a", b"1")
    storage.delete("folder/a")
    storage.delete("folder/a")
    storage.delete("never/was")
    assert keys(storage) == []


def test_put_replaces_and_put_if_absent_does_not(storage: Storage) -> None:
    assert storage.put_if_absent("x/commit.json", b"first")
    assert storage.put_if_absent("x/commit.json", b"first")  # the same bytes: as good as written
    assert not storage.put_if_absent("x/commit.json", b"second")
    assert storage.read("x/commit.json") == b"first"
    storage.put("x/commit.json", b"third")
    assert storage.read("x/commit.json") == b"third"
    assert keys(storage) == ["x/commit.json"]


def test_sixteen_writers_have_one_winner(storage: Storage, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.callspec.id:
        pytest.skip("moto checks and writes in two steps")
    for turn in range(5):
        key = f"commits/{turn}.json"
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(lambda n, key=key: storage.put_if_absent(key, b"%d" % n), range(16)))
        assert won.count(True) == 1
        assert storage.read(key) == b"%d" % won.index(True)


def test_the_probe_passes_and_leaves_nothing(storage: Storage) -> None:
    probe_put_if_absent(storage)
    assert keys(storage) == []


def test_helper_objects_are_not_listed(storage: Storage) -> None:
    storage.put("a/.fakesift-probe-1", b"left behind")
    storage.put("a/b", b"1")
    assert keys(storage) == ["a/b"]


def test_a_pickled_store_is_the_same_store(storage: Storage) -> None:
    storage.put("a", b"1")
    copy: Storage = pickle.loads(pickle.dumps(storage))
    assert copy.root == storage.root
    assert copy.is_local == storage.is_local
    assert copy.read("a") == b"1"


def test_a_store_works_in_another_process(storage: Storage, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.callspec.id:
        pytest.skip("moto lives in this process")
    storage.put("a", b"1")
    for method in ("spawn", "fork"):  # a forked process inherits this one's client and must not use it
        with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
            assert pool.submit(storage.read, "a").result() == b"1"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a/", "a\0b"])
def test_writes_cannot_leave_the_root(storage: Storage, key: str) -> None:
    for write in (lambda: storage.put(key, b"1"), lambda: storage.put_if_absent(key, b"1")):
        with pytest.raises(ValueError, match="bad key"):
            write()
    with pytest.raises(ValueError, match="bad key"):
        storage.delete(key)


def test_addresses_are_told_in_full(storage: Storage) -> None:
    storage.put("a/b", b"1")
    assert storage.uri("a/b") == f"{storage.root}/a/b"
    assert not storage.root.endswith("/")
