"""From what a person writes (a folder or `s3://bucket/prefix`) to a store, and whether that store can be written to."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path

from batch.storage.base import Storage, StorageError
from batch.storage.keys import RESERVED
from batch.storage.local import LocalStorage
from batch.storage.s3 import DEFAULT_S3_OPTIONS, S3Options, S3Storage

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def open_storage(uri: str, s3: S3Options = DEFAULT_S3_OPTIONS) -> Storage:
    """The store at a folder path, or at `s3://bucket` or `s3://bucket/prefix`. Asks the store nothing.

    Raises `ValueError` for an empty address, another scheme, a malformed bucket, or a path that is a file.
    """
    scheme = _SCHEME.match(uri)
    if scheme and uri.lower().startswith("s3://"):
        bucket, _, prefix = uri[len("s3://") :].partition("/")
        return S3Storage(bucket, prefix, s3)
    if scheme or not uri.strip() or "\0" in uri:
        raise ValueError(f"bad address: received {uri!r}, expected a folder or s3://bucket/prefix")
    with suppress(OSError):  # a folder that may not be entered shows when it is listed or written
        if Path(uri).is_file():
            raise ValueError(f"bad address: received the file {uri!r}, expected a folder or s3://bucket/prefix")
    return LocalStorage(uri)


def probe_put_if_absent(storage: Storage) -> None:
    """Writes an object of a reserved name twice with different bytes: the second must be refused. Then removes it.

    Raises `AccessError` if the store may not be written to, and `StorageError` if it does not keep the first of two
    writers, on which commits depend.
    """
    key = f"{RESERVED}probe-{uuid.uuid4().hex}"
    first = storage.put_if_absent(key, b"first")
    try:
        second = storage.put_if_absent(key, b"second")
        kept = storage.read(key)
    finally:
        storage.delete(key)
    if not first or second or kept != b"first":
        raise StorageError(
            f"{storage.root}: the store ignores If-None-Match, so two writers of one object would both win; "
            f"expected a store with conditional writes"
        )
