"""Landmarks and the fakes made along them: found on drawn faces, blended within the face, the same every time."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from batch.model.calibration import NO_CALIBRATION
from batch.model.evaluation import evaluate_predictions
from batch.model.fit.feed import ReaderFeed
from batch.model.fit.loop import fit
from batch.model.fit.options import FitOptions
from batch.model.judgement import fit_judgement, predictions_table
from batch.model.landmarks import (
    KEY,
    LANDMARKS,
    Found,
    LandmarkNet,
    Landmarks,
    read_landmarks,
    trusted,
    write_landmarks,
)  # fmt: skip
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions, lacks_fakes, plan_epoch, plan_scan
from batch.model.reader import FaceReader
from batch.model.records import UNUSED
from batch.model.self_blended import BlendOptions, hull, self_blend
from batch.storage.local import LocalStorage
from tests.support.drawn_face import scene
from tests.support.face_shards import write_index

SIDE = 224
EYES = (slice(33, 34), slice(263, 264))
OPTIONS = DataOptions(batch_size=4, augment="none", synthetic="self-blended", seed=2)


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [scene(SIDE, SIDE, [(112, 120, 130)], seed=seed) for seed in range(6)]


@pytest.fixture(scope="module")
def found(faces: list[np.ndarray]) -> list[Found]:
    net = LandmarkNet()
    return [net.find(face) for face in faces]


def inside(points: np.ndarray, corners: np.ndarray, slack: float) -> bool:
    """Whether all points lie in the outline, or so near to it."""
    return all(cv2.pointPolygonTest(corners, (float(x), float(y)), True) >= -slack for x, y in points)


def test_landmarks_follow_the_face(faces: list[np.ndarray], found: list[Found]) -> None:
    net = LandmarkNet()
    for face, here in zip(faces, found, strict=True):
        assert here.points.shape == (LANDMARKS, 2)
        assert trusted(here)
        right, left = here.points[33], here.points[263]
        assert right[0] < 0.5 < left[0], "the person's right eye is on the left"
        assert abs(right[1] - left[1]) < 0.03
        assert here.points[152][1] > here.points[1][1] > right[1], "chin, nose, eyes"
        mirrored = net.find(np.ascontiguousarray(face[:, ::-1]))
        assert abs(1 - mirrored.points[263][0] - right[0]) < 0.03
        matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 15, 1)
        turned = net.find(cv2.warpAffine(face, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT))
        expected = here.points @ matrix[:, :2].T + matrix[:, 2] / SIDE
        assert np.abs(turned.points - expected).mean() < 0.03


def test_no_face_is_not_trusted() -> None:
    flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert not trusted(LandmarkNet().find(flat))
    corners = hull(LandmarkNet().find(flat), "face")
    assert corners.min() > 0
    assert corners.max() < 1, "an ellipse in the middle stands for the face"


def test_hulls_lie_within_the_face(found: list[Found]) -> None:
    for here in found:
        areas = {}
        for kind in ("face", "below_brows", "features", "below_eyes"):
            corners = hull(here, kind)
            assert inside(corners, hull(here, "face"), 1e-4)
            areas[kind] = cv2.contourArea(corners)
            holds_eyes = all(inside(here.points[eye], corners, 0) for eye in EYES)
            assert holds_eyes == (kind != "below_eyes")
        assert areas["face"] > areas["below_brows"] > areas["below_eyes"] > 0.05


def test_a_blend_repeats_and_differs(faces: list[np.ndarray], found: list[Found]) -> None:
    first, again, other = (self_blend(faces[0], found[0], np.random.default_rng([1, 2, seed])) for seed in (3, 3, 4))
    assert first.dtype == np.uint8
    assert first.shape == faces[0].shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fake_differs_from_its_face_across_a_border(faces: list[np.ndarray], found: list[Found]) -> None:
    """The inner copy is changed and the surroundings are as they were, or the surroundings more than the middle."""
    still = BlendOptions(tint_levels=0, saturation=0, contrast=0, shift=(0, 0), scale=0)
    inner = 0
    for seed in range(40):
        face, here = faces[seed % 6], found[seed % 6]
        change = self_blend(face, here, np.random.default_rng(seed), still).astype(int) - face
        outline = np.round(hull(here, "face") * (SIDE - 1)).astype(np.int32)
        around = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), outline, 1)
        around = change[cv2.dilate(around, np.ones((81, 81))) == 0]
        x, y = (here.points[[4, 0]].mean(axis=0) * SIDE).astype(int)  # between nose and mouth: in hulls of all kinds
        middle = change[y - 4 : y + 5, x - 4 : x + 5]
        if around.any():
            assert abs(middle.mean()) < abs(around.mean()) + 3
        else:
            assert middle.any()
            inner += 1
    assert 10 < inner < 30


def test_eyes_stay_where_they_are(faces: list[np.ndarray], found: list[Found]) -> None:
    net = LandmarkNet()
    for seed in range(12):
        face, here = faces[seed % 6], found[seed % 6]
        fake = net.find(self_blend(face, here, np.random.default_rng(seed)))
        assert trusted(fake)
        assert np.abs(fake.points[[33, 133, 263, 362]] - here.points[[33, 133, 263, 362]]).max() < 0.06


def test_reader_gives_each_face_and_its_fake(faces: list[np.ndarray], tmp_path: Path) -> None:
    index = write_index(LocalStorage(tmp_path / "faces"), [[0, 1, 0], [0, 0, 1]], side=SIDE, crops=faces)
    plan = plan_epoch(index, np.arange(6), OPTIONS, 1)
    seen = {}
    with FaceReader(index, OPTIONS) as reader:
        for batch in reader.batches(plan, 1, training=True):
            for row, label, image in zip(batch.rows, batch.labels, batch.images, strict=True):
                if row != UNUSED:
                    seen[int(row), int(label)] = image.copy()
        assert len(reader.landmarks) == 4
        shown = reader.images(np.array([2, 2]), np.array([False, True]))
        scanned = next(reader.batches(plan_scan(index, np.array([2]), 2, blended=True), 0, training=False))
        assert np.array_equal(shown, scanned.images)
        write_landmarks(LocalStorage(tmp_path / "out"), [reader.landmarks.to_table()])
    assert sorted(seen) == [(row, label) for row in (0, 2, 3, 4) for label in (0, 1)]
    for (row, label), image in seen.items():
        assert np.array_equal(image, faces[row]) == (label == 0)

    kept = read_landmarks(LocalStorage(tmp_path / "out"), index)
    assert len(kept) == 4
    with FaceReader(index, OPTIONS, 1, 2, landmarks=kept) as reader:
        for batch in reader.batches(plan, 1, training=True):
            for row, label, image in zip(batch.rows, batch.labels, batch.images, strict=True):
                assert row == UNUSED or np.array_equal(image, seen[int(row), int(label)])
    assert kept.to_table().equals(reader.landmarks.to_table())


def test_without_any_fake_a_network_is_judged_by_fakes_of_the_held_out_faces(
    faces: list[np.ndarray], tmp_path: Path
) -> None:
    index = write_index(LocalStorage(tmp_path), [[0, 0, 0], [0, 0, 0]], side=SIDE, crops=faces)
    train, held_out = np.arange(3), np.arange(3, 6)
    with FaceReader(index, OPTIONS) as reader:
        feed = ReaderFeed(reader, index, train, held_out, OPTIONS)
        passes = [list(feed.validation().batches(0)) for _ in range(2)]  # type: ignore[union-attr]
        result = fit(NetworkOptions(model="cnn"), feed, FitOptions(epochs=1))
        found = result.score(feed.scan(held_out))
        assert feed.lacks_fakes(held_out)
    for mine, theirs in zip(*passes, strict=True):
        np.testing.assert_array_equal(mine.images, theirs.images)  # the same fakes in each epoch
    assert set(result.history[0].validation) == {"loss", "accuracy", "auc"}
    assert found.scores.rows.tolist() == [3, 3, 4, 4, 5, 5]
    assert found.labels.tolist() == [0, 1] * 3
    scores = replace(found.scores, made=found.labels == 1)
    groups = pa.array([f"g{row}" for row in range(6)])
    table = predictions_table(index, scores, NO_CALIBRATION, groups=groups)
    uris = index.table["video_uri"].to_pylist()
    assert table["label"].to_pylist() == [0, 1] * 3
    assert table["group"].to_pylist() == ["g3", "g3", "g4", "g4", "g5", "g5"]
    assert table["video_uri"].to_pylist()[:2] == [uris[3], f"{uris[3]}#self-blended"]
    judgement = fit_judgement(table)
    told = evaluate_predictions(table, name="test", aggregation=judgement.aggregation, thresholds=judgement.thresholds)
    assert (told.videos.real, told.videos.fake) == (3, 3)


def test_fakes_of_the_corpus_are_what_it_is_judged_by_where_there_are_some(
    faces: list[np.ndarray], tmp_path: Path
) -> None:
    index = write_index(LocalStorage(tmp_path), [[0, 0, 0], [0, 1, 0]], side=SIDE, crops=faces)
    assert not lacks_fakes(index, np.arange(3, 6), OPTIONS)
    assert not lacks_fakes(index, np.arange(3), replace(OPTIONS, synthetic="none"))
    with pytest.raises(ValueError, match="self-blended scan: got batches of 3, expected even ones"):
        plan_scan(index, np.arange(3), 3, blended=True)
    with pytest.raises(ValueError, match="of real faces alone"):
        plan_scan(index, np.arange(6), 4, blended=True)


def test_landmarks_of_another_schema_are_refused(faces: list[np.ndarray], tmp_path: Path) -> None:
    index = write_index(LocalStorage(tmp_path), [[0, 1]], side=SIDE, crops=faces)
    assert not len(read_landmarks(LocalStorage(tmp_path), index)), f"no {KEY} yet"
    assert Landmarks(index).to_table().num_rows == 0
    with pytest.raises(ValueError, match="schema missing, expected landmarks/1"):
        Landmarks(index).add(pa.table({"face": ["a"]}))
