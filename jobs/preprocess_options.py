"""The command line of `fakesift preprocess`, and what it means."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from batch.faces.isolate import LimitOptions
from batch.faces.options import REFERENCE, FaceOptions
from batch.records import Reason
from jobs.console import shown

_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """Options of `fakesift preprocess`."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Folder or s3://bucket/prefix with mp4, mov, mkv, avi, webm or mpg files."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder or s3://bucket/prefix: empty, or an earlier output of the same job, which is then continued."""
    labels: str = "auto"
    """auto, dfdc (metadata.json beside the clips), folders (named real and fake), none, or a .csv or .parquet file
    with the columns uri, label and perhaps source."""
    preset: Literal["default", "reference"] = "default"
    """reference: first frame, dlib's HOG on the whole frame, the bare box stretched to 224 x 224. The options below
    replace single values of a preset."""
    frames: Annotated[int | Literal["first"] | None, shown("first|N", "first")] = None
    """first, or a number of evenly spaced frames."""
    faces: Annotated[Literal["one", "all"] | None, shown("one|all", "one")] = None
    """one: a video with no face or several in a frame is set aside; all: every face is kept."""
    detector: Annotated[
        Literal["cascade", "hog", "cnn"] | None, shown("cascade|hog|cnn", "cascade; reference: hog")
    ] = None
    """cascade: light proposals, each confirmed by dlib's HOG; hog: HOG on the whole frame; cnn: dlib's CNN, for
    GPUs."""
    min_face: Annotated[float | None, shown("SHARE", "0.05; reference: 0.01")] = None
    """Smallest face, as a share of the frame's shorter side."""
    crop_size: Annotated[int | None, shown("PX", "224")] = None
    """Side of a crop in pixels."""
    margin: Annotated[float | None, shown("SHARE", "0.15; reference: 0")] = None
    """Share of the face's side added on every side."""
    encoding: Annotated[Literal["png", "jpeg"] | None, shown("png|jpeg", "png")] = None
    """png keeps the compression artefacts of the video as they are."""
    limit: Annotated[int | None, shown("N", "all")] = None
    """Look at so many videos, drawn by --seed."""
    sample: Annotated[str | None, shown("SIZE", "all")] = None
    """Look at so much of the corpus, as 20GB, drawn by --seed."""
    seed: int = 0
    """Decides which videos --limit and --sample draw."""
    address: Annotated[str | None, shown("ADDRESS", "an embedded Ray")] = None
    """Ray cluster to join: auto or an address. An embedded Ray is started and stopped."""
    workers: Annotated[int | None, shown("N", "one a CPU")] = None
    """Most tasks at once."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""
    single_writer: bool = False
    """Accept an OUTPUT store that ignores If-None-Match; then no second run may write there at the same time."""
    max_faults: Annotated[str | None, shown("N|P%", "no limit")] = None
    """Stop when more videos than this are faults: a number, or a share of the videos as 5%."""
    retry: Annotated[str | None, shown("faults|REASON", "nothing")] = None
    """Look again at videos that ended as faults, or for one reason as storage_error; all others stay as they are."""
    clip_seconds: float = LimitOptions().clip_seconds
    """A clip that takes longer is a fault: timeout."""
    clip_memory_mb: int = LimitOptions().clip_memory_mb
    """A clip whose decoding takes more memory is a fault: out_of_memory."""
    strict: bool = False
    """End with exit code 3 if faults are left."""
    no_pictures: bool = False
    """Keep no example frames in the outcomes and no faces in the page."""

    def face_options(self) -> FaceOptions:
        """The preset with the options that were given. Raises `ValueError` for a value that cannot be."""
        base = REFERENCE if self.preset == "reference" else FaceOptions()
        detect = _given(detector=self.detector, min_face=self.min_face)
        crop = _given(crop_size=self.crop_size, margin=self.margin, encoding=self.encoding)
        return replace(
            base,
            detect=replace(base.detect, **detect),
            crop=replace(base.crop, **crop),
            **_given(frames=self.frames, faces=self.faces),
        )

    def shaping(self) -> dict[str, Any]:
        """What may not change under one OUTPUT."""
        return {
            "faces": asdict(self.face_options()),
            "labels": self.labels,
            "limit": self.limit,
            "sample_bytes": self.sample_bytes(),
            "seed": self.seed,
            "pictures": not self.no_pictures,
        }

    def limits(self) -> LimitOptions:
        """What one clip may take. Raises `ValueError`."""
        return LimitOptions(clip_seconds=self.clip_seconds, clip_memory_mb=self.clip_memory_mb)

    def retried(self) -> frozenset[Reason]:
        """The outcomes that are looked at again. Raises `ValueError` for what is no fault."""
        faults = frozenset(reason for reason in Reason if reason.is_fault)
        if self.retry is None:
            return frozenset()
        if self.retry == "faults":
            return faults
        if self.retry not in faults:
            raise ValueError(f"retry: got {self.retry!r}, expected faults or one of {', '.join(sorted(faults))}")
        return frozenset({Reason(self.retry)})

    def sample_bytes(self) -> int | None:
        """`--sample` in bytes. Raises `ValueError`."""
        if self.sample is None:
            return None
        text = self.sample.strip().lower()
        unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
        try:
            size = int(float(text.removesuffix(unit)) * _UNITS.get(unit, 1))
        except ValueError:
            size = 0
        if size <= 0:
            raise ValueError(f"sample: got {self.sample!r}, expected a size as 20GB, 500MB or a number of bytes")
        return size

    def too_many_faults(self, faults: int, videos: int) -> bool:
        """Whether `--max-faults` is passed; a share counts from a hundred videos on. Raises `ValueError`."""
        if self.max_faults is None:
            return False
        text = self.max_faults.strip()
        try:
            if text.endswith("%"):
                return videos >= 100 and faults * 100 > float(text[:-1]) * videos
            return faults > int(text)
        except ValueError:
            raise ValueError(f"max faults: got {self.max_faults!r}, expected a number or a share as 5%") from None

    def check(self) -> None:
        """Raises `ValueError` for what is wrong before anything is opened."""
        self.shaping()
        self.limits()
        self.retried()
        self.too_many_faults(0, 0)
        for name, value in (("limit", self.limit), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected 1 or more")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
