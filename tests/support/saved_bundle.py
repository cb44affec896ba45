"""A small real bundle: an untrained network of three layers, judged on made-up validation predictions."""

import numpy as np

from batch.faces.options import CropOptions, FaceOptions
from batch.model.bundle import Bundle, save_bundle
from batch.model.judgement import Judgement, fit_judgement
from batch.model.manifest import Manifest
from batch.storage.base import Storage
from tests.support.predicted import predictions

SIDE = 32


def network(side: int = SIDE, seed: int = 3):
    """Convolution, pooling, logit, probability; built-in layers alone, weights by seed."""
    import keras

    keras.utils.set_random_seed(seed)
    pixels = keras.Input((side, side, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(pixels)
    hidden = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(hidden)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    logit = keras.layers.Dense(1, name="logit", kernel_initializer=keras.initializers.RandomNormal(0, 3))(hidden)
    return keras.Model(pixels, keras.layers.Activation("sigmoid", name="probability")(logit))


def manifest(judged: Judgement | None = None, side: int = SIDE) -> Manifest:
    """With all that training fills in."""
    fitted = judged or fit_judgement(predictions(groups=40, seed=5, split="validation"))
    return Manifest(
        name="cnn", face_options=FaceOptions(frames=4, crop=CropOptions(crop_size=side)),
        calibration=fitted.calibration, aggregation=fitted.aggregation, thresholds=fitted.thresholds,
        data_digest="d" * 16, split_digest="5" * 16, versions={"keras": "3"}, training={"fit": {"epochs": 3}},
        metrics={"test": {"videos": {"auc": [0.9, 0.8, 0.95]}}},
    )  # fmt: skip


def saved(sink: Storage, prefix: str = "", judged: Judgement | None = None) -> Bundle:
    """Written under a store."""
    return save_bundle(sink, network(), manifest(judged), prefix=prefix, extras={"train_groups.json": b'["a"]'})


def crops(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Noise in the shape of crops."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
