"""A drawn corpus in, a folder as a content bucket fills it out: clips and pictures, and on the next night two more."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from batch.corpus.draw.corpus import DrawnCorpus

_CLIPS, _PICTURES, _ODD = 8, 8, 4
_JPEG_QUALITY = 90


def fill_bucket(drawn: DrawnCorpus, folder: Path, *, night: int) -> int:
    """Puts files into the folder that are not there yet; gives how many there are then.

    The first night brings clips (some of them broken, as archives hold) and pictures, frames of further clips; each
    later one a clip and a picture more.
    """
    clips = sorted([*drawn.reals, *drawn.fakes])
    most = _CLIPS + night - 1
    wanted = [*clips[:most], *(planted.key for planted in drawn.planted[:_ODD])]
    for key in wanted:
        _copy(drawn.folder / key, folder / "clips" / Path(key).name)
    pictured = clips[::-1][: _PICTURES + night - 1]
    for key in pictured:
        _picture(drawn.folder / key, folder / "pictures" / f"{Path(key).stem}.jpg")
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    if not target.exists() and source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _picture(clip: Path, target: Path) -> None:
    """The first frame of a clip as a JPEG."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoCapture(str(clip))
    try:
        found, frame_bgr = video.read()
    finally:
        video.release()
    if found:
        cv2.imwrite(str(target), frame_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
