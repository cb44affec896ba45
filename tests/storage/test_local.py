"""Folders as stores: links, names that are no text, half-written files, full and closed disks."""

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batch.storage.base import AccessError, StorageError
from batch.storage.local import LocalStorage
from batch.storage.open import probe_put_if_absent


def keys(root: Path, prefix: str = "") -> list[str]:
    return [item.key for item in LocalStorage(root).list(prefix)]


def test_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "part").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "clip.mp4").write_bytes(b"film")
    (root / "part" / "clip.mp4").symlink_to(elsewhere / "clip.mp4")
    (root / "linked").symlink_to(elsewhere)
    (root / "part" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "broken").symlink_to(root / "nowhere")
    assert keys(root) == ["linked/clip.mp4", "part/clip.mp4"]
    assert keys(root, "part/") == ["part/clip.mp4"]
    assert [item.size_bytes for item in LocalStorage(root).list()] == [4, 4]


def test_passes_over_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    assert keys(tmp_path) == ["file"]


def test_names_that_are_not_utf8_have_keys_that_are(tmp_path: Path) -> None:
    names = [b"a\xff\xfe.mp4", b"caf\xe9.mp4", "café.mp4".encode(), "\uef80".encode(), b"\x80"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    storage = LocalStorage(tmp_path)
    listed = [item.key for item in storage.list()]
    assert len(set(listed)) == len(names)
    assert listed == sorted(listed, key=lambda key: key.encode("utf-8"))
    assert sorted(storage.read(key) for key in listed) == sorted(names)
    assert "caf\uefe9.mp4" in listed
    with pytest.raises(ValueError, match="bad key"):
        storage.read("lone surrogate \udcff")
    with pytest.raises(ValueError, match="bad key"):  # would be read back as "é"
        storage.put("\uefc3\uefa9", b"")


def test_etag_is_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", ns=(5, 1_700_000_000_123_456_789))
    assert [item.etag for item in LocalStorage(tmp_path).list()] == ["3-1700000000123456789"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        LocalStorage(tmp_path).put("a", b"1")
        LocalStorage(tmp_path).put_if_absent("b", b"1")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o644, 0o644]


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Lets no file grow beyond a size: writing fails midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("method", ["put", "put_if_absent"])
def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path, method: str) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("old", b"kept")
    with at_most(1 << 20), pytest.raises(StorageError, match=str(tmp_path / "folder" / "big")):
        getattr(storage, method)("folder/big", bytes(2 << 20))
    with at_most(1 << 20), pytest.raises(StorageError):
        storage.put("old", bytes(2 << 20))
    assert storage.read("old") == b"kept"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "old"]


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that this process may enter and not write to, also where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_bytes(b"1")
        (folder / "inner").chmod(0)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)
            (folder / "inner").chmod(0o755)


def test_no_permission_is_told_apart(closed_folder: Path) -> None:
    storage = LocalStorage(closed_folder)
    with pytest.raises(AccessError, match="Permission denied"):
        probe_put_if_absent(storage)
    for action in (
        lambda: storage.put("a", b"1"),
        lambda: storage.put("new/a", b"1"),
        lambda: storage.read("inner/a"),
        lambda: storage.exists("inner/a"),
        lambda: list(storage.list()),
    ):
        with pytest.raises(AccessError, match="Permission denied"):
            action()


def test_a_file_in_the_way_is_an_error_in_one_line(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a", b"1")
    storage.put("folder/b", b"1")
    for write in (lambda: storage.put("a/b", b"1"), lambda: storage.put("folder", b"1")):
        with pytest.raises(StorageError) as caught:
            write()
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "folder"]


def test_reads_cannot_leave_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    storage = LocalStorage(tmp_path / "root")
    for key in ("../secret", str(tmp_path / "secret"), "a\0b"):
        for read in (storage.read, storage.exists):
            with pytest.raises(ValueError, match="bad key"):
                read(key)
    for prefix in ("../", "/", f"{tmp_path}/"):
        with pytest.raises(ValueError, match="bad key"):
            list(storage.list(prefix))
