"""An index of faces in, the table of splits out: which faces are trained on, validated on and tested on.

No split cuts a group. What ties faces into groups stands in `groups.py`; near-duplicates and people are found by
`near_duplicates.py` and `identity.py` and come in as pairs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.model.assign import assign_groups
from batch.model.groups import Groups, Pairs, ends_with, group_faces, largest_group
from batch.model.parquet import zstd_parquet
from batch.model.records import FaceIndex, Split
from batch.schemas import SPLITS_VERSION, splits_schema

By = Literal["source", "part", "identity", "given"]
SPLITS = "splits.parquet"
"""Where the table lies under OUTPUT."""
LARGEST_PERSON = 0.2
"""With more than this share of the faces in one group, clustering has run people together (or there are too few)."""

_ORDER = (Split.TRAIN, Split.VALIDATION, Split.TEST)
_NAMES = {
    "train": Split.TRAIN, "training": Split.TRAIN, "validation": Split.VALIDATION, "validate": Split.VALIDATION,
    "valid": Split.VALIDATION, "val": Split.VALIDATION, "dev": Split.VALIDATION, "test": Split.TEST,
    "testing": Split.TEST,
}  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """How faces are dealt to training, validation and test."""

    by: By = "source"
    """What no split may cut. `source`: an original and all fakes made from it; `part`: whole parts of the corpus;
    `identity`: people; `given`: as the corpus's labels say, which must not cut a source."""
    validation: float = 0.15
    """Share of the faces, of both classes alike. Not used with `given`."""
    test: float = 0.15
    """Likewise."""
    seed: int = 0
    """Another one deals anew."""

    def __post_init__(self) -> None:
        """Refuses shares that leave a split empty."""
        if self.by not in ("source", "part", "identity", "given"):
            raise ValueError(f"split by: got {self.by!r}, expected source, part, identity or given")
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise ValueError(
                f"shares: got validation {self.validation} and test {self.test}, expected both above 0, sum below 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTable:
    """The splits of one index of faces."""

    table: pa.Table
    """`schemas.splits_schema`, in the order of the index; `split` is null where the label is unknown."""
    digest: str
    """16 hex digits of faces, groups and splits."""

    @classmethod
    def of(cls, table: pa.Table) -> SplitTable:
        """The value for a table."""
        digest = hashlib.sha256()
        for name in ("face", "group", "split"):
            for value in table[name].to_pylist():
                digest.update(f"{value}\n".encode("utf-8", "surrogatepass"))
        return cls(table=table, digest=digest.hexdigest()[:16])

    def rows(self, split: Split) -> npt.NDArray[np.int64]:
        """Places in the index of a split's faces, ascending, shape (faces of the split,)."""
        here = pc.fill_null(pc.equal(self.table["split"], str(split)), False)
        return np.flatnonzero(here.to_numpy()).astype(np.int64)

    def groups(self, split: Split) -> frozenset[str]:
        """Ids of a split's groups."""
        here = self.table.filter(pc.equal(self.table["split"], str(split)))
        return frozenset(pc.unique(here["group"]).to_pylist())

    def counts(self) -> dict[str, dict[str, int]]:
        """Faces by split and class, as `{"train": {"real": 3, "fake": 9, "unknown": 0}, ...}`.

        `left_out` stands beside the splits for the faces of unknown label, which are in none.
        """
        classes = {"real": 0, "fake": 1, "unknown": None}
        splits: list[str | None] = [*_ORDER, None]
        return {
            str(split or "left_out"): {name: self._count(split, label) for name, label in classes.items()}
            for split in splits
        }

    def _count(self, split: str | None, label: int | None) -> int:
        def equal(name: str, value: str | int | None) -> pa.ChunkedArray:
            column = self.table[name]
            return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)

        return int(pc.sum(pc.and_(equal("split", split), equal("label", label))).as_py() or 0)

    def check(self, index: FaceIndex) -> None:
        """Raises `ValueError` if the table is not of this index: the data has changed since it was split."""
        if self.table.num_rows != index.table.num_rows or not self.table["face"].equals(index.table["face"]):
            raise ValueError(
                f"{SPLITS}: {self.table.num_rows} faces of other data than the {index.table.num_rows} given; expected "
                "the outputs that it was made for, in the same order: train into a new output"
            )

    def to_parquet(self) -> bytes:
        """The file's content; equal tables give equal bytes under one pyarrow version."""
        return zstd_parquet(self.table)

    @classmethod
    def from_parquet(cls, data: bytes) -> SplitTable:
        """Reads the file. Raises `ValueError` if it is damaged or none of ours."""
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{SPLITS}: damaged, expected a Parquet table: {error}") from error
        found = (table.schema.metadata or {}).get(b"fakesift.schema", b"").decode(errors="replace")
        if found != SPLITS_VERSION or not table.schema.equals(splits_schema()):
            raise ValueError(f"{SPLITS}: schema {found or 'missing'}, expected {SPLITS_VERSION} with its columns")
        return cls.of(table.replace_schema_metadata(splits_schema().metadata).combine_chunks())


