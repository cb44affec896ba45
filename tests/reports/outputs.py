"""Preprocessing outputs of flat colours, written by the real writer, and a reader of the page made from them."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from batch.faces.crop import encode
from batch.records import Box, Cost, FaceRow, MediaInfo, Reason, VideoRef, VideoResult, WorkUnit
from batch.reports.preprocess import write_preprocess_report
from batch.shards.build import build_unit
from batch.shards.commit import Commit, commit_key, read_commits
from batch.shards.summary import Summary, summarize
from batch.storage.base import Storage

BLUE, ORANGE, GREY = (30, 60, 200), (230, 120, 30), (128, 128, 128)
COLOURS = {0: BLUE, 1: ORANGE, None: GREY}
GREEN = (20, 160, 60)
OPTIONS = {"input": "/in", "faces": {"crop": {"crop_size": 64}}, "versions": {"fakesift": "9.8.7"}}


def video(key: str, label: int | None = 1, source: str | None = None) -> VideoRef:
    """A listed video; its own source if none is named."""
    part = key.split("/", maxsplit=1)[0] if "/" in key else ""
    return VideoRef(key=key, size_bytes=1000, etag="e", part=part, label=label, source_id=source or key)


def media(width: int = 640, height: int = 360, duration_s: float = 10.0) -> MediaInfo:
    """What a container says."""
    return MediaInfo(duration_s=duration_s, fps=25.0, codec="h264", width_px=width, height_px=height)


def kept(
    key: str, label: int | None = 1, source: str | None = None, side: int = 50, info: MediaInfo | None = None
) -> VideoResult:
    """A video with one face, a flat crop in its label's colour, cut from a window of the face's own size."""
    ref = video(key, label, source)
    box = Box(left=0, top=0, right=side, bottom=side - 2)
    image = encode(np.full((64, 64, 3), COLOURS[label], np.uint8), "png")
    face = FaceRow(
        video=ref, media=info or media(), frame_index=0, pts_s=0.0, track_id=0, image=image, face_box_px=box,
        crop_box_px=Box(left=0, top=0, right=side, bottom=side), detector="hog", score=None,
    )  # fmt: skip
    cost = Cost(bytes_read=100, requests=2, seconds={"read": 0.5, "decode": 1.0, "detect": 2.0, "crop": 0.5})
    return VideoResult(
        video=ref, reason=Reason.KEPT, media=face.media, faces_found=1, frames_seen=1, faces=(face,), cost=cost
    )


def aside(key: str, reason: Reason = Reason.NO_FACE, detail: str = "no face in the frame") -> VideoResult:
    """A video set aside, with a green frame to show why."""
    out = io.BytesIO()
    Image.new("RGB", (64, 36), GREEN).save(out, "JPEG")
    return VideoResult(video=video(key), reason=reason, detail=detail, media=media(), example=out.getvalue())


def fault(key: str, reason: Reason = Reason.UNREADABLE, detail: str = "broken") -> VideoResult:
    """A file that could not be looked at."""
    return VideoResult(video=video(key), reason=reason, detail=detail)


def commit(sink: Storage, unit: str, results: Iterable[VideoResult], generation: int = 0) -> None:
    """Writes a unit as the job does; as a retry of an earlier generation's faults, if it has a generation."""
    found = {result.video: result for result in results}
    name = f"{unit}.r{generation}" if generation else unit
    work = WorkUnit(id=name, videos=tuple(found))
    assert build_unit(work, found.__getitem__, "/in", sink, "digest").won
    if generation:
        made = next(read_commits(sink, [commit_key(name, 0)]))
        sink.delete(made.key)
        again = replace(made, unit=unit, generation=generation)
        sink.put(again.key, again.to_json())


def report(
    sink: Storage, *, summary: Summary | None = None, pictures: bool = True, options: Mapping[str, object] = OPTIONS
) -> "Page":
    """Writes the page of an output and reads it."""
    commits: list[Commit] = list(read_commits(sink))
    told = summarize(commits, {"unlabelled": 0, "missing_files": 2}) if summary is None else summary
    uri = write_preprocess_report(
        sink, summary=told, commits=commits, title="A <corpus>", options=options, pictures=pictures
    )
    return Page(Path(uri).read_text("utf-8"))


class Page(HTMLParser):
    """A page as a browser's parser sees it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def section(self, name: str) -> "Page":
        """One section of the page."""
        start = self.source.index(f'<section id="{name}">')
        return Page(self.source[start : self.source.index("</section>", start)])

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every such element."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def pictures(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Alternative text and mean colour of every picture."""
        found = []
        for attributes in self.all("img"):
            kind, data = attributes["src"].split(",", 1)
            assert kind == "data:image/jpeg;base64"
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
            red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
            found.append((attributes["alt"], (red, green, blue)))
        return found


def near(colour: Iterable[float], wanted: Iterable[int]) -> bool:
    """Whether a mean colour is the wanted one but for JPEG's rounding."""
    return all(abs(got - want) < 6 for got, want in zip(colour, wanted, strict=True))
