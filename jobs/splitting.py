"""Faces in, the split of a training run out: near-duplicates and people are looked for on Ray, and the result kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batch.model.fingerprint import FINGERPRINT, Fingerprint, fingerprint_of
from batch.model.groups import group_faces, largest_group
from batch.model.identity import IdentityOptions, same_people
from batch.model.near_duplicates import find_duplicates
from batch.model.records import FaceIndex, Split
from batch.model.split import SPLITS, By, SplitOptions, SplitTable, loose_fakes, make_split
from batch.storage.base import Storage
from jobs.console import say
from jobs.identities import encode_people, look_at_faces


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is settled before training starts."""

    split: SplitTable
    fingerprint: bytes
    """Of the faces that the model learns from (`fingerprint.Fingerprint` as Parquet)."""


def prepare(
    ray: Any, options: SplitOptions, index: FaceIndex, output: Storage, *, needs_fakes: bool = True
) -> Prepared:
    """The split under OUTPUT, made if there is none; every crop is then read once and checked.

    Raises:
        ValueError: for a damaged shard, a split without real faces or, if it needs them, fake ones, or one that was
            made for other data.
    """
    if not output.exists(SPLITS):
        _make(ray, options, index, output, needs_fakes=needs_fakes)
    split = SplitTable.from_parquet(output.read(SPLITS))
    split.check(index)
    return Prepared(split=split, fingerprint=output.read(FINGERPRINT))


def note_of_loose_fakes(index: FaceIndex, split: SplitTable, by: By) -> str:
    """What to tell where fakes may leak between splits; empty where none can."""
    loose = loose_fakes(index, split, by)
    if not loose:
        return ""
    return (
        f"{loose} fakes are tied to no real face, since their original is not known here: the same people may be real "
        "in another split, and figures may flatter"
    )


def _make(ray: Any, options: SplitOptions, index: FaceIndex, output: Storage, *, needs_fakes: bool) -> None:
    say(f"looking for near-duplicates among {index.table.num_rows} faces")
    looks = look_at_faces(ray, index)
    duplicates = find_duplicates(index, looks)
    if len(duplicates):
        say(f"{len(duplicates)} near-duplicates tie sources together")
    people = None
    if options.by == "identity":
        identity = IdentityOptions()
        say("encoding faces of real clips, to tell people apart")
        people = same_people(index, encode_people(ray, index, output, identity.faces_a_track), identity)
        tied = people if not len(duplicates) else np.concatenate([people, duplicates])
        largest = largest_group(index, group_faces(index, pairs=tied))
        say(f"largest group: {largest.faces} faces ({largest.share:.1%}), as in {', '.join(largest.sources[:3])}")
    split = make_split(index, options, duplicates=duplicates, people=people, needs_fakes=needs_fakes)
    if note := note_of_loose_fakes(index, split, options.by):
        say(note)
    learnt_from = np.sort(np.concatenate([split.rows(Split.TRAIN), split.rows(Split.VALIDATION)]))
    fingerprint: Fingerprint = fingerprint_of(index, learnt_from, looks)
    # The split last: with it, the fingerprint is there too.
    output.put(FINGERPRINT, fingerprint.to_parquet())
    output.put_if_absent(SPLITS, split.to_parquet())
