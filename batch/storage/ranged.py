"""A stored object as a file that fetches what is read, for decoders that seek (`av.open(RangedFile(...))`)."""

from __future__ import annotations

import io
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from batch.storage.base import ChangedObjectError, Storage, StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 64 * 1024
MAX_BLOCKS = 8
_GROWTH = 16  # a fetch is at most so many times `block_bytes`: 1 MiB
_TAIL_BLOCKS = 4  # FFmpeg looks for an index, or for the last time stamp, in the last 250,000 bytes
_AHEAD_BYTES = 32 * 1024  # FFmpeg's buffer: after a packet's bytes it asks for so many more


class RangedFile(io.RawIOBase):
    """A read-only seekable file over ranged reads, with the few blocks that were last used kept in memory.

    Made for few round trips. DFDC's clips have their index at the end, and their first frame takes three requests:
    the head, the index to the end of the file, the rest of the frame. Reading on doubles what is fetched, up to
    `16 * block_bytes`; a jump begins small again. Memory is bounded by `max_blocks` such fetches. Not for several
    threads at once.

    A decoder may turn an exception of its reader into one of its own: the first error of the store stays in `error`,
    and every read after it raises it again.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        size_bytes: int,
        etag: str | None,
        *,
        block_bytes: int = BLOCK_BYTES,
        max_blocks: int = MAX_BLOCKS,
    ) -> None:
        """Size and etag are the listing's. Asks the store nothing yet."""
        super().__init__()
        if size_bytes < 0 or block_bytes < 1 or max_blocks < 1:
            raise ValueError(
                f"bad file: received size {size_bytes}, block {block_bytes}, blocks {max_blocks}, "
                f"expected at least 0, 1, 1"
            )
        self._storage, self._key, self._etag = storage, key, etag
        self._block_bytes, self._max_blocks = block_bytes, max_blocks
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # by first byte; disjoint; least recently used first
        self._position = 0
        self._read_to = 0  # where the last read ended
        self._window = block_bytes  # what reading on fetches next
        self.size_bytes = size_bytes
        """The listing's."""
        self.bytes_read = 0
        """Bytes that came from the store."""
        self.requests = 0
        """Ranged reads asked of the store."""
        self.waited_s = 0.0
        """Seconds spent in them."""
        self.error: StorageError | None = None
        """The first error of the store."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves and fetches nothing. May go beyond the end, where reads give nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}
        if whence not in base or base[whence] + offset < 0:
            raise ValueError(f"bad seek: received offset {offset}, whence {whence}, expected a place in the file")
        self._position = base[whence] + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, all that are left for a negative `size`; fewer at the end of the file.

        Raises `StorageError`, and the same one ever after.
        """
        if self.closed:
            raise ValueError("read of a closed file")
        left = max(self.size_bytes - self._position, 0)
        wanted = left if size < 0 else min(size, left)
        pieces: list[memoryview] = []
        while wanted > 0:
            start, block = self._block(self._position, wanted)
            offset = self._position - start
            pieces.append(memoryview(block)[offset : offset + wanted])
            wanted -= len(pieces[-1])
            self._position += len(pieces[-1])
            self._read_to = self._position
        return b"".join(pieces)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer, except at the end of the file; raises as `read` does."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Lets go of the blocks."""
        self._blocks.clear()
        super().close()

    def _block(self, position: int, wanted: int) -> tuple[int, bytes]:
        """The kept or fetched block that holds `position`, with its first byte's place."""
        for start, block in self._blocks.items():
            if start <= position < start + len(block):
                self._blocks.move_to_end(start)
                return start, block
        block = self._fetch(position, self._end_of_fetch(position, wanted))
        self._blocks[position] = block
        if len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return position, block

    def _end_of_fetch(self, position: int, wanted: int) -> int:
        """Where a fetch from `position` is to end, if `wanted` bytes are asked for now."""
        if 0 <= position - self._read_to <= self._block_bytes:
            length = self._window
            # Reading on doubles the window, but for the head, which is followed by a jump more often than not.
            if position > 0:
                self._window = min(2 * self._window, _GROWTH * self._block_bytes)
        else:
            length = self._window = self._block_bytes
            if self.size_bytes - position <= _TAIL_BLOCKS * self._block_bytes:
                length = self.size_bytes - position
        if wanted > length:
            length = min(wanted + _AHEAD_BYTES, _GROWTH * self._block_bytes)
        # A second request costs more than the rest of a small file.
        if position == 0 and self.size_bytes <= 2 * self._block_bytes:
            length = self.size_bytes
        following = (start for start in self._blocks if start > position)
        return min(position + length, min(following, default=self.size_bytes), self.size_bytes)

    def _fetch(self, start: int, end: int) -> bytes:
        if self.error is not None:
            raise self.error
        began = time.perf_counter()
        self.requests += 1
        try:
            block = self._storage.read_range(self._key, start, end - start, etag=self._etag)
            if len(block) != end - start:
                uri = self._storage.uri(self._key)
                raise ChangedObjectError(f"{uri}: ends at byte {start + len(block)}, listed with {self.size_bytes}")
        except StorageError as error:
            self.error = error
            raise
        finally:
            self.waited_s += time.perf_counter() - began
        self.bytes_read += len(block)
        return block
