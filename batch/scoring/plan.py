"""Listings minus the ledger: what this run looks at, streamed, and what it leaves and why, counted.

Of several objects with the same content the first is scored. The others wait for its result as its twins, and so does
a new object whose content was scored on an earlier night.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from batch.ahead import mapped_ahead
from batch.records import StoredObject
from batch.scoring.digests import fingerprint
from batch.scoring.index import LedgerIndex
from batch.scoring.listing import FilterOptions, list_media
from batch.scoring.newest import newest_first
from batch.scoring.records import Item, Why
from batch.scoring.waiting import Waiting
from batch.shards.purged import Purged, video_digest
from batch.storage.base import AccessError, Storage, StorageError

_READERS = 32
_READ_AHEAD = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How much of what is new is looked at in one run."""

    filters: FilterOptions = field(default_factory=FilterOptions)
    limit: int | None = None
    """So many items, the newest."""
    newest: bool = False
    """The newest first, since the run may end before all are done."""

    def __post_init__(self) -> None:
        """Refuses a limit that lets nothing pass."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: got {self.limit}, expected 1 or more")


class Planner:
    """Walks the INPUTs once. Its counts are whole when `items` has ended."""

    def __init__(
        self,
        inputs: Sequence[Storage],
        index: LedgerIndex,
        options: PlanOptions,
        purged: Purged | None = None,
        secret: bytes = b"",
    ) -> None:
        """`purged` is what was taken down from OUTPUT, and is not looked at again; `secret` is `place_secret`'s."""
        self._inputs, self._index, self._options, self._secret = inputs, index, options, secret
        self._purged = purged or Purged()
        self.listed: Counter[str] = Counter()
        """Media objects by INPUT."""
        self.filtered = 0
        """Of them, those that the filters leave out, or that were taken down."""
        self.purged = 0
        """Of them, those that were taken down."""
        self.pending: Counter[Why] = Counter()
        """Those that are to be looked at."""
        self.denied: dict[str, str] = {}
        """INPUTs that refused to be listed to their end, with the error."""
        self.failed: dict[str, str] = {}
        """INPUTs whose listing broke off, with the error; another run may have more luck."""
        self.twins = Waiting()
        """Items with the fingerprint of another that is or was scored."""

    def items(self) -> Iterator[Item]:
        """What is to be scored."""
        pending: Iterable[Item] = itertools.chain.from_iterable(self._of_input(n) for n in range(len(self._inputs)))
        if self._options.newest or self._options.limit is not None:
            pending = newest_first(pending)
        if self._options.limit is not None:
            pending = itertools.islice(pending, self._options.limit)
        for item in self._fingerprinted(pending):
            if item.fingerprint is not None and not self._index.fingerprints.add(item.fingerprint):
                self.twins.add(item)
            elif item.fingerprint is not None and item.kept is None:
                yield replace(item, kept=self._index.kept_as(item.fingerprint))
            else:
                yield item

    @property
    def beyond_limit(self) -> int:
        """Of what is to be looked at, what the limit leaves for another run."""
        limit = self._options.limit
        return 0 if limit is None else max(0, self.pending.total() - limit)

    def vanished(self) -> int:
        """Objects that were looked at once, and that the INPUTs which were listed to their end do not list any more."""
        return self._index.vanished(
            each.root for each in self._inputs if each.root not in {**self.denied, **self.failed}
        )

    def _of_input(self, number: int) -> Iterator[Item]:
        source, filters = self._inputs[number], self._options.filters
        self.listed[source.root] += 0
        listed = ((each, self._may_be_scored(source, each) and filters.takes(each)) for each in list_media(source))
        counted = (self._counted(source.root, *pair) for pair in listed)
        try:
            for item in self._index.pending(number, source.uri(""), counted):
                if item is not None:
                    self.pending[item.why] += 1
                    yield item
        except AccessError as error:
            self.denied[source.root] = str(error)
        except StorageError as error:
            self.failed[source.root] = str(error)

    def _may_be_scored(self, source: Storage, each: StoredObject) -> bool:
        gone = bool(self._purged) and video_digest(source.uri(each.key)) in self._purged.videos
        self.purged += gone
        return not gone

    def _counted(self, root: str, each: StoredObject, taken: bool) -> tuple[StoredObject, bool]:
        self.listed[root] += 1
        self.filtered += not taken
        return each, taken

    def _fingerprinted(self, items: Iterable[Item]) -> Iterator[Item]:
        """Reads what fingerprints need ahead of the stream, since a store answers slowly."""

        def marked(item: Item) -> Item:
            source = self._inputs[item.input]
            return replace(item, fingerprint=fingerprint(source, item.key, item.size_bytes, item.etag, self._secret))

        return mapped_ahead(marked, items, threads=_READERS, ahead=_READ_AHEAD)
