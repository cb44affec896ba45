"""An S3 bucket, or a prefix in one, as a store."""

from __future__ import annotations

import mimetypes
import os
import random
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from batch.records import StoredObject
from batch.storage.base import ChangedObjectError, MissingObjectError, StorageError
from batch.storage.keys import checked_key, is_reserved
from batch.storage.s3_client import BeyondEndError, ConflictError, S3Options, shared_client, storage_errors
from batch.storage.s3_list import ordered_objects

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef, PutObjectRequestTypeDef

__all__ = ["DEFAULT_S3_OPTIONS", "S3Options", "S3Storage"]

DEFAULT_S3_OPTIONS = S3Options()
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class S3Storage:
    """The objects below a prefix of a bucket; implements `storage.base.Storage`.

    Pickles as bucket, prefix and options: clients and credentials stay in their process. An etag is the store's,
    without quotes. Empty objects whose key ends in a slash (what consoles make for a folder) are no objects here.
    """

    def __init__(self, bucket: str, prefix: str = "", options: S3Options = DEFAULT_S3_OPTIONS) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"bad bucket: received {bucket!r}, expected 3 or more letters, digits, '.', '-' or '_'")
        self._bucket, self._prefix, self._options = bucket, prefix.strip("/"), options
        self._base = f"{self._prefix}/" if self._prefix else ""
        self._own: tuple[int, S3Client] | None = None

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str, str, S3Options]]:
        return S3Storage, (self._bucket, self._prefix, self._options)

    def __repr__(self) -> str:
        return f"S3Storage({self.root!r}, {self._options!r})"

    @property
    def root(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def is_local(self) -> bool:
        """False."""
        return False

    def uri(self, key: str) -> str:
        """`s3://bucket/prefix/key`."""
        return f"s3://{self._bucket}/{self._base}{key}"

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose key begins with `prefix`, in binary key order; a page at a time in memory.

        A missing bucket is an `AccessError`, a missing prefix lists nothing.
        """
        for item in ordered_objects(self._client, self._bucket, self._base + prefix):
            key, size_bytes = item["Key"][len(self._base) :], item["Size"]
            is_folder_marker = size_bytes == 0 and (not key or key.endswith("/"))
            if not is_folder_marker and not is_reserved(key):
                modified_s = item["LastModified"].timestamp()
                yield StoredObject(key=key, size_bytes=size_bytes, etag=item["ETag"].strip('"'), modified_s=modified_s)

    def exists(self, key: str) -> bool:
        """Whether there is such an object. False in a missing bucket too: a HEAD reply does not tell."""
        try:
            with storage_errors(self.uri(key)):
                self._client.head_object(Bucket=self._bucket, Key=self._base + key)
        except MissingObjectError:
            return False
        return True

    def read(self, key: str) -> bytes:
        """The whole object."""
        return self._get(key, {"Bucket": self._bucket, "Key": self._base + key})[1]

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from `start`, fewer only at the object's end, none beyond it. Asks nothing for none."""
        if start < 0 or length < 0:
            raise ValueError(f"bad range: received start {start}, length {length}, expected none below 0")
        if length == 0:
            return b""
        span = f"bytes={start}-{start + length - 1}"
        request: GetObjectRequestTypeDef = {"Bucket": self._bucket, "Key": self._base + key, "Range": span}
        if etag is not None:
            request["IfMatch"] = f'"{etag}"'
        try:
            reply, body = self._get(key, request)
        except BeyondEndError:
            return b""
        size_bytes = int(reply.get("ContentRange", "").rpartition("/")[2] or len(body))
        if len(body) != min(length, size_bytes - start):
            raise StorageError(f"{self.uri(key)}: {len(body)} bytes came for {span} of {size_bytes}")
        return body

    def put(self, key: str, data: bytes) -> None:
        """Writes the whole object in one request."""
        request = self._put_request(key, data)
        with storage_errors(self.uri(key)):
            self._client.put_object(**request)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """A PUT with `If-None-Match: *`.

        A refusal may be the echo of our own PUT, sent again after its reply was lost: then these bytes are there.
        """
        request = self._put_request(key, data)
        request["IfNoneMatch"] = "*"
        for attempt in range(self._options.max_attempts):
            try:
                with storage_errors(self.uri(key)):
                    self._client.put_object(**request)
                return True
            except (ChangedObjectError, ConflictError):
                try:
                    return self.read(key) == data
                except MissingObjectError:  # the other writer has not finished, or the object was deleted
                    _pause(attempt)
        raise StorageError(f"{self.uri(key)}: refused as being there {attempt + 1} times, yet it is not there")

    def delete(self, key: str) -> None:
        """Removes the object; a missing one is no error."""
        checked_key(key)
        with storage_errors(self.uri(key)):
            self._client.delete_object(Bucket=self._bucket, Key=self._base + key)

    @property
    def _client(self) -> S3Client:
        # A client does not survive a fork.
        if self._own is None or self._own[0] != os.getpid():
            self._own = os.getpid(), shared_client(self._options)
        return self._own[1]

    def _put_request(self, key: str, data: bytes) -> PutObjectRequestTypeDef:
        name = self._base + checked_key(key)
        # The type lets a browser show a page that lies in a bucket instead of saving it.
        content_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
        return {"Bucket": self._bucket, "Key": name, "Body": data, "ContentType": content_type}

    def _get(self, key: str, request: GetObjectRequestTypeDef) -> tuple[GetObjectOutputTypeDef, bytes]:
        """The reply and its whole body. boto3 retries requests; bodies that break off are asked for again here."""
        cause: Exception | None = None
        for attempt in range(self._options.max_attempts):
            with storage_errors(self.uri(key)):
                reply = self._client.get_object(**request)
            try:
                body = reply["Body"].read()
                _check_whole(reply, body)
                return reply, body
            except (BotoCoreError, HTTPError, OSError) as error:
                cause = error
                _pause(attempt)
        raise StorageError(f"{self.uri(key)}: the body broke off {attempt + 1} times: {cause}") from cause


def _check_whole(reply: GetObjectOutputTypeDef, body: bytes) -> None:
    """Raises `OSError` where the body is shorter than the range that the reply names."""
    span = _CONTENT_RANGE.match(reply.get("ContentRange", ""))
    if span is not None and len(body) != int(span[2]) - int(span[1]) + 1:
        raise OSError(f"{len(body)} bytes came for {span[0]}")


def _pause(attempt: int) -> None:
    """Waits a random time below a bound that doubles with each attempt, so that many workers do not come at once."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)))
