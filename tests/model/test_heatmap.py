"""Heatmaps point at what a network of known weights looks at, on both backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from batch.model.heatmap import HeatMapper, overlay
from batch.model.network import NetworkOptions, build_network
from batch.model.predictor import Predictor
from tests.support.saved_bundle import crops

SIDE = 32


def looks_for_red(sign: float = 1.0) -> keras.Model:
    """Its logit is the mean redness, or minus that."""
    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    red = keras.layers.Conv2D(1, 4, strides=4, activation="relu", use_bias=False, name="red")
    hidden = keras.layers.GlobalAveragePooling2D()(red(keras.layers.Rescaling(1 / 255)(pixels)))
    logit = keras.layers.Dense(1, name="logit", use_bias=False)
    model = keras.Model(pixels, keras.layers.Activation("sigmoid", name="probability")(logit(hidden)))
    kernel = np.zeros((4, 4, 3, 1), np.float32)
    kernel[..., 0, 0], kernel[..., 1:, 0] = 1, -1
    red.set_weights([kernel])
    logit.set_weights([np.full((1, 1), sign, np.float32)])
    return model


def with_red_corner() -> np.ndarray:
    pictures = np.full((3, SIDE, SIDE, 3), 90, np.uint8)
    pictures[0, :8, :8] = (255, 0, 0)
    pictures[1, -8:, -8:] = (255, 0, 0)
    return pictures


def test_the_map_is_hot_where_the_evidence_is() -> None:
    heat = HeatMapper(looks_for_red())(with_red_corner(), batch_size=2)
    assert heat.maps.shape == (3, SIDE, SIDE)
    assert heat.cells == 8
    assert heat.maps[0, :6, :6].min() > 0.5
    assert heat.maps[0, 12:].max() == 0
    assert heat.maps[1, -6:, -6:].min() > 0.5
    assert heat.maps[1, :20].max() == 0
    assert not heat.maps[2].any(), "nothing there raises the score"


def test_what_lowers_the_score_is_left_out() -> None:
    assert not HeatMapper(looks_for_red(-1))(with_red_corner()).maps.any()


@pytest.mark.parametrize("features", ["last", "multi"])
def test_networks_of_training_give_maps_and_their_own_logits(features: str) -> None:
    keras.utils.set_random_seed(1)
    model = build_network(NetworkOptions(model="cnn", features=features, dense_units=(8,)), 64)
    pictures = crops(3, 64)
    heat = HeatMapper(model)(pictures, batch_size=2)
    assert heat.maps.shape == (3, 64, 64)
    assert heat.maps.min() == 0
    assert heat.maps.max() == 1
    np.testing.assert_allclose(heat.logits, Predictor(model, batch_size=3)(pictures), atol=1e-4)


@pytest.mark.parametrize(("features", "cells"), [("last", 3), ("multi", 12)])
def test_xception_gives_maps_and_its_own_logits(features: str, cells: int) -> None:
    keras.utils.set_random_seed(1)
    model = build_network(NetworkOptions(model="xception", weights="none", features=features), 96)
    pictures = crops(3, 96)
    pictures[0, :48] = 250
    # Random weights let logits vanish, and so much that all maps but those of the first picture would be empty.
    head, predict = model.get_layer("logit"), Predictor(model, batch_size=3)
    kernel, bias = head.get_weights()
    logits = predict(pictures)
    head.set_weights([np.abs(kernel) / np.abs(logits).max(), bias])
    heat = HeatMapper(model)(pictures, batch_size=2)
    assert heat.maps.shape == (3, 96, 96)
    assert heat.cells == cells
    assert (heat.maps.min(axis=(1, 2)) >= 0).all()
    assert (heat.maps.max(axis=(1, 2)) == 1).all()
    assert np.abs(heat.maps[0] - heat.maps[1]).mean() > 0.01
    np.testing.assert_allclose(heat.logits, predict(pictures), rtol=1e-3, atol=1e-4)


def test_no_crops_give_no_maps() -> None:
    heat = HeatMapper(looks_for_red())(np.zeros((0, SIDE, SIDE, 3), np.uint8))
    assert heat.maps.shape == (0, SIDE, SIDE)


def test_what_cannot_be_explained_is_refused() -> None:
    pixels = keras.Input((SIDE, SIDE, 3))
    flat = keras.Model(pixels, keras.layers.Dense(1, name="logit")(keras.layers.Flatten()(pixels)))
    HeatMapper(flat)
    with pytest.raises(ValueError, match=r"expected uint8 \(n, 32, 32, 3\)"):
        HeatMapper(flat)(np.zeros((1, 8, 8, 3), np.uint8))
    vector = keras.Input((SIDE, SIDE, 3))
    none = keras.Model(vector, keras.layers.Dense(1, name="logit")(vector))
    with pytest.raises(ValueError, match="no layer that pools feature maps"):
        HeatMapper(none)


def test_an_overlay_keeps_the_crop_where_it_is_cold() -> None:
    crop = crops(1, SIDE)[0]
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[:8] = 1
    shown = overlay(crop, heat)
    assert shown.dtype == np.uint8
    grey = crop[20:].astype(float) @ (0.299, 0.587, 0.114)
    assert np.corrcoef(shown[20:, :, 1].ravel(), grey.ravel())[0, 1] > 0.99
    assert shown[:8].mean() > shown[20:].mean(), "hot is bright"


@pytest.mark.slow
def test_the_other_backend_gives_the_same_maps(tmp_path: Path) -> None:
    other = "tensorflow" if keras.backend.backend() == "jax" else "jax"
    code = (
        "import sys; from tests.model.test_heatmap import *;"
        "np.save(sys.argv[1], HeatMapper(looks_for_red())(with_red_corner()).maps)"
    )
    environment = {**os.environ, "KERAS_BACKEND": other, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", code, tmp_path / "maps.npy"], env=environment, check=True)
    found = HeatMapper(looks_for_red())(with_red_corner()).maps
    np.testing.assert_allclose(np.load(tmp_path / "maps.npy"), found, atol=1e-5)
