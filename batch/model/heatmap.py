"""A network and crops in, maps of what raised their scores out: Grad-CAM on the last maps before pooling.

Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) weighs each feature map with the mean gradient of
the output over that map, adds them up and keeps what is positive: where the network saw what speaks for "fake". Where
several depths are pooled (`--features multi`), each depth's map is scaled to its share of the logit and they are added.
The maps are coarse, 7 x 7 cells for a crop of 224 px under Xception: they show where, not what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt

from batch.model.predictor import full_float32, logits_model

Maps = npt.NDArray[np.float32]

_RANK = 4
"""Of feature maps: pictures, rows, columns, channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What speaks for "fake" in some crops."""

    maps: Maps
    """Shape (n, side, side), 0 to 1: shares of each crop's own largest value; all 0 where nothing raised the score."""
    logits: npt.NDArray[np.float32]
    """Of the crops, shape (n,)."""
    cells: int
    """Rows of the finest feature maps: what the maps resolve."""


class HeatMapper:
    """A network, split once where its feature maps are pooled."""

    def __init__(self, model: keras.Model) -> None:
        """Takes a network with a layer `logit`, on TensorFlow or JAX.

        Raises:
            ValueError: for a network that pools no feature maps, or another backend.
        """
        if keras.backend.backend() not in {"tensorflow", "jax"}:
            raise ValueError(f"heatmap: got the backend {keras.backend.backend()}, expected tensorflow or jax")
        whole = logits_model(model)
        pooled = [layer.input for layer in whole.layers if _pools(layer)]
        if not pooled:
            raise ValueError(f"heatmap: {model.name} has no layer that pools feature maps, expected one or more")
        self._side = int(model.input_shape[1])
        # Keras gives and takes one tensor bare, several as a list.
        self._below = keras.Model(whole.inputs[0], pooled if len(pooled) > 1 else pooled[0])
        self._above = keras.Model(pooled if len(pooled) > 1 else pooled[0], whole.output)
        self._cells = max(int(each.shape[1]) for each in pooled)

    def __call__(self, crops: npt.NDArray[np.uint8], *, batch_size: int = 8) -> Heat:
        """Maps of crops, RGB, uint8 (n, side, side, 3).

        Raises:
            ValueError: for crops of another shape.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self._side, self._side, 3):
            raise ValueError(
                f"heatmap: got {crops.dtype} {crops.shape}, expected uint8 (n, {self._side}, {self._side}, 3)"
            )
        parts = [self._batch(crops[start : start + batch_size]) for start in range(0, len(crops), batch_size)]
        return Heat(
            maps=np.concatenate([maps for maps, _ in parts]) if parts else np.zeros(crops.shape[:3], np.float32),
            logits=np.concatenate([logits for _, logits in parts]) if parts else np.zeros(0, np.float32),
            cells=self._cells,
        )

    def _batch(self, crops: npt.NDArray[np.uint8]) -> tuple[Maps, npt.NDArray[np.float32]]:
        with full_float32("float32"):
            features = self._below(crops.astype(np.float32), training=False)
            logits, gradients = _gradients(self._above, features)
        raised = np.zeros((len(crops), self._side, self._side), np.float32)
        for maps, slopes in zip(_as_list(features), _as_list(gradients), strict=True):
            # Summed over places, not averaged: a cell's value is then its share of the logit, whatever the depth.
            weights = np.asarray(slopes, np.float32).sum(axis=(1, 2), keepdims=True)
            cells = (np.asarray(maps, np.float32) * weights).sum(axis=-1)
            raised += np.stack([cv2.resize(each, (self._side, self._side)) for each in cells])
        raised = np.maximum(raised, 0)
        tops = raised.max(axis=(1, 2), keepdims=True)
        return np.divide(raised, tops, out=np.zeros_like(raised), where=tops > 0), logits


def _gradients(above: keras.Model, features: Any) -> tuple[npt.NDArray[np.float32], Any]:
    """Logits, shape (n,), and their gradients by each of the feature maps."""
    if keras.backend.backend() == "jax":
        import jax

        trainable = [variable.value for variable in above.trainable_variables]
        others = [variable.value for variable in above.non_trainable_variables]

        def total(maps: Any) -> tuple[Any, Any]:
            found, _ = above.stateless_call(trainable, others, maps, training=False)
            return found.sum(), found

        slopes, logits = jax.grad(total, has_aux=True)(features)
        return np.asarray(logits, np.float32).reshape(-1), slopes
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = above(features, training=False)
        total_logit = tf.reduce_sum(logits)
    return np.asarray(logits, np.float32).reshape(-1), tape.gradient(total_logit, features)


def _pools(layer: keras.Layer) -> bool:
    """Whether a layer turns feature maps into features."""
    one = not isinstance(layer.input, list) and not isinstance(layer.output, list)
    return one and len(layer.input.shape) == _RANK and len(layer.output.shape) < _RANK


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def overlay(crop: npt.NDArray[np.uint8], heat: Maps) -> npt.NDArray[np.uint8]:
    """A crop in grey under its map in colour, RGB, uint8 (side, side, 3): the hotter, the less of the crop is seen.

    Args:
        crop: RGB, uint8 (side, side, 3).
        heat: 0 to 1, float32 (side, side).
    """
    grey = np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    steps = np.clip(heat * 255, 0, 255).astype(np.uint8)
    # Inferno: brightness rises with heat, so that the order is seen without telling colours apart.
    coloured = cv2.cvtColor(cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.float32)
    share = (0.15 + 0.55 * heat)[..., None]
    mixed: npt.NDArray[np.float32] = grey * (1 - share) + coloured * share
    return np.clip(mixed, 0, 255).astype(np.uint8)
