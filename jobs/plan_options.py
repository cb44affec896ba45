"""The command line of `fakesift plan`: a job to plan for, its data, and what shapes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from batch.faces.options import FaceOptions
from batch.scoring.records import ScoringOptions
from jobs.console import shown
from jobs.preprocess_options import PreprocessOptions
from jobs.prices import PRICES
from jobs.runtime import Wanted
from jobs.train_options import TrainOptions

_NODES = (1, 4, 16)


@dataclass(frozen=True, kw_only=True)
class PreprocessPlan:
    """What preprocessing a corpus will take."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """The corpus, or a part of it: folder or s3://bucket/prefix."""
    sample: int = 48
    """Videos to look at."""
    seed: int = 0
    """Decides which."""
    videos: Annotated[int | None, shown("N", "those in INPUT")] = None
    """Videos of the whole corpus, if INPUT is a part of it."""
    preset: Literal["default", "reference"] = "default"
    """As for preprocess."""
    frames: Annotated[int | Literal["first"] | None, shown("first|N", "first")] = None
    """As for preprocess."""
    detector: Annotated[
        Literal["cascade", "hog", "cnn"] | None, shown("cascade|hog|cnn", "cascade; reference: hog")
    ] = None
    """As for preprocess."""
    nodes: tuple[int, ...] = _NODES
    """Sizes of cluster to reckon for."""
    prices: Path = PRICES
    """Price table to use; copy and edit the one that is there."""
    address: Annotated[str | None, shown("ADDRESS", "in this process")] = None
    """Ray cluster to measure on: auto or an address. One task on one of its CPUs."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be."""
        _refuse_none(sample=(self.sample,), videos=(self.videos,), nodes=self.nodes)

    def preprocess(self) -> PreprocessOptions:
        """The job that is planned for; its OUTPUT does not matter here."""
        return PreprocessOptions(
            input=self.input, output="", preset=self.preset, frames=self.frames, detector=self.detector
        )


@dataclass(frozen=True, kw_only=True)
class TrainPlan(TrainOptions):
    """What a training run will take. All options of train are known, so that its command can be planned as it is."""

    places: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FACES...", help_behavior_hint="(required)")
    ] = ()
    """Outputs of `fakesift preprocess`, one or more, or of a part of the corpus."""
    sample: int = 10
    """Steps of each stage to take; a minute of them at most."""
    all_faces: Annotated[int | None, shown("N", "those in FACES")] = None
    """Faces of the whole corpus, if FACES hold a part of them."""
    prices: Path = PRICES
    """Price table to use; copy and edit the one that is there."""

    def check(self) -> None:
        """Refuses what can be refused without looking at any data. Raises `ValueError`."""
        if not self.places:
            raise ValueError("got no FACES, expected outputs of `fakesift preprocess`, one or more")
        TrainOptions.check(replace(self, places=(*self.places, "output")))
        _refuse_none(sample=(self.sample,), all_faces=(self.all_faces,))


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """What scoring a night's new items will take."""

    places: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE INPUT...", help_behavior_hint="(required)")
    ] = ()
    """A bundle; then folders or s3://bucket/prefix with videos and images, as for score."""
    sample: int = 24
    """Items to look at."""
    seed: int = 0
    """Decides which."""
    items: Annotated[int | None, shown("N", "those in INPUT")] = None
    """New items of a night."""
    frames: int = 16
    """As for score."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """As for score."""
    runtime: Wanted = "auto"
    """As for score."""
    batch_size: int = 32
    """As for score."""
    nodes: tuple[int, ...] = _NODES
    """Sizes of cluster to reckon for."""
    prices: Path = PRICES
    """Price table to use; copy and edit the one that is there."""
    address: Annotated[str | None, shown("ADDRESS", "in this process")] = None
    """Ray cluster to measure on: auto or an address. Items on one of its CPUs, the model on a GPU if it has one."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""

    def check(self) -> None:
        """Refuses what can be refused without looking at any data. Raises `ValueError`."""
        if len(self.places) < 2:
            got = " ".join(self.places) or "nothing"
            raise ValueError(f"got {got}, expected BUNDLE INPUT...: a bundle, then one place of items or more")
        one = {"sample": self.sample, "items": self.items, "frames": self.frames, "batch_size": self.batch_size}
        _refuse_none(nodes=self.nodes, **{name: (value,) for name, value in one.items()})

    def scoring(self, faces: FaceOptions) -> ScoringOptions:
        """As the job would: the bundle's options, but every face of N frames. Raises `ValueError`."""
        return ScoringOptions(faces=replace(faces, frames=self.frames, faces="all"), precision=self.precision)


def _refuse_none(**values: tuple[int | None, ...]) -> None:
    """None itself is an option that was left out."""
    for name, numbers in values.items():
        if not numbers or any(number is not None and number < 1 for number in numbers):
            raise ValueError(f"{name.replace('_', ' ')}: got {numbers}, expected 1 or more")
