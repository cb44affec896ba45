"""The network: a backbone, the head on top of it, and what of both is trained in which stage.

In: `NetworkOptions` and the side of the crops. Out: a `keras.Model` of built-in layers alone, so that its `.keras` file
loads in safe mode, from pixels (0 to 255, uint8 or float32) to the probability of fake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from batch.model.backbones import NETWORKS, build_base

if TYPE_CHECKING:
    import keras

Stage = Literal["head", "whole"]
"""`head`: a frozen pretrained backbone under new layers. `whole`: the backbone too, or its last blocks."""
STANDARDIZE = "standardize"
"""The layer that brings joined features of several depths to one scale; see `fit.standardize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network."""

    model: str = "xception"
    """`xception`, `cnn`, or another name of `NETWORKS`."""
    weights: str = "auto"
    """Weights of the backbone: `imagenet`, `none`, a file, or `auto`: imagenet where there are such weights."""
    features: Literal["last", "multi"] = "last"
    """Pooled features of the last layer alone, or of layers at several depths: far better on a frozen backbone."""
    dense_units: tuple[int, ...] = ()
    """Sizes of dense layers between the features and the sigmoid."""
    dropout: float = 0.0
    """Share of values dropped before each dense layer and before the sigmoid, 0 to below 1."""
    precision: Literal["auto", "float32", "mixed"] = "auto"
    """`mixed`: bfloat16 arithmetic on float32 weights. `auto`: mixed where a GPU knows bfloat16."""
    norms: Literal["frozen", "trained"] = "frozen"
    """BatchNorm of a pretrained backbone: `frozen` as it came, or `trained` with the layers about it in the second
    stage, on the faces of the global batch. That of a network without pretrained weights is always trained."""

    def __post_init__(self) -> None:
        if self.model not in NETWORKS:
            raise ValueError(f"unknown model: received {self.model!r}, expected one of {', '.join(sorted(NETWORKS))}")
        if self.weights == "imagenet" and not NETWORKS[self.model].has_imagenet:
            raise ValueError(f"{self.model} has no ImageNet weights: received 'imagenet', expected 'none' or a file")
        if self.features not in ("last", "multi"):
            raise ValueError(f"unknown features: received {self.features!r}, expected 'last' or 'multi'")
        if self.features == "multi" and not NETWORKS[self.model].taps:
            raise ValueError(
                f"features: received 'multi', expected 'last': no layers to join are named for {self.model}"
            )
        if any(units < 1 for units in self.dense_units):
            raise ValueError(f"bad dense_units: received {self.dense_units}, expected whole numbers of 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"bad dropout: received {self.dropout}, expected 0 to below 1")
        if self.norms not in ("frozen", "trained"):
            raise ValueError(f"unknown norms: received {self.norms!r}, expected 'frozen' or 'trained'")
        if self.precision not in ("auto", "float32", "mixed"):
            raise ValueError(f"unknown precision: received {self.precision!r}, expected auto, float32 or mixed")

    @property
    def source_of_weights(self) -> str:
        """`imagenet`, `none` or a file: `auto` resolved."""
        if self.weights == "auto":
            return "imagenet" if NETWORKS[self.model].has_imagenet else "none"
        return self.weights

    @property
    def standardizes(self) -> bool:
        """True if features of several depths come from weights that mean something, and are brought to one scale."""
        return self.features == "multi" and self.pretrained

    @property
    def pretrained(self) -> bool:
        """True if the backbone starts from weights: there is a head stage then."""
        return self.source_of_weights != "none"

    @property
    def trains_norms(self) -> bool:
        """True if the backbone's BatchNorm learns in the second stage."""
        return self.norms == "trained" or not self.pretrained


def build_network(options: NetworkOptions, side: int) -> keras.Model:
    """From pixels of shape (n, side, side, 3), 0 to 255, to `probability`, float32 (n, 1); its input layer is `logit`.

    Raises ValueError for a side too small, a weights file of another network, and a download that failed.
    """
    import keras

    architecture = NETWORKS[options.model]
    if side < architecture.smallest_side:
        raise ValueError(f"crops too small: received {side} px, {options.model} expects {architecture.smallest_side}")
    with _precision(options.precision):
        backbone = _backbone(options, side)
        pixels = keras.Input((side, side, 3), name="pixels", dtype="float32")
        # In float32: bfloat16 holds whole numbers up to 256 alone, and augmented pixels are fractions.
        how = architecture.scaling
        scaled = keras.layers.Rescaling(how.scale, how.offset, dtype="float32", name="scale")(pixels)
        maps = backbone(keras.ops.flip(scaled, axis=-1) if how.bgr else scaled)
        pooled = [keras.layers.GlobalAveragePooling2D(name=f"pool{i}")(m) for i, m in enumerate(_as_list(maps))]
        hidden = pooled[0] if len(pooled) == 1 else _standardized(keras.layers.Concatenate(name="join")(pooled))
        for number, units in enumerate(options.dense_units):
            hidden = _dropped(hidden, options.dropout, f"dropout{number}")
            hidden = keras.layers.Dense(units, activation="relu", name=f"dense{number}")(hidden)
        hidden = _dropped(hidden, options.dropout, "dropout")
        logit = keras.layers.Dense(1, dtype="float32", name="logit")(hidden)
        probability = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(logit)
        return keras.Model(pixels, probability, name=options.model)


def _standardized(features: Any) -> Any:
    """As they are, until `fit` sets mean and variance, which nothing trains."""
    import keras

    # Deviations are 0.04 and more; a feature that was 0 in all faces looked at must not be blown up when it comes.
    return keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-4, trainable=False, dtype="float32", name=STANDARDIZE
    )(features)


def logits_of(model: keras.Model) -> keras.Model:
    """The same network, variables shared, that ends with the log-odds, float32 (n, 1)."""
    import keras

    return keras.Model(model.input, model.get_layer("logit").output, name=f"{model.name}_logits")


def set_trainable(model: keras.Model, stage: Stage, options: NetworkOptions, unfreeze: Literal["whole"] | int) -> None:
    """Mark what the stage trains. BatchNorm of a pretrained backbone stays frozen in both, unless `trains_norms`.

    `training=False` in the graph is not enough for that: Keras overrides it by the argument of the outer call.
    Raises ValueError if the backbone has no (or fewer) named blocks to count from the end.
    """
    import keras

    backbone = model.get_layer("backbone")
    backbone.trainable = stage == "whole"
    # Looked for before the head's epochs, too: a wrong number would show after them. A head on features has no blocks.
    names = [layer.name for layer in getattr(backbone, "layers", [])]
    first = 0 if unfreeze == "whole" or not names else _first_of_last_blocks(names, unfreeze)
    if stage == "head":
        return
    for place, layer in enumerate(backbone.layers):
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place >= first and (options.trains_norms or not norm)


def check_network(options: NetworkOptions, side: int, unfreeze: Literal["whole"] | int) -> None:
    """Builds the network to see that it can be: with its weights, and with as many blocks as `unfreeze` says.

    Raises ValueError as `build_network` and `set_trainable` do.
    """
    set_trainable(build_network(options, side), "head", options, unfreeze)


def _first_of_last_blocks(names: list[str], count: int) -> int:
    """Place of the first layer that belongs to the last `count` blocks; blocks are told by names like `block12_...`."""
    blocks: dict[str, int] = {}
    for place, name in enumerate(names):
        if found := re.match(r"(.*?block\d+[a-z]?)_", name):
            blocks.setdefault(found[1], place)
    if not 1 <= count <= len(blocks):
        raise ValueError(
            f"bad unfreeze: received {count}, expected 'whole' or 1 to {len(blocks)} (the network's blocks)"
        )
    return sorted(blocks.values())[-count]


def _backbone(options: NetworkOptions, side: int) -> keras.Model:
    """The convolutional part, with the outputs that the head pools."""
    import keras

    architecture = NETWORKS[options.model]
    base = build_base(options.model, options.source_of_weights, side)
    taps = [base.get_layer(name).output for name in architecture.taps] if options.features == "multi" else [base.output]
    return keras.Model(base.input, taps if len(taps) > 1 else taps[0], name="backbone")


@contextmanager
def _precision(precision: Literal["auto", "float32", "mixed"]) -> Iterator[None]:
    """Layers made inside compute in this precision; their variables are float32 always."""
    import keras

    before = keras.config.dtype_policy()
    mixed = precision == "mixed" or (precision == "auto" and device_has_bfloat16())
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def gpu_names() -> list[str]:
    """Of this process's GPUs, as Keras' backend calls them; empty without one."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return [str(device.device_kind) for device in jax.local_devices() if device.platform != "cpu"]
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [str(details(gpu).get("device_name", "GPU")) for gpu in tf.config.list_physical_devices("GPU")]


def device_name() -> str:
    """What this process computes on: its first GPU, or so many cores."""
    return next(iter(gpu_names()), f"{os.cpu_count()} CPU cores")


def device_has_bfloat16() -> bool:
    """True if each GPU here is of compute capability 8.0 (Ampere) or later; False without a GPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        devices = [device for device in jax.local_devices() if device.platform == "gpu"]
        versions = [float(device.compute_capability) for device in devices]
    else:
        import tensorflow

        details = tensorflow.config.experimental.get_device_details
        found = [details(device) for device in tensorflow.config.list_physical_devices("GPU")]
        versions = [float(detail.get("compute_capability", (0, 0))[0]) for detail in found]
    return bool(versions) and min(versions) >= 8


def _dropped(hidden: Any, rate: float, name: str) -> Any:
    """The tensor after dropout, or itself."""
    import keras

    return keras.layers.Dropout(rate, name=name)(hidden) if rate else hidden


def _as_list(value: Any) -> list[Any]:
    """A model's outputs: Keras gives one output bare, several as a list."""
    return value if isinstance(value, list) else [value]