def make_split(
    index: FaceIndex,
    options: SplitOptions,
    *,
    duplicates: Pairs | None = None,
    people: Pairs | None = None,
    needs_fakes: bool = True,
) -> SplitTable:
    """Deals the faces of known label to training, validation and test; faces of unknown label are in none.

    Args:
        index: The faces.
        options: What may not be cut, and the shares.
        duplicates: Near-duplicates among the faces (`near_duplicates.find_duplicates`), whose groups are merged.
        people: Faces of one person (`identity.same_people`); needed for `identity` and ignored else.
        needs_fakes: Whether every split must have fakes; where they are made of real ones, it need not.

    Raises:
        ValueError: if a split would lack a class that it needs (what each has is told), if one person's group has
            more than 20% of the faces, or if the corpus's own splits are missing, unknown, or cut a group.
    """
    if options.by == "identity" and people is None:
        raise ValueError("split by identity: got no people, expected the pairs of `identity.same_people`")
    tied = [pairs for pairs in (duplicates, people if options.by == "identity" else None) if pairs is not None]
    groups = group_faces(index, parts=options.by == "part", pairs=np.concatenate(tied) if tied else None)
    if options.by == "identity":
        _refuse_crowd(index, groups)
    splits = _given(index, groups) if options.by == "given" else _dealt(index, groups, options)
    columns = {name: index.table[name] for name in ("face", "video_uri", "label")}
    table = pa.table({**columns, "group": groups.of_faces(), "split": splits}, schema=splits_schema()).combine_chunks()
    split = SplitTable.of(table)
    _refuse_empty(split, groups, options, needs_fakes=needs_fakes)
    return split


def _dealt(index: FaceIndex, groups: Groups, options: SplitOptions) -> pa.Array:
    labels = index.labels
    sizes = np.stack(
        [np.bincount(groups.numbers[labels == label], minlength=len(groups.ids)) for label in (0, 1)], axis=1
    )
    if (present := sizes.any(axis=0)).any():
        sizes = sizes[:, present]  # a class that there is none of has no share to be kept
    shares = (1 - options.validation - options.test, options.validation, options.test)
    assigned = assign_groups(sizes, groups.ids, shares, options.seed)[groups.numbers]
    return pa.DictionaryArray.from_arrays(
        pa.array(assigned, mask=labels < 0), pa.array([str(split) for split in _ORDER])
    ).dictionary_decode()


def _given(index: FaceIndex, groups: Groups) -> pa.Array:
    """The corpus's own splits, checked."""
    table = index.table.select(["split", "video_uri", "label"])
    splits: list[str | None] = []
    for name, uri, label in zip(*(column.to_pylist() for column in table.columns), strict=True):
        known = _NAMES.get((name or "").strip().lower())
        if label is not None and known is None:
            raise ValueError(
                f"{uri}: split {name!r} in the labels, expected one of {', '.join(_NAMES)}; or split by source"
            )
        splits.append(None if label is None else str(known))
    _refuse_cut(index, groups, splits)
    return pa.array(splits, pa.string())


def _refuse_cut(index: FaceIndex, groups: Groups, splits: list[str | None]) -> None:
    first: dict[int, int] = {}
    for row, (number, split) in enumerate(zip(groups.numbers.tolist(), splits, strict=True)):
        if split is None:
            continue
        other = first.setdefault(number, row)
        if splits[other] != split:
            uris = [f"{index.table['video_uri'][place].as_py()} ({splits[place]})" for place in (other, row)]
            raise ValueError(
                f"the given splits cut group {groups.ids[number]}: {' and '.join(uris)} have one source, are copies "
                "of one another, or come from one another; correct the labels, or split by source"
            )


def loose_fakes(index: FaceIndex, split: SplitTable, by: By) -> int:
    """Fakes that no real face is grouped with, though one of another split may be of the same clip or person.

    Those whose original nobody named (their source is their own clip); when people are parted, those whose original is
    not among the faces, too. Whole parts of a corpus are not looked at.
    """
    if by == "part":
        return 0
    groups, labels = split.table["group"].combine_chunks().dictionary_encode().indices.to_numpy(), index.labels
    with_real = np.unique(groups[labels == 0])
    loose = np.flatnonzero((labels == 1) & ~np.isin(groups, with_real))
    if by == "identity":
        return len(loose)
    table = index.table.select(["video_uri", "source_id"]).take(pa.array(loose))
    pairs = zip(table["video_uri"].to_pylist(), table["source_id"].to_pylist(), strict=True)
    return sum(ends_with(uri, source) for uri, source in pairs)


def _refuse_crowd(index: FaceIndex, groups: Groups) -> None:
    largest = largest_group(index, groups)
    if largest.share > LARGEST_PERSON:
        raise ValueError(
            f"split by identity: group {largest.id} has {largest.share:.0%} of the faces ({largest.faces} of "
            f"{len(groups.numbers)}, {len(largest.sources)} sources as {', '.join(largest.sources[:_SHOWN])}), "
            f"expected {LARGEST_PERSON:.0%} at most; split by source or by part"
        )


def _refuse_empty(split: SplitTable, groups: Groups, options: SplitOptions, *, needs_fakes: bool) -> None:
    """Both classes are needed in every split: no metric of ranking, no threshold and no loss means anything else."""
    counts = split.counts()
    classes = ("real", "fake") if needs_fakes else ("real",)
    missing = [f"no {name} face in {place}" for place in _ORDER for name in classes if not counts[place][name]]
    if missing:
        unknown = counts["left_out"]["unknown"]
        unlabelled = f"; {unknown} faces have no label: see --labels of `fakesift preprocess`" if unknown else ""
        raise ValueError(
            f"split by {options.by}: {', '.join(missing)}; {_listing(counts)}, in {len(groups.ids)} groups; expected "
            f"{' and '.join(classes)} faces in every split: more data, or another way to split{unlabelled}"
        )


def _listing(counts: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{place} has {counts[place]['real']} real and {counts[place]['fake']} fake" for place in _ORDER)
