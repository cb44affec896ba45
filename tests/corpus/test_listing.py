"""Listings of whatever names strangers give: whole, in binary key order, each file once, and samples of them."""

import os
import tempfile

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from batch.corpus.listing import VIDEO_SUFFIXES, folder_of, list_videos, part_of, sample_videos
from batch.records import VideoRef
from batch.storage.keys import is_reserved
from batch.storage.local import LocalStorage
from batch.storage.s3 import S3Storage

# Names that sort differently with a slash, look like paths or markup, or differ in case or composition alone.
ODD = [
    "a",
    "a-b",
    "a.b",
    "a b",
    "A",
    "ä",
    "a\u0308",
    "日本",
    "\U0001d11e",
    "~",
    "-",
    "+",
    "%2F",
    "a%",
    "#h?q=1",
    "'\"&<>",
]
SUFFIXES = ["", ".mp4", ".MP4", ".mkv", ".Mpg", ".txt", ".mp4.part", ".json"]
part = st.builds(lambda name, suffix: name + suffix, st.sampled_from([*ODD, "", "...", " "]), st.sampled_from(SUFFIXES))
name = part.filter(lambda text: text not in {"", ".", ".."})
raw_name = st.one_of(name.map(os.fsencode), st.binary(min_size=1, max_size=6).map(lambda data: data + b".mp4"))
key = st.lists(part, min_size=1, max_size=4).map("/".join).filter(bool)
keys = st.sets(key, min_size=1, max_size=8)
videos = st.sets(st.text(min_size=1, max_size=8), max_size=60)


def is_video(key: str) -> bool:
    return key.lower().endswith(VIDEO_SUFFIXES)


def write(root: bytes, parts: list[bytes]) -> bool:
    """Whether there was room for the file: a name may be a folder's already, or a folder's a file's."""
    path = os.path.join(root, *parts)  # noqa: PTH118  (names are bytes)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "xb") as file:  # noqa: PTH123
            file.write(b"/".join(parts))
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True


@settings(max_examples=60, deadline=None, derandomize=True)
@given(paths=st.lists(st.lists(raw_name, min_size=1, max_size=4), max_size=12))
def test_a_folder_lists_each_file_once_in_order(paths: list[list[bytes]]) -> None:
    usable = [parts for parts in paths if not any(b"/" in part or b"\0" in part for part in parts)]
    usable = [parts for parts in usable if not any(part in {b".", b".."} for part in parts)]
    with tempfile.TemporaryDirectory() as folder:
        written = [b"/".join(parts) for parts in usable if write(os.fsencode(folder), parts)]
        source = LocalStorage(folder)
        listed = [item.key for item in list_videos(source)]
        assert listed == sorted(set(listed), key=str.encode)
        assert all(map(is_video, listed))
        # A key leads back to its file, whose content is its name.
        wanted = [path for path in written if is_video(os.fsdecode(path))]
        assert sorted(source.read(key) for key in listed) == sorted(wanted)


@pytest.fixture(scope="module")
def bucket() -> "boto3.client":
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for variable, value in {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto"}.items():
            patch.setenv(variable, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        client = boto3.session.Session(region_name="us-east-1").client("s3")
        client.create_bucket(Bucket="bucket")
        yield client


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=keys)
def test_a_bucket_lists_each_object_once_in_order(bucket: "boto3.client", found: set[str]) -> None:
    """Also keys that no folder could hold: a file and a folder of one name, empty and dotted parts."""
    for key in found:
        bucket.put_object(Bucket="bucket", Key=f"in/{key}", Body=key.encode())
    try:
        source = S3Storage("bucket", "in")
        listed = [item.key for item in source.list()]
        assert listed == sorted((key for key in found if not is_reserved(key)), key=str.encode)
        assert [source.read(key).decode() for key in listed] == listed
        assert [item.key for item in list_videos(source)] == list(filter(is_video, listed))
        assert all(key.startswith(part_of(key)) and key.startswith(folder_of(key)) for key in listed)
    finally:
        for key in found:
            bucket.delete_object(Bucket="bucket", Key=f"in/{key}")


def ref(key: str) -> VideoRef:
    return VideoRef(key=key, size_bytes=1 + len(key), etag="e", part="", label=None, source_id=key)


def in_order(found: set[str]) -> list[VideoRef]:
    return [ref(key) for key in sorted(found, key=lambda key: key.encode("utf-8", "surrogatepass"))]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(found=videos, more=videos, limit=st.integers(1, 40), max_bytes=st.none() | st.integers(1, 200))
def test_a_sample_is_a_stable_part_of_the_listing(
    found: set[str], more: set[str], limit: int, max_bytes: int | None
) -> None:
    listing = in_order(found)
    drawn = list(sample_videos(listing, limit=limit, max_bytes=max_bytes, seed=3))
    assert drawn == [video for video in listing if video in set(drawn)]
    assert len(drawn) <= limit
    assert max_bytes is None or sum(video.size_bytes for video in drawn) <= max_bytes
    if max_bytes is None:
        assert len(drawn) == min(limit, len(listing))
    # What was not drawn is not drawn from a corpus that grew, either.
    grown = list(sample_videos(in_order(found | more), limit=limit, max_bytes=max_bytes, seed=3))
    assert {video.key for video in grown} & found <= {video.key for video in drawn} | more
    assert drawn == list(sample_videos(iter(listing), limit=limit, max_bytes=max_bytes, seed=3))
