"""Augmentation on the device: the same on both backends, and each part does what its draw says."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batch.model import augment
from batch.model.draws import AFFINE, BLUR, COLOUR, CUT, NOISE, NOISE_SEED, SCALE
from tests.support.drawn_face import scene

ROOT = Path(__file__).resolve().parents[2]
SIDE = 96


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([scene(SIDE, SIDE, [(48, 48, 60)], seed=seed) for seed in range(12)])


def applied(images: np.ndarray, recipe: augment.Recipe = "robust", **columns: Any) -> np.ndarray:
    """Augmented with the identity but for some columns."""
    draws = augment.identity(len(images))
    for name, value in columns.items():
        draws[:, {"affine": AFFINE, "colour": COLOUR, "cut": CUT, "blur": BLUR, "scale": SCALE}.get(name, NOISE)] = (
            value
        )
    return np.asarray(augment.apply(images, draws, recipe))


def on_backend(backend: str, given: Path) -> dict[str, np.ndarray]:
    out = given.with_name(f"{backend}.npz")
    script = ROOT / "tests" / "support" / "augment_backend.py"
    environment = os.environ | {
        "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    subprocess.run([sys.executable, str(script), str(given), str(out)], env=environment, check=True)
    return dict(np.load(out))


def test_backends_give_equal_pixels(images: np.ndarray, tmp_path: Path) -> None:
    rows = np.arange(len(images))
    robust = augment.draw("robust", 3, 1, rows)
    robust[:, NOISE] = np.maximum(robust[:, NOISE], 2)  # every part at work in some face, noise in all
    given = tmp_path / "given.npz"
    np.savez(given, images=images, draws=robust, reference=augment.draw("reference", 3, 1, rows))
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(on_backend, ("tensorflow", "jax"), (given, given))
    for name in ("robust", "reference"):
        assert one[name].dtype == np.float32
        assert one[name].shape == images.shape
        np.testing.assert_allclose(one[name], two[name], atol=0.02)
        assert np.abs(one[name] - images).mean(axis=(1, 2, 3)).min() > 1, "every face is changed"
        assert one[name].min() >= 0
        assert one[name].max() <= 255
    for found in (one, two):
        assert np.array_equal(found["same"], images), "identity draws change no pixel"


def test_none_changes_nothing(images: np.ndarray) -> None:
    draws = augment.draw("robust", 3, 1, np.arange(len(images)))
    assert np.array_equal(np.asarray(augment.apply(images, draws, "none")), images)


def test_flip_and_shift(images: np.ndarray) -> None:
    flipped = applied(images, affine=[-1, 0, 0, 0, 1, 0])
    np.testing.assert_allclose(flipped, images[:, :, ::-1], atol=1e-2)
    moved = applied(images, affine=[1, 0, 6 / SIDE, 0, 1, -3 / SIDE])
    np.testing.assert_allclose(moved[:, 3:, :-6], images[:, :-3, 6:], atol=1e-2)


def test_rotation_is_about_the_centre(images: np.ndarray) -> None:
    turn = np.deg2rad(10)
    turned = applied(images, affine=[np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0])
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), 10, 1)
    inside = slice(16, -16)
    for found, image in zip(turned, images, strict=True):
        expected = cv2.warpAffine(image.astype(np.float32), matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        assert np.abs(found - expected)[inside, inside].mean() < 0.3


def test_blur_is_gaussian(images: np.ndarray) -> None:
    blurred = applied(images, blur=2 / SIDE)
    for found, image in zip(blurred, images, strict=True):
        expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2)
        assert np.abs(found - expected)[12:-12, 12:-12].max() < 1


def test_scaling_loses_detail_and_keeps_brightness(images: np.ndarray) -> None:
    reduced = applied(images, scale=3)
    for found, image in zip(reduced, images, strict=True):
        small = cv2.resize(image.astype(np.float32), (SIDE // 3, SIDE // 3), interpolation=cv2.INTER_AREA)
        expected = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        assert np.abs(found - expected).max() < 0.1


def test_colour_matrix(images: np.ndarray) -> None:
    swapped = applied(images, colour=[0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0.1])
    expected = np.clip(images[..., [1, 0, 2]] + np.array([0, 0, 25.5]), 0, 255)
    np.testing.assert_allclose(swapped, expected, atol=1e-2)


def test_noise_has_its_sigma_and_its_seed(images: np.ndarray) -> None:
    grey = np.full((3, SIDE, SIDE, 3), 128, np.uint8)
    draws = augment.identity(3)
    draws[:, NOISE], draws[:, NOISE_SEED] = [5, 5, 0], [1, 2**24 - 1, 3]
    noise = np.asarray(augment.apply(grey, draws)) - 128
    assert noise[:2].std(axis=(1, 2, 3)) == pytest.approx([5, 5], rel=0.03)
    assert np.abs(noise[:2].mean(axis=(1, 2, 3))).max() < 0.15
    assert not noise[2].any()
    channels = noise[0].reshape(-1, 3)
    pairs = [(noise[0], noise[1]), (noise[0][:, 1:], noise[0][:, :-1]), (noise[0][1:], noise[0][:-1])]
    for one, two in [*pairs, (channels[:, 0], channels[:, 1])]:
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.03


def test_cut_out(images: np.ndarray) -> None:
    cut = applied(images, cut=[0.25, 0.5, 0.5, 0.75])
    assert (cut[:, 48:72, 24:48] == 127.5).all()
    around = np.ones((SIDE, SIDE), bool)
    around[48:72, 24:48] = False
    assert np.array_equal(cut[:, around], images[:, around])


def test_contact_sheet_shows_all(images: np.ndarray) -> None:
    sheet = cv2.imdecode(np.frombuffer(augment.contact_sheet(images, 5, tile_px=SIDE), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert sheet.shape == (3 * SIDE, 5 * SIDE, 3)
    assert np.array_equal(sheet[SIDE : 2 * SIDE, :SIDE], images[5])
    with pytest.raises(ValueError, match="expected"):
        augment.contact_sheet(images[:0])
