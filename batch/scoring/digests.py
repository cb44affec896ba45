"""The 16-byte digests that objects are looked up by, and sets of them that take 16 bytes a member."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batch.scoring.listing import media_of
from batch.storage.base import DamagedError, MissingObjectError, Storage, StorageError
from batch.storage.ranged import RangedFile

DIGEST_BYTES = 16

Digests = npt.NDArray[np.bytes_]
"""Shape (n,), dtype S16. NumPy pads with zero bytes, so that a digest which ends in one is equal to itself still."""

# The ETag of an object that was put in one piece is its MD5 (where the store encrypts with keys of its own, it is
# some other number of this form, and matches nothing).
_WHOLE_OBJECT = re.compile(r"[0-9a-f]{32}")
_END_BYTES = 64 << 10
_PROBE_BYTES, _PROBES, _PROBES_BESIDE_CHECKSUM = 8 << 10, 6, 1
_MERGE_AT = 1 << 16
_SECRET_BYTES = 32
PLACES = "places.key"
"""Under OUTPUT: see `place_secret`."""


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


def place_secret(sink: Storage) -> bytes:
    """What decides where contents are looked into: random, made once for an OUTPUT and kept there.

    Were the places known, a fake could be made that equals a harmless file in all of them, and take its score.

    Raises:
        DamagedError: for one of another length.
    """
    try:
        found = sink.read(PLACES)
    except MissingObjectError:
        sink.put_if_absent(PLACES, secrets.token_bytes(_SECRET_BYTES))
        found = sink.read(PLACES)
    if len(found) != _SECRET_BYTES:
        raise DamagedError(
            f"damaged {sink.uri(PLACES)}: {len(found)} bytes, expected {_SECRET_BYTES}; without it a new one is made"
        )
    return found


def fingerprint(storage: Storage, key: str, size_bytes: int, etag: str, secret: bytes = b"") -> bytes | None:
    """16 bytes, equal for objects of equal content that are looked at in the same way; None where one cannot be read.

    A clip that is called a picture is `unreadable`, and under its own name it is not: so what the name says is part
    of it. Made of the store's MD5 where it has one, and three places; else of eight places, see `sampled`. An MD5
    alone may be forged: a harmless file can be made together with a fake that has the same one (Stevens 2009).
    """
    checksum = etag if not storage.is_local and _WHOLE_OBJECT.fullmatch(etag) else ""
    probes = _PROBES_BESIDE_CHECKSUM if checksum else _PROBES
    looked = sampled(storage, key, size_bytes, etag, probes, secret)
    return None if looked is None else digest16(media_of(key), checksum, looked)


def sampled(
    storage: Storage, key: str, size_bytes: int, etag: str, probes: int = _PROBES, secret: bytes = b""
) -> bytes | None:
    """Digest of the size, of both ends, where a container keeps its index (the sizes of all packets, in an MP4), and
    of `probes` places between them that `secret` draws; of the whole object if it is small. None where it cannot be
    read.

    With six, 208 KB and eight requests at most.
    """
    file = RangedFile(storage, key, size_bytes, etag, block_bytes=_PROBE_BYTES)
    spans = [(0, size_bytes)]
    if size_bytes > 4 * _END_BYTES:
        between = [(start, _PROBE_BYTES) for start in _drawn(size_bytes, probes, secret)]
        spans = [(0, _END_BYTES), *between, (size_bytes - _END_BYTES, _END_BYTES)]
    made = hashlib.blake2b(b"sampled%d" % size_bytes, digest_size=DIGEST_BYTES)
    try:
        for start, length in spans:
            file.seek(start)
            made.update(file.read(length))
    except StorageError:
        return None
    return made.digest()


def _drawn(size_bytes: int, probes: int, secret: bytes) -> list[int]:
    """Beginnings of probes between the ends, one drawn in each of so many equal parts; block by block."""
    part = (size_bytes - 2 * _END_BYTES) // probes
    room = max(1, part // _PROBE_BYTES)
    starts = []
    for number in range(probes):
        drawn = hashlib.blake2b(b"%d %d" % (size_bytes, number), key=secret, digest_size=8).digest()
        starts.append(_END_BYTES + part * number + int.from_bytes(drawn) % room * _PROBE_BYTES)
    return starts
