"""Keys: which ones may be written, which names are ours, and how a local file name becomes a key and back."""

from __future__ import annotations

import os
import re

RESERVED = ".fakesift-"
"""Objects whose last name begins so are our own helpers (temporary files, probes): no listing shows them."""

# A byte that is not UTF-8 stands in a key as one private-use character, U+EF80 for 0x80 to U+EFFF for 0xFF, so that
# every key can be encoded (Parquet, JSON, digests) and leads back to its file. A name that truly holds such a
# character has its three bytes written this way, so two files never share a key.
_BYTE_BASE = 0xEF00
_SURROGATE_BASE = 0xDC00
_STANDS_FOR_BYTE = re.compile("[\uef80-\uefff]")
_UNDECODABLE = re.compile("[\udc80-\udcff\uef80-\uefff]")


def checked_key(key: str) -> str:
    """The key itself, if it names something below a root.

    Raises `ValueError` for an empty or absolute key, a NUL, and an empty, `.` or `..` part.
    """
    if "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"bad key: received {key!r}, expected a relative path with no empty, '.' or '..' part")
    return key


def is_reserved(key: str) -> bool:
    """Whether the key names one of our own helper objects."""
    return key.rpartition("/")[2].startswith(RESERVED)


def key_of_name(name: str) -> str:
    """The key of a file name as `os.scandir` gives it, in which undecodable bytes are lone surrogates."""
    return _UNDECODABLE.sub(_to_private, name)


def name_of_key(key: str) -> str:
    """The file name of a key, as `os.open` takes it: the inverse of `key_of_name`.

    Raises `ValueError` for a key that `key_of_name` never gives.
    """
    try:
        name = os.fsdecode(_STANDS_FOR_BYTE.sub(_to_surrogate, key).encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        name = ""
    if key_of_name(name) != key:
        raise ValueError(f"bad key: received {key!r}, expected the key of a file name")
    return name


def _to_private(match: re.Match[str]) -> str:
    raw = match[0].encode("utf-8", "surrogateescape")
    return "".join(chr(_BYTE_BASE + byte) for byte in raw)


def _to_surrogate(match: re.Match[str]) -> str:
    return chr(ord(match[0]) - _BYTE_BASE + _SURROGATE_BASE)
