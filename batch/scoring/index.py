"""The ledger as sorted arrays of digests: about 100 bytes an object, looked up a page of the listing at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.records import StoredObject
from batch.scoring.digests import Digests, DigestSet, as_digests, find
from batch.scoring.ledger import content_digest, crops_digest, uri_digest, version_digest
from batch.scoring.records import MOST_ATTEMPTS, RETRIED, Item, ScoringOptions, Why, tells_of_content

COLUMNS = (
    "uri_digest", "content_digest", "version_digest", "crops_digest", "fingerprint", "input", "date", "run", "unit",
    "reason", "attempt", "bundle", "options", "same_as",
)  # fmt: skip
_PAGE = 1000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What this run would score with."""

    bundle: str
    options: str
    crops_options: str
    night: date
    """What may be tried again is tried on a later one only."""

    @classmethod
    def of(cls, bundle: str, options: ScoringOptions, night: date) -> Sought:
        """From a bundle's digest and the options."""
        return cls(bundle=bundle, options=options.digest(), crops_options=options.faces.digest(), night=night)


class LedgerIndex:
    """Answers for each listed object whether it is to be looked at, and remembers which objects were listed."""

    def __init__(self, tables: Iterable[pa.Table], sought: Sought) -> None:
        """Reads the ledger, oldest rows first: of one version the last row holds."""
        gathered = _Gathered(sought)
        for table in tables:
            gathered.add(table)
        self._sought = sought
        self._uris, first = np.unique(_joined(gathered.uris), return_index=True)
        self._inputs = _numbers(gathered.inputs, np.int32)[first]
        self._contents = np.unique(_joined(gathered.contents))
        self._versions, last = _last(_joined(gathered.versions))
        self._again_after = _numbers(gathered.again_after, np.int32)[last]
        self._attempts = _numbers(gathered.attempts, np.int8)[last]
        # The last too: what is damaged is kept anew.
        self._crops, last = _last(_joined(gathered.crops))
        self._crop_units = _numbers(gathered.crop_units, np.int32)[last]
        self._crop_marks, last = _last(_joined(gathered.crop_marks))
        self._crop_mark_units = _numbers(gathered.crop_mark_units, np.int32)[last]
        self._units = list(gathered.units)
        self._input_names = list(gathered.input_names)
        self._seen = np.zeros(len(self._uris), bool)
        self.fingerprints = DigestSet()
        """Of what was scored, or set aside for its content, with the sought bundle and options."""
        self.fingerprints.absorb(gathered.fingerprints)

    def __len__(self) -> int:
        """Objects that were ever looked at."""
        return len(self._uris)

    @property
    def state_bytes(self) -> int:
        """What the arrays take."""
        arrays: list[npt.NDArray[np.generic]] = [
            *(self._uris, self._inputs, self._contents, self._versions, self._again_after, self._attempts),
            *(self._crops, self._crop_units, self._crop_marks, self._crop_mark_units, self._seen),
        ]
        return sum(array.nbytes for array in arrays) + self.fingerprints.state_bytes

    def pending(
        self, number: int, root_uri: str, objects: Iterable[tuple[StoredObject, bool]]
    ) -> Iterator[Item | None]:
        """Of one INPUT's listing, in its order: an item for what is to be looked at, and None for what is not.

        Args:
            number: the INPUT's place among them.
            root_uri: what a key's uri begins with.
            objects: with whether each passes the filters; one that does not is remembered as listed and no more.
        """
        page: list[tuple[StoredObject, bool]] = []
        for each in objects:
            page.append(each)
            if len(page) >= _PAGE:
                yield from self._look_up(number, root_uri, page)
                page = []
        yield from self._look_up(number, root_uri, page)

    def kept_as(self, fingerprint: bytes) -> str | None:
        """`<run>/<unit>` of a commit that kept the crops of that content, under whatever name; None for none."""
        at = find(self._crop_marks, as_digests([fingerprint]))[0]
        return self._units[self._crop_mark_units[at]] if at >= 0 else None

    def vanished(self, roots: Iterable[str]) -> int:
        """Objects of these INPUTs that were looked at once and are not listed any more. Ask when all were listed."""
        named = set(roots)
        wanted = {place for place, name in enumerate(self._input_names) if name in named}
        return int(np.sum(~self._seen & np.isin(self._inputs, list(wanted))))

    def _look_up(self, number: int, root_uri: str, page: Sequence[tuple[StoredObject, bool]]) -> Iterator[Item | None]:
        uris = [root_uri + each.key for each, _ in page]
        contents = [content_digest(uri, each.etag) for uri, (each, _) in zip(uris, page, strict=True)]
        sought = self._sought
        at_uri = find(self._uris, as_digests([uri_digest(uri) for uri in uris]))
        self._seen[at_uri[at_uri >= 0]] = True
        at_content = find(self._contents, as_digests(contents))
        at_version = find(
            self._versions, as_digests([version_digest(each, sought.bundle, sought.options) for each in contents])
        )
        at_crops = find(self._crops, as_digests([crops_digest(each, sought.crops_options) for each in contents]))
        today = (sought.night - _EPOCH).days
        for place, (each, taken) in enumerate(page):
            version = at_version[place]
            if not taken or (version >= 0 and not today > self._again_after[version]):
                yield None
                continue
            why = Why.RETRIED if version >= 0 else _why(at_uri[place] >= 0, at_content[place] >= 0)
            yield Item(
                input=number,
                key=each.key,
                size_bytes=each.size_bytes,
                etag=each.etag,
                modified_s=each.modified_s,
                why=why,
                attempt=int(self._attempts[version]) + 1 if version >= 0 else 1,
                kept=self._units[self._crop_units[at_crops[place]]] if at_crops[place] >= 0 else None,
            )


