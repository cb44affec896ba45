"""`--preset reference` beside the recipe itself, run with OpenCV and face_recognition on the same clips."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from batch.corpus.listing import list_videos
from batch.faces.extract import extract_video
from batch.faces.options import REFERENCE
from batch.records import Reason, VideoRef
from batch.storage.open import open_storage

SHARED = Path(__file__).parents[2].parent / "shared" / "corpus"


def recipe(path: Path) -> tuple[list[tuple[int, int, int, int]], np.ndarray | None]:
    """Boxes as (top, right, bottom, left) and, for one face, the 224 px crop in RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import face_recognition
    done, frame = cv2.VideoCapture(str(path)).read()
    assert done
    rgb = np.ascontiguousarray(frame[:, :, ::-1])
    boxes = face_recognition.face_locations(rgb)
    if len(boxes) != 1:
        return boxes, None
    top, right, bottom, left = boxes[0]
    return boxes, cv2.resize(rgb[top:bottom, left:right], (224, 224))


def compare(folder: Path, step: int) -> int:
    source = open_storage(str(folder))
    compared = 0
    for item in list(list_videos(source))[::step]:
        video = VideoRef(
            key=item.key, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id=item.key
        )
        result = extract_video(source, video, REFERENCE)
        if result.reason.is_fault:
            continue
        boxes, expected = recipe(folder / item.key)
        assert result.faces_found == len(boxes), item.key
        assert (result.reason is Reason.KEPT) == (expected is not None)
        if expected is None:
            continue
        box = result.faces[0].face_box_px
        assert [(box.top, box.right, box.bottom, box.left)] == boxes
        crop = cv2.imdecode(np.frombuffer(result.faces[0].image, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        # Stated tolerance: none for untagged colours, which is what nearly all clips have.
        assert (crop == expected).all(), item.key
        compared += 1
    return compared


@pytest.mark.slow
def test_drawn_clips_give_the_recipe_s_crops(drawn_corpus: Path) -> None:
    assert compare(drawn_corpus, 2) >= 10


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/corpus is absent")
def test_real_clips_give_the_recipe_s_crops() -> None:
    assert compare(SHARED, 9) >= 3
