"""The command line of `fakesift score`, and what it means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated, Literal

import tyro

from batch.faces.isolate import LimitOptions
from batch.faces.options import FaceOptions
from batch.scoring.listing import FilterOptions, parse_time
from batch.scoring.plan import PlanOptions
from batch.scoring.records import ScoringOptions
from jobs.console import shown
from jobs.runtime import Wanted, check_runtime

_LEAST_PLACES = 3


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of `fakesift score`."""

    places: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="BUNDLE INPUT... OUTPUT", help_behavior_hint="(three or more)"),
    ]
    """A bundle; folders or s3://bucket/prefix with videos and images (mp4, mov, mkv, avi, webm, mpg; jpg, png, webp,
    avif, gif, heic), listed anew each time; and where scores go: empty, or an earlier output of this job."""
    frames: int = 16
    """Evenly spaced frames of a video, or of an animated image."""
    since: Annotated[str | None, shown("TIME", "any")] = None
    """Only objects written then or later, as 2026-03-01 or 2026-03-01T22:00Z."""
    until: Annotated[str | None, shown("TIME", "any")] = None
    """Only objects written before."""
    include: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, shown("GLOB", "all; may be given again")] = ()
    """Only keys under an INPUT that match, as uploads/*.mp4 (* matches slashes too)."""
    exclude: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, shown("GLOB", "none; may be given again")] = ()
    """No keys that match."""
    limit: Annotated[int | None, shown("N", "all")] = None
    """So many new items, the newest; the rest is left for the next run."""
    budget_minutes: Annotated[float | None, shown("MINUTES", "no end")] = None
    """Begin no work after so long; the newest items come first, the rest is left for the next run."""
    keep_crops: bool = False
    """Keep the face crops in faces/, so that another bundle with the same crop options needs no second look at the
    videos. They are biometric data."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic. Scores in the one are not those in the other: what was scored in float32 is
    scored again. The bundle says how far golden logits may differ."""
    runtime: Wanted = "auto"
    """What computes the network. openvino is an extra for CPUs; auto takes it where it is installed and no GPU is."""
    night: Annotated[str | None, shown("YYYY-MM-DD", "today in UTC")] = None
    """The night that this run belongs to: the partition of its rows, and what retries are counted by."""
    address: Annotated[str | None, shown("ADDRESS", "an embedded Ray")] = None
    """Ray cluster to join: auto or an address. An embedded Ray is started and stopped."""
    extract_workers: Annotated[int | None, shown("N", "one a CPU")] = None
    """Most extraction tasks at once."""
    score_actors: Annotated[int | None, shown("N", "one a GPU, or one a node")] = None
    """Most processes that hold the model. They come as nodes join, those on GPUs whenever there are any."""
    score_gpus: Annotated[int | None, shown("N", "those that are there or join")] = None
    """GPUs to ask a cluster for that starts nodes as they are needed; CPUs score until they come."""
    batch_size: int = 32
    """Crops a call of the network."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""
    single_writer: bool = False
    """Accept an OUTPUT store that ignores If-None-Match; then no second run may write there at the same time."""
    clip_seconds: float = LimitOptions().clip_seconds
    """An item that takes longer is a fault: timeout."""
    clip_memory_mb: int = LimitOptions().clip_memory_mb
    """An item whose decoding takes more memory is a fault: out_of_memory."""
    strict: bool = False
    """End with exit code 4 if this run is unlike earlier ones, else with 3 if it met faults."""
    no_pictures: bool = False
    """Keep faces and frames out of the page, and so out of OUTPUT; not together with --keep-crops."""

    @property
    def bundle(self) -> str:
        """The first place."""
        return self.places[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The places between."""
        return self.places[1:-1]

    @property
    def output(self) -> str:
        """The last place."""
        return self.places[-1]

    def scoring(self, faces: FaceOptions) -> ScoringOptions:
        """What shapes scores, given the bundle's face options. Raises `ValueError`."""
        return ScoringOptions(faces=replace(faces, frames=self.frames, faces="all"), precision=self.precision)

    def plan(self) -> PlanOptions:
        """What of the new is looked at. Raises `ValueError`."""
        filters = FilterOptions(
            since=None if self.since is None else parse_time(self.since, "since"),
            until=None if self.until is None else parse_time(self.until, "until"),
            include=tuple(self.include),
            exclude=tuple(self.exclude),
        )
        return PlanOptions(filters=filters, limit=self.limit, newest=self.budget_minutes is not None)

    def limits(self) -> LimitOptions:
        """What one item may take. Raises `ValueError`."""
        return LimitOptions(clip_seconds=self.clip_seconds, clip_memory_mb=self.clip_memory_mb)

    def when(self) -> date:
        """The night. Raises `ValueError`."""
        if self.night is None:
            return datetime.now(UTC).date()
        try:
            return date.fromisoformat(self.night)
        except ValueError:
            raise ValueError(f"night: got {self.night!r}, expected YYYY-MM-DD") from None

    def check(self) -> None:
        """Raises `ValueError` for what is wrong before anything is opened."""
        if len(self.places) < _LEAST_PLACES:
            raise ValueError(f"got {' '.join(self.places)}, expected BUNDLE, one INPUT or more, and OUTPUT")
        self.scoring(FaceOptions())
        self.plan()
        self.limits()
        self.when()
        check_runtime(self.runtime)
        actors = {"score actors": self.score_actors, "score gpus": self.score_gpus}
        for name, value in {"extract workers": self.extract_workers, **actors, "batch size": self.batch_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected 1 or more")
        if self.score_gpus is not None and self.runtime == "openvino":
            raise ValueError("score gpus: got them with --runtime openvino, which uses none; expected one of the two")
        if self.no_pictures and self.keep_crops:
            raise ValueError("no pictures: got it with --keep-crops, which writes faces; expected one of the two")
        if self.budget_minutes is not None and self.budget_minutes <= 0:
            raise ValueError(f"budget minutes: got {self.budget_minutes}, expected more than 0")
