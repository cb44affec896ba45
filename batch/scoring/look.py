"""A work unit in, its face crops as pixels out: the extraction of `faces.extract`, nothing else.

The options are the bundle's, so that a model meets what it was trained on; but every face of every frame is kept, and
the encoding that the options name is gone through (PNG changes no pixel, JPEG does as it did in training).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.listing import part_of
from batch.faces.extract import Extractor, extract_each
from batch.records import FaceRow, VideoRef, VideoResult
from batch.scoring.records import Looked, ScoreUnit
from batch.scoring.units import MOST_CROPS
from batch.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaExtractor(Extractor):
    """An extractor for several INPUTs: a video's `part` holds the number of its own."""

    sources: tuple[Storage, ...]

    def __call__(self, video: VideoRef, upcoming: Sequence[VideoRef] = ()) -> VideoResult:
        """Looks at one item; begins to fetch the upcoming ones, of the same INPUT, if the store is remote."""
        one = Extractor(source=self.sources[int(video.part)], options=self.options, pictures=self.pictures)
        return one(video, upcoming)

    def prepare(self) -> None:
        """As for the first remote INPUT."""
        for source in self.sources:
            Extractor(source=source, options=self.options).prepare()


def look(
    unit: ScoreUnit,
    extract: Callable[[VideoRef], VideoResult],
    crop_size: int,
    *,
    keep_encoded: bool,
    is_readable: bool = False,
) -> tuple[Looked, int]:
    """Extracts a unit's items, and says how many of them: fewer than all where `MOST_CROPS` is passed.

    `is_readable` says that other objects of the INPUT could be read: see `extract_each`.

    Raises:
        AccessError: where the INPUT refuses access; a DeniedError where that may be because of the unit's objects.
    """
    start = time.perf_counter()
    seconds: Counter[str] = Counter()
    results: list[VideoResult] = []
    encoded: list[bytes] = []
    for result in extract_each(videos_of(unit), extract, is_readable=is_readable):
        for stage, spent in result.cost.seconds.items():
            seconds[stage] += spent  # type: ignore[assignment]  # floats add as well
        encoded += [face.image for face in result.faces]
        results.append(_as_listed(result, keep_encoded=keep_encoded))
        if len(encoded) >= MOST_CROPS:
            break
    crops = pixels(encoded, crop_size)
    told = {**seconds, "extract": time.perf_counter() - start}
    return Looked(results=tuple(results), crops=crops, seconds=told), len(results)


def pixels(encoded: Sequence[bytes], crop_size: int) -> npt.NDArray[np.uint8]:
    """Encoded crops as RGB, uint8 (n, crop_size, crop_size, 3)."""
    out = np.empty((len(encoded), crop_size, crop_size, 3), np.uint8)
    for place, data in enumerate(encoded):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None or bgr.shape != out.shape[1:]:
            found = "no picture" if bgr is None else f"a picture of shape {bgr.shape}"
            raise ValueError(f"crop: got {found}, expected {out.shape[1:]}")
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out[place])
    return out


def videos_of(unit: ScoreUnit) -> list[VideoRef]:
    """The unit's items as `MediaExtractor` takes them, for `IsolatedExtractor.announce`."""
    return [replace(item.video, part=str(item.input)) for item in unit.items]


def _as_listed(result: VideoResult, *, keep_encoded: bool) -> VideoResult:
    """With the item's own `part`, and without pictures that nobody will write."""
    video = replace(result.video, part=part_of(result.video.key))

    def row(face: FaceRow) -> FaceRow:
        return replace(face, video=video, image=face.image if keep_encoded else b"")

    return replace(result, video=video, faces=tuple(row(face) for face in result.faces))
