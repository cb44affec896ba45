"""Windows, crops and tracks: where the pixels come from."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.faces.crop import crop_window, cut, encode
from batch.faces.decode import decode
from batch.faces.detect import DetectOptions
from batch.faces.options import REFERENCE, CropOptions, FaceOptions
from batch.faces.track import Tracker
from batch.records import Box, Detection
from tests.support.clips import clip

sizes = st.integers(1, 2000)


@given(left=st.integers(-50, 700), top=st.integers(-50, 500), side=st.integers(1, 900), margin=st.floats(0, 2))
def test_a_window_is_square_and_leaves_the_frame_only_where_it_must(
    left: int, top: int, side: int, margin: float
) -> None:
    face = Box(left=left, top=top, right=left + side, bottom=top + side)
    window = crop_window(face, 640, 480, CropOptions(margin=margin))
    assert window.width == window.height == side + 2 * round(side * margin)
    if window.width <= 480:
        assert window.left >= 0
        assert window.top >= 0
        assert window.right <= 640
        assert window.bottom <= 480


def test_clip_is_a_slice() -> None:
    face = Box(left=-10, top=400, right=90, bottom=500)
    assert crop_window(face, 640, 480, REFERENCE.crop) == Box(left=0, top=400, right=90, bottom=480)


def test_a_window_larger_than_the_frame_repeats_the_edge(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mp4").read_bytes()
    with decode(io.BytesIO(data), "first") as decoded:
        frame = next(decoded.frames)
    window = Box(left=-40, top=-80, right=360, bottom=320)
    crop = cut(frame, window, CropOptions(crop_size=400))
    assert (crop[80:320, 40:360] == frame.rgb()).all()
    assert (crop[:80, 40:360] == frame.rgb()[:1]).all()


def test_encodings() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    png = cv2.imdecode(np.frombuffer(encode(crop, "png"), np.uint8), cv2.IMREAD_COLOR)
    assert (png[:, :, ::-1] == crop).all()
    assert encode(crop, "jpeg").startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: CropOptions(crop_size=4), "crop size: got 4"),
        (lambda: CropOptions(margin=-1), "margin: got -1"),
        (lambda: FaceOptions(frames=0), "frames: got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(make: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()  # type: ignore[operator]


def test_the_digest_follows_every_option() -> None:
    base = FaceOptions()
    others = [
        replace(base, frames=3),
        replace(base, faces="all"),
        replace(base, crop=CropOptions(encoding="jpeg")),
        replace(base, detect=DetectOptions(detector="hog")),
        REFERENCE,
    ]
    assert len({options.digest() for options in [base, *others]}) == len(others) + 1


def face(left: int, top: int, side: int = 100) -> Detection:
    return Detection(box_px=Box(left=left, top=top, right=left + side, bottom=top + side), score=None)


def test_tracks_follow_faces_that_move_and_cross_frames() -> None:
    tracker = Tracker()
    assert tracker.assign([face(0, 0), face(500, 0)]) == [0, 1]
    assert tracker.assign([face(480, 20), face(30, 5)]) == [1, 0]
    assert tracker.assign([face(60, 0), face(250, 300)]) == [0, 2]
    assert tracker.assign([face(460, 0), face(60, 0, 300)]) == [1, 3]
