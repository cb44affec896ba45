"""The 16-byte digests that objects are looked up by, and sets of them that take 16 bytes a member."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batch.storage.base import Storage, StorageError
from batch.storage.ranged import RangedFile

DIGEST_BYTES = 16

Digests = npt.NDArray[np.bytes_]
"""Shape (n,), dtype S16. NumPy pads with zero bytes, so that a digest which ends in one is equal to itself still."""

# The ETag of an object that was put in one piece is its MD5 (where the store encrypts with keys of its own, it is
# some other number of this form, and matches nothing).
_WHOLE_OBJECT = re.compile(r"[0-9a-f]{32}")
_END_BYTES = 64 << 10
_PROBE_BYTES, _PROBES = 8 << 10, 6
_MERGE_AT = 1 << 16


def digest16(*parts: str | bytes) -> bytes:
    """16 bytes of BLAKE2b over the parts, in order and kept apart."""
    made = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(data).to_bytes(8, "big") + data)
    return made.digest()


def as_digests(values: Sequence[bytes]) -> Digests:
    """As an array."""
    return np.array(values, dtype=f"S{DIGEST_BYTES}") if len(values) else np.empty(0, f"S{DIGEST_BYTES}")


def find(sorted_digests: Digests, wanted: Digests) -> npt.NDArray[np.int64]:
    """Place of each wanted digest in a sorted array, -1 where it is not in it; shape of `wanted`."""
    if not len(sorted_digests):
        return np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(sorted_digests, wanted), len(sorted_digests) - 1)
    return np.where(sorted_digests[places] == wanted, places, -1).astype(np.int64)


class DigestSet:
    """A growing set of digests: a sorted array, and a small set of the newest that is merged into it now and then."""

    def __init__(self) -> None:
        self._old = as_digests([])
        self._new: set[bytes] = set()

    def __len__(self) -> int:
        """How many."""
        return len(self._old) + len(self._new)

    @property
    def state_bytes(self) -> int:
        """What it takes, but for the newest."""
        return self._old.nbytes

    def absorb(self, parts: Sequence[Digests]) -> None:
        """Puts many in at once."""
        self._old = np.unique(np.concatenate([self._old, *parts]))

    def add(self, digest: bytes) -> bool:
        """Puts one in; False if it was there."""
        if digest in self._new or find(self._old, as_digests([digest]))[0] >= 0:
            return False
        self._new.add(digest)
        if len(self._new) >= _MERGE_AT:
            self._old = np.union1d(self._old, as_digests(list(self._new)))
            self._new.clear()
        return True


def fingerprint(storage: Storage, key: str, size_bytes: int, etag: str) -> bytes | None:
    """16 bytes, equal for objects of equal content; None where the object cannot be read.

    The store's checksum of the whole object where it has one, which costs no request; else `sampled`.
    """
    if not storage.is_local and _WHOLE_OBJECT.fullmatch(etag):
        return digest16("md5", etag, str(size_bytes))
    return sampled(storage, key, size_bytes, etag)


def is_certain(storage: Storage, etag: str) -> bool:
    """Whether `fingerprint` looked into the object.

    An MD5 alone may be forged: a harmless file can be made together with a fake that has the same one (Stevens 2009),
    so that a match by it is checked by `sampled` too.
    """
    return storage.is_local or not _WHOLE_OBJECT.fullmatch(etag)


def sampled(storage: Storage, key: str, size_bytes: int, etag: str) -> bytes | None:
    """Digest of the size, of both ends, where a container keeps its index (the sizes of all packets, in an MP4), and
    of six places between them; of the whole object if it is small. None where it cannot be read.

    192 KB and eight requests at most.
    """
    file = RangedFile(storage, key, size_bytes, etag, block_bytes=_PROBE_BYTES)
    spans = [(0, size_bytes)]
    if size_bytes > 4 * _END_BYTES:
        step = (size_bytes - 2 * _END_BYTES) // (_PROBES + 1)
        between = [(_END_BYTES + step * (number + 1), _PROBE_BYTES) for number in range(_PROBES)]
        spans = [(0, _END_BYTES), *between, (size_bytes - _END_BYTES, _END_BYTES)]
    made = hashlib.blake2b(b"sampled%d" % size_bytes, digest_size=DIGEST_BYTES)
    try:
        for start, length in spans:
            file.seek(start)
            made.update(file.read(length))
    except StorageError:
        return None
    return made.digest()
