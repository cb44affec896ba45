"""What only S3 stores do: pages, faults on the way, refusals, and stores that are not what they say."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from batch.storage.base import AccessError, ChangedObjectError, DeniedError, MissingObjectError, StorageError
from batch.storage.open import probe_put_if_absent
from batch.storage.s3 import S3Options, S3Storage
from batch.storage.s3_client import storage_errors
from tests.support.faulty_s3 import FaultyS3, serving
from tests.support.seaweed import S3Server


@pytest.fixture
def credentials(aws_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    aws_environment.setenv("AWS_ACCESS_KEY_ID", "someone")
    aws_environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return aws_environment


@pytest.fixture
def faulty(credentials: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with serving() as server:
        yield server


def store(server: FaultyS3, attempts: int = 3) -> S3Storage:
    options = S3Options(endpoint=server.endpoint, max_attempts=attempts, connect_timeout_s=2, read_timeout_s=5)
    return S3Storage("bucket", "out", options)


def test_pages_are_streamed_in_order(credentials: pytest.MonkeyPatch) -> None:
    with mock_aws():
        client = boto3.session.Session(region_name="us-east-1").client("s3")
        client.create_bucket(Bucket="bucket")
        names = sorted(f"clips/{number}.mp4" for number in range(1005))
        for name in names:
            client.put_object(Bucket="bucket", Key=name, Body=b"1")
        client.put_object(Bucket="bucket", Key="clips/", Body=b"")  # a console's folder
        assert [f"clips/{item.key}" for item in S3Storage("bucket", "clips").list()] == names


def test_a_missing_bucket_is_no_empty_one(credentials: pytest.MonkeyPatch) -> None:
    with mock_aws():
        storage = S3Storage("no-such-bucket")
        for action in (
            lambda: list(storage.list()),
            lambda: storage.read("a"),
            lambda: storage.put("a", b"1"),
            lambda: probe_put_if_absent(storage),
        ):
            with pytest.raises(AccessError, match=r"s3://no-such-bucket.*NoSuchBucket"):
                action()


def test_no_credentials_at_all(aws_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccessError, match="Unable to locate credentials"):
        S3Storage("bucket", options=S3Options(endpoint="http://127.0.0.1:9")).read("a")
    aws_environment.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessError, match="nobody"):
        S3Storage("bucket").read("a")


def test_nobody_listens(credentials: pytest.MonkeyPatch) -> None:
    storage = S3Storage("bucket", options=S3Options(endpoint="http://127.0.0.1:9", max_attempts=1))
    with pytest.raises(StorageError, match="s3://bucket/a: Could not connect") as caught:
        storage.read("a")
    assert not isinstance(caught.value, AccessError | MissingObjectError)


@pytest.mark.parametrize("ranged", [False, True])
def test_a_body_that_breaks_off_is_asked_for_again(faulty: FaultyS3, ranged: bool) -> None:
    storage = store(faulty)
    storage.put("clip", bytes(range(256)) * 400)
    faulty.cut_bodies = 2
    body = storage.read_range("clip", 256, 2560) if ranged else storage.read("clip")
    assert body == bytes(range(256)) * (10 if ranged else 400)
    assert faulty.gets == 3
    faulty.cut_bodies = 99
    with pytest.raises(StorageError, match="broke off 3 times") as caught:
        storage.read("clip")
    assert "\n" not in str(caught.value)


def test_a_store_that_ignores_ranges_gives_no_wrong_bytes(faulty: FaultyS3) -> None:
    storage = store(faulty)
    storage.put("clip", b"0123456789")
    faulty.ignores_ranges = True
    assert storage.read_range("clip", 0, 20) == b"0123456789"
    for start in (0, 5):
        with pytest.raises(StorageError, match="10 bytes came for"):
            storage.read_range("clip", start, 5)


def test_a_commit_whose_reply_was_lost_is_ours(faulty: FaultyS3) -> None:
    storage = store(faulty)
    faulty.lost_replies = 1
    assert storage.put_if_absent("commit", b"mine")
    assert not storage.put_if_absent("commit", b"theirs")


def test_conflicts_are_tried_again_and_not_for_ever(faulty: FaultyS3) -> None:
    storage = store(faulty)
    faulty.conflicts = 2
    assert storage.put_if_absent("commit", b"mine")
    faulty.conflicts = 99
    assert not storage.put_if_absent("commit", b"theirs")
    with pytest.raises(StorageError, match="refused as being there 3 times"):
        storage.put_if_absent("other", b"mine")


def test_the_probe_finds_a_store_that_ignores_the_header(faulty: FaultyS3) -> None:
    faulty.ignores_conditions = True
    with pytest.raises(StorageError, match="s3://bucket/out: the store ignores If-None-Match"):
        probe_put_if_absent(store(faulty))
    assert faulty.objects == {}


def test_an_unordered_listing_is_refused(faulty: FaultyS3) -> None:
    faulty.keys_listed = ["out/b", "out/a"]
    with pytest.raises(StorageError, match="'out/a' after 'out/b'"):
        list(store(faulty).list())


def test_an_address_that_is_no_store(faulty: FaultyS3) -> None:
    faulty.objects["/bucket/out/a"] = b"1"
    faulty.keys_listed = ["<html>&nbsp;"]
    with pytest.raises(StorageError, match="s3://bucket/out/"):
        list(store(faulty).list())


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="received 'localhost:9000', expected http"):
        S3Options(endpoint="localhost:9000")
    with pytest.raises(ValueError, match="number of attempts: received 0"):
        S3Options(max_attempts=0)
    with pytest.raises(ValueError, match="bad bucket: received 'a b'"):
        S3Storage("a b")


@pytest.mark.slow
def test_wrong_credentials(s3_bucket: str, s3_server: S3Server, aws_environment: pytest.MonkeyPatch) -> None:
    storage = S3Storage(s3_bucket, options=S3Options(endpoint=s3_server.endpoint))
    storage.put("a", b"1")
    for key, secret in ((s3_server.access_key, "wrong"), ("nobody", "wrong")):
        aws_environment.setenv("AWS_ACCESS_KEY_ID", key)
        aws_environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
        stranger = S3Storage(s3_bucket, options=S3Options(endpoint=s3_server.endpoint))
        for action in (stranger.read, stranger.exists, lambda key, stranger=stranger: next(stranger.list(key))):
            with pytest.raises(AccessError, match=f"s3://{s3_bucket}"):
                action("a")


@pytest.mark.slow
def test_who_may_only_read(s3_bucket: str, s3_server: S3Server, aws_environment: pytest.MonkeyPatch) -> None:
    S3Storage(s3_bucket).put("a", b"1")
    aws_environment.setenv("AWS_ACCESS_KEY_ID", s3_server.reader_access_key)
    aws_environment.setenv("AWS_SECRET_ACCESS_KEY", s3_server.reader_secret_key)
    storage = S3Storage(s3_bucket)
    assert storage.read("a") == b"1"
    assert [item.key for item in storage.list()] == ["a"]
    for action in (
        lambda: probe_put_if_absent(storage),
        lambda: storage.put("b", b"1"),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(DeniedError, match="AccessDenied"):
            action()


@pytest.mark.slow
def test_large_objects_keep_their_etag(s3_bucket: str) -> None:
    storage = S3Storage(s3_bucket)
    data = bytes(range(256)) * 40_000  # the server splits it into pieces of 4 MiB
    storage.put("big", data)
    listed = next(storage.list())
    assert storage.read_range("big", 5_000_000, 4_000_000, etag=listed.etag) == data[5_000_000:9_000_000]
    assert storage.read("big") == data
    with pytest.raises(ChangedObjectError):
        storage.read_range("big", 0, 10, etag="0" * 32)


@pytest.mark.slow
def test_threads_share_a_store(s3_bucket: str) -> None:
    storage = S3Storage(s3_bucket)
    together = threading.Barrier(16)

    def write(number: int) -> None:
        together.wait()  # all come to the store before it has a client
        storage.put(f"{number:02d}", b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    assert [storage.read(item.key) for item in storage.list()] == [b"%d" % number for number in range(16)]


def test_an_archived_object_is_a_fault_of_its_own() -> None:
    """Its status is that of a missing permission."""
    answer = {"Error": {"Code": "InvalidObjectState"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with pytest.raises(StorageError, match=r"s3://b/k: InvalidObjectState") as caught, storage_errors("s3://b/k"):
        raise ClientError(answer, "GetObject")  # type: ignore[arg-type]
    assert not isinstance(caught.value, AccessError)
