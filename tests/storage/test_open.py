"""What a person writes, and which store it is."""

from pathlib import Path

import pytest

from batch.storage.open import open_storage


def test_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("some/folder/").root == str(tmp_path / "some" / "folder")
    assert open_storage("folder/../other").root == str(tmp_path.resolve() / "other")
    assert open_storage(".").is_local


@pytest.mark.parametrize(
    ("uri", "root", "address"),
    [
        ("s3://bucket", "s3://bucket", "s3://bucket/a"),
        ("s3://bucket/", "s3://bucket", "s3://bucket/a"),
        ("S3://bucket/some/prefix/", "s3://bucket/some/prefix", "s3://bucket/some/prefix/a"),
        ("s3://bucket/a b%20#c?d", "s3://bucket/a b%20#c?d", "s3://bucket/a b%20#c?d/a"),
    ],
)
def test_buckets(uri: str, root: str, address: str) -> None:
    storage = open_storage(uri)
    assert not storage.is_local
    assert storage.root == root
    assert storage.uri("a") == address


@pytest.mark.parametrize("uri", ["", " ", "gs://bucket/x", "file:///x", "s3a://bucket", "s3:/bucket", "s3:///x"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"bad .*: received .*, expected"):
        open_storage(uri)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"1")
    with pytest.raises(ValueError, match="received the file"):
        open_storage(str(tmp_path / "clip.mp4"))
