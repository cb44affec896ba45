"""The one interface to places that hold objects: local folders and S3 prefixes look the same behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from batch.records import StoredObject


class StorageError(Exception):
    """The store did not answer as it should, after all retries. Names the uri and the cause."""


class AccessError(StorageError):
    """Missing bucket, wrong or expired credentials, or no permission: no retry can mend it."""


class DeniedError(AccessError):
    """No permission for this request. It may be that of one object alone: a key or a rule of its own."""


class DamagedError(ValueError):
    """An object of ours cannot be what was written: names the uri and what is wrong. No retry can mend it."""


class MissingObjectError(StorageError):
    """There is no such object."""


class ChangedObjectError(StorageError):
    """The object's etag is not the one that was asked for: it was replaced since it was listed."""


@contextmanager
def under_way() -> Iterator[None]:
    """Around work that has begun: what is wrong input or missing permission before it is a failure from here on.

    Raises:
        RuntimeError: in place of `AccessError` and `DamagedError`.
        AssertionError: in place of any other `ValueError`, which is a bug here, and no wrong input.
    """
    try:
        yield
    except (AccessError, DamagedError) as error:
        raise RuntimeError(f"stopped: {error}") from error
    except ValueError as error:
        raise AssertionError(f"a bug: {error!r}") from error


class Storage(Protocol):
    """Objects under one root. Keys are relative to it, with `/` between folders.

    Implementations can be pickled and sent to workers. All methods but `list` and `exists` raise
    `MissingObjectError` where the key is missing, `AccessError` where no retry can help, and `StorageError` else.
    """

    @property
    def root(self) -> str:
        """The root as an absolute path or `s3://bucket/prefix`, with no slash at the end."""

    @property
    def is_local(self) -> bool:
        """True if only machines that share a file system see the same objects."""

    def uri(self, key: str) -> str:
        """The full address of a key."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose key begins with `prefix`, in the binary order of their UTF-8 keys.

        Streams: a page (or a folder) is in memory at a time. A missing root lists nothing.
        """

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def read(self, key: str) -> bytes:
        """The whole object."""

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from `start`, fewer only at the object's true end.

        With `etag`, raises `ChangedObjectError` if the object is another by now. A body that ends early is an
        error (retried, then `StorageError`), never a short answer.
        """

    def put(self, key: str, data: bytes) -> None:
        """Writes the whole object, replacing what is there; readers see the old or the new, never a part."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object only if there is none: True if it was written, or if these very bytes are there.

        Of several writers with different bytes exactly one gets True.
        """

    def delete(self, key: str) -> None:
        """Removes the object; a missing one is no error."""