_NEVER = (date(9999, 12, 31) - _EPOCH).days


class _Gathered:
    """Columns of the ledger as lists of arrays, as they are read."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self.uris: list[Digests] = []
        self.contents: list[Digests] = []
        self.versions: list[Digests] = []
        self.crops: list[Digests] = []
        self.fingerprints: list[Digests] = []
        self.inputs: list[npt.NDArray[np.int32]] = []
        self.again_after: list[npt.NDArray[np.int32]] = []
        self.attempts: list[npt.NDArray[np.int8]] = []
        self.crop_units: list[npt.NDArray[np.int32]] = []
        self.crop_marks: list[Digests] = []
        self.crop_mark_units: list[npt.NDArray[np.int32]] = []
        self.units: dict[str, int] = {}
        self.input_names: dict[str, int] = {}

    def add(self, table: pa.Table) -> None:
        """Takes in a table with `COLUMNS`."""
        self.uris.append(_column(table, "uri_digest"))
        self.contents.append(_column(table, "content_digest"))
        self.versions.append(_column(table, "version_digest"))
        self.inputs.append(_codes(table["input"], self.input_names))
        reasons = table["reason"].to_pylist()
        attempts = table["attempt"].to_numpy().astype(np.int8)
        days = table["date"].cast(pa.int32()).to_numpy()
        again = np.array([reason in RETRIED for reason in reasons], bool) & (attempts < MOST_ATTEMPTS)
        self.again_after.append(np.where(again, days, _NEVER).astype(np.int32))
        self.attempts.append(attempts)
        self._add_crops(table)
        wanted = (self._sought.bundle, self._sought.options)
        scored_with = zip(table["bundle"].to_pylist(), table["options"].to_pylist(), strict=True)
        known = [
            mark is not None and tells_of_content(reason) and pair == wanted
            for mark, reason, pair in zip(table["fingerprint"].to_pylist(), reasons, scored_with, strict=True)
        ]
        self.fingerprints.append(_column(table.filter(pa.array(known, pa.bool_())), "fingerprint"))

    def _add_crops(self, table: pa.Table) -> None:
        """Takes in where crops of the sought options were kept, by object and by content."""
        keeps = table.filter(table["crops_digest"].is_valid())
        digests = zip(keeps["crops_digest"].to_pylist(), keeps["content_digest"].to_pylist(), strict=True)
        mine = [crops == crops_digest(content, self._sought.crops_options) for crops, content in digests]
        keeps = keeps.filter(pa.array(mine, pa.bool_()))
        if not keeps.num_rows:
            return
        named = zip(keeps["run"].to_pylist(), keeps["unit"].to_pylist(), strict=True)
        units = _codes(pa.chunked_array([pa.array([f"{run:06d}/{unit}" for run, unit in named])]), self.units)
        self.crops.append(_column(keeps, "crops_digest"))
        self.crop_units.append(units)
        outcomes = zip(keeps["fingerprint"].to_pylist(), keeps["reason"].to_pylist(), strict=True)
        of_content = np.array([mark is not None and tells_of_content(reason) for mark, reason in outcomes], bool)
        self.crop_marks.append(_column(keeps.filter(pa.array(of_content)), "fingerprint"))
        self.crop_mark_units.append(units[of_content])


def _why(known: bool, same_content: bool) -> Why:
    if same_content:
        return Why.RESCORED
    return Why.CHANGED if known else Why.NEW


def _column(table: pa.Table, name: str) -> Digests:
    return as_digests(table[name].to_pylist())


def _codes(values: pa.ChunkedArray, names: dict[str, int]) -> npt.NDArray[np.int32]:
    """Each string as its number in `names`, which grows."""
    encoded = values.combine_chunks().dictionary_encode()
    numbers = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
    codes: npt.NDArray[np.int32] = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
    return codes


def _last(digests: Digests) -> tuple[Digests, npt.NDArray[np.int64]]:
    """Each once, sorted, with the place where it stands last."""
    found, from_end = np.unique(digests[::-1], return_index=True)
    return found, len(digests) - 1 - from_end


def _joined(parts: Sequence[Digests]) -> Digests:
    return np.concatenate(parts) if parts else as_digests([])


def _numbers(parts: Sequence[npt.NDArray[np.generic]], dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
