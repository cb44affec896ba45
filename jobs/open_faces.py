"""What training and tuning begin with: outputs of preprocessing opened and indexed, and their OUTPUT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batch.model.index import load_index, unfinished
from batch.model.records import FaceIndex
from batch.model.slices import Slices
from batch.model.split import SPLITS, make_split
from batch.shards.runfile import RunFile, check_claim, claim_output, installed_versions, refuse_nested
from batch.storage.base import Storage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import say
from jobs.slicing import open_slices, slices_digest
from jobs.train_options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFaces:
    """Faces to learn from, and where to."""

    sinks: Sequence[Storage]
    """Outputs of preprocessing."""
    output: Storage
    index: FaceIndex
    slices: Slices
    run: RunFile
    """As it will stand in OUTPUT."""

    @property
    def places(self) -> dict[str, Storage]:
        """All that every node must see, by what a person calls it."""
        return {**{f"faces {number}": sink for number, sink in enumerate(self.sinks, 1)}, "output": self.output}

    def claim(self) -> None:
        """Makes OUTPUT this run's, as the first thing that is written.

        Until there is a split, what was refused may be mended by other options in the same OUTPUT.
        """
        claim_output(self.output, self.run, binding=SPLITS)


def open_faces(options: TrainOptions, kind: str) -> OpenFaces:
    """Opens the places for a job of this kind; writes nothing.

    Raises:
        ValueError: for faces that cannot be trained on, or an OUTPUT that is not this run's.
        AccessError: where a permission is missing.
    """
    s3 = S3Options(endpoint=options.s3_endpoint)
    sinks = [open_storage(place, s3) for place in options.faces]
    output = open_storage(options.output, s3)
    for sink in sinks:
        refuse_nested(sink, output)
    index = load_index(sinks)
    for line in unfinished(sinks):
        say(line)
    slices = open_slices(options.slices, index, s3)
    shaping = {**options.shaping(), "data_digest": index.digest, **slices_digest(options.slices, slices)}
    source = " ".join(sink.root for sink in sinks)
    run = RunFile(kind=kind, input=source, shaping=shaping, versions=installed_versions())
    if options.split != "identity":
        # Whether there is enough of everything shows before a cluster is started.
        # Trials score the splits by features that are computed beforehand, of the faces alone.
        needs_fakes = kind != "train" or options.synthetic == "none"
        make_split(index, options.split_options(), needs_fakes=needs_fakes)
    check_claim(output, run, binding=SPLITS)
    return OpenFaces(sinks=sinks, output=output, index=index, slices=slices, run=run)
