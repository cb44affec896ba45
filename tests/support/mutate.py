"""Media files made wrong on purpose: seeded mutations of whole clips."""

import random
import struct
from collections.abc import Callable, Iterator, Sequence

_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta"})
_TABLES = (b"stsd", b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss", b"elst", b"tkhd", b"mvhd", b"mdhd", b"hdlr",
           b"trun", b"tfhd", b"sidx", b"avcC", b"esds", b"colr", b"pasp")  # fmt: skip
_EXTREMES = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

Mutation = Callable[[random.Random, bytearray, bytes], None]
"""Spoils the first file in place; the second is another clip, to take parts from."""


def mutants(clips: Sequence[bytes], seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` files, each with its name: the number of the clip, the mutations in their order, and the draw.

    The n-th file depends on the seed and n alone. One in three has several mutations.
    """
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        which = draw.randrange(len(clips))
        data, other = bytearray(clips[which]), draw.choice(clips)
        chosen = draw.choices(MUTATIONS, k=draw.choice((1, 1, 1, 1, 2, 3)))
        for mutation in chosen:
            if len(data) > 64:
                mutation(draw, data, other)
        names = "+".join(mutation.__name__ for mutation in chosen)
        yield f"{which}-{names}-{seed}-{number}", bytes(data)


def boxes(data: bytes | bytearray, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of an MP4's boxes at every depth, as far as they can be walked."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > end:
            return
        yield kind, start, start + size
        if kind in _CONTAINERS:
            yield from boxes(data, start + 8, start + size)
        elif kind == b"stsd":
            yield from boxes(data, start + 16, start + size)
        elif kind == b"avc1":
            yield from boxes(data, start + 86, start + size)
        start += size


def flip(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A few bits anywhere."""
    for _ in range(draw.choice((1, 4, 16, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def flip_header(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A few bytes where the container says what it holds: its first kilobyte, or its last two."""
    for _ in range(draw.choice((1, 3, 9))):
        place = draw.randrange(1024) if draw.random() < 0.6 else len(data) - 1 - draw.randrange(2048)
        data[max(0, min(place, len(data) - 1))] = draw.randrange(256)


def extreme(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A huge, tiny or negative number of two, four or eight bytes in the header, in either byte order."""
    place = draw.randrange(min(2048, len(data) - 8)) if draw.random() < 0.6 else len(data) - 8 - draw.randrange(2048)
    _put(draw, data, max(0, place))


def cut(draw: random.Random, data: bytearray, other: bytes) -> None:
    """The end is missing."""
    del data[draw.randrange(1, len(data)) :]


def remove(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A part is missing."""
    start = draw.randrange(len(data) - 8)
    del data[start : start + draw.choice((1, 4, 100, 5000))]


def splice(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A part of another clip, over or between its bytes."""
    length = draw.randrange(1, min(8192, len(other)))
    start, place = draw.randrange(len(other) - length + 1), draw.randrange(len(data))
    data[place : place + (length if draw.random() < 0.5 else 0)] = other[start : start + length]


def swap(draw: random.Random, data: bytearray, other: bytes) -> None:
    """Two blocks change places."""
    length = draw.randrange(1, len(data) // 3)
    first = draw.randrange(len(data) - 2 * length)
    second = draw.randrange(first + length, len(data) - length + 1)
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


def blank(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A run of one byte, as a bad disk leaves it."""
    start = draw.randrange(len(data))
    length = min(draw.choice((16, 512, 4096)), len(data) - start)
    data[start : start + length] = bytes([draw.choice((0, 255))]) * length


def box_size(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A box lies about its size; files without boxes get an extreme number instead."""
    found = list(boxes(data))
    if not found:
        return extreme(draw, data, other)
    _, start, end = draw.choice(found)
    size = draw.choice((*_EXTREMES, end - start - 1, end - start + 1, 8, 16, len(data), 2 * (end - start)))
    struct.pack_into(">I", data, start, size & 0xFFFFFFFF)
    return None


def table(draw: random.Random, data: bytearray, other: bytes) -> None:
    """An extreme number in one of the boxes that say where, when, how large and how many."""
    found = [box for box in boxes(data) if box[0] in _TABLES]
    if not found:
        return extreme(draw, data, other)
    _, start, end = draw.choice(found)
    # Counts stand in the first words; dimensions, times and offsets anywhere.
    places = range(start + 8, end - 4)
    if places:
        _put(draw, data, places[draw.randrange(min(len(places), 12) if draw.random() < 0.5 else len(places))])
    return None


def dimensions(draw: random.Random, data: bytearray, other: bytes) -> None:
    """The sample entry claims another width and height."""
    entries = [start for kind, start, end in boxes(data) if kind in {b"avc1", b"mp4v", b"jpeg", b"hvc1"}]
    if not entries:
        return extreme(draw, data, other)
    width, height = draw.choice(((0, 0), (1, 65535), (65535, 65535), (16384, 16384), (8192, 8192), (32768, 1)))
    struct.pack_into(">HH", data, draw.choice(entries) + 32, width, height)
    return None


def rename(draw: random.Random, data: bytearray, other: bytes) -> None:
    """A box becomes one of another type."""
    found = list(boxes(data))
    if not found:
        return flip_header(draw, data, other)
    _, start, _ = draw.choice(found)
    data[start + 4 : start + 8] = draw.choice((*_TABLES, *_CONTAINERS, b"mdat", b"free"))
    return None


def _put(draw: random.Random, data: bytearray, place: int) -> None:
    width = draw.choice((2, 4, 4, 8))
    number = draw.choice(_EXTREMES) if width < 8 else draw.choice((2**63, 2**64 - 1, 2**40))
    raw = (number & (256**width - 1)).to_bytes(width, draw.choice(("big", "big", "little")))
    data[place : place + width] = raw[: max(0, len(data) - place)]


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip_header, extreme, cut, remove, splice, swap, blank, box_size, box_size, table, table, table, dimensions,
    rename,
)  # fmt: skip
