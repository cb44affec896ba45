"""A bundle made on the spot: a small network with random weights, seeded, in the form that training writes."""

from typing import Any

import numpy as np

from batch.faces.options import CropOptions, FaceOptions
from batch.model.aggregate import Aggregation
from batch.model.bundle import Bundle, save_bundle
from batch.model.calibration import Calibration
from batch.model.golden import golden_images
from batch.model.manifest import Manifest
from batch.model.network import NetworkOptions, build_network
from batch.model.thresholds import Thresholds
from batch.storage.base import Storage


def settled(network: Any) -> Any:
    """The network with BatchNorm's statistics taken from golden inputs: else values vanish from layer to layer, down to
    denormal ones, which cost processors many times the time."""
    import keras

    backbone = network.get_layer("backbone")
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        network(golden_images(network.input_shape[1]).astype(np.float32), training=True)
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum
    return network


def made_bundle(sink: Storage, *, seed: int = 0, side: int = 64, model: str = "cnn", prefix: str = "") -> Bundle:
    """Equal seeds give equal bundles; scores spread around one half and mean nothing."""
    import keras

    keras.utils.set_random_seed(seed)
    network = settled(build_network(NetworkOptions(model=model, weights="none"), side))
    kernel, bias = network.get_layer("logit").get_weights()
    network.get_layer("logit").set_weights([kernel * 4, np.zeros_like(bias)])
    manifest = Manifest(
        name=model,
        face_options=FaceOptions(crop=CropOptions(crop_size=side)),
        calibration=Calibration(kind="temperature", temperature=1.5),
        aggregation=Aggregation(),
        thresholds=Thresholds(),
        data_digest="0" * 16,
        split_digest="0" * 16,
    )
    return save_bundle(sink, network, manifest, prefix=prefix)
