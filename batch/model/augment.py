"""Crops and draws in, augmented crops out: on the device, in `keras.ops` alone, the same on every backend.

The parts, in order: flip, rotation, zoom and shift as one warp; blur, and making smaller and large again, as one
matrix that multiplies rows and then columns; colour as one 3 x 4 matrix; noise from a hash of pixel and face, so that
no backend's generator is asked; cut-out. Compiled by `tf.function` or `jax.jit` with fixed shapes. TensorFlow has no
XLA kernel for the warp, so `jit_compile` is not for a function that holds this one.

CPU time an image of 224 x 224: in TensorFlow 3 ms for `reference`, 7 ms for `robust`; in JAX 12 ms for both, of which
the warp takes 11. A training step of Xception takes 400 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from keras import ops

from batch.model.draws import AFFINE, BLUR, COLOUR, CUT, DRAWS, NOISE, NOISE_SEED, SCALE, Recipe, draw, identity

__all__ = ["DRAWS", "Recipe", "apply", "augmentation", "contact_sheet", "draw", "identity"]

Tensor = Any
"""A tensor of whichever backend runs."""

_GREY = 127.5
# Four random bytes sum to a bell curve about 510 with this deviation: integers alone, so equal on both backends.
_BYTES_MEAN, _BYTES_SIGMA = 510.0, 147.80
# "lowbias32" (Wellons, "Prospecting for Hash Functions", 2018).
_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B))


def apply(images: Tensor, draws: Tensor, recipe: Recipe = "robust") -> Tensor:
    """Augments crops as `draws.draw` said: float32 of [0, 255] and the shape of `images`, (n, side, side, 3).

    `images` are uint8 or floats of [0, 255], RGB; `draws` float32 (n, DRAWS). What `recipe` never asks for is left
    out of the graph; it must be the recipe of the draws or a stronger one. Draws of `identity` change no pixel.
    """
    pixels = ops.cast(images, "float32")
    if recipe == "none":
        return pixels
    pixels = _warped(pixels, draws[:, AFFINE])
    if recipe == "robust":
        pixels = _filtered(pixels, draws[:, BLUR], draws[:, SCALE])
    pixels = _coloured(pixels, draws[:, COLOUR])
    if recipe == "robust":
        pixels = ops.clip(pixels, 0.0, 255.0) + _noise(pixels.shape[1], draws[:, NOISE], draws[:, NOISE_SEED])
        pixels = _cut_out(pixels, draws[:, CUT])
    return ops.clip(pixels, 0.0, 255.0)


def augmentation(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`apply` with this recipe, as `fit` takes it; None for `none`."""
    return None if recipe == "none" else partial(apply, recipe=recipe)


def contact_sheet(images: npt.NDArray[Any], columns: int = 8, tile_px: int = 128) -> bytes:
    """A PNG of all images (n, side, side, 3), values of [0, 255] in RGB, side by side in rows of `columns`."""
    if images.ndim != 4 or not len(images) or images.shape[3] != 3:
        raise ValueError(
            f"contact sheet: got images of shape {images.shape}, expected (n, side, side, 3), n at least 1"
        )
    pixels = np.clip(np.round(images), 0, 255).astype(np.uint8)
    rows = -(-len(pixels) // columns)
    sheet = np.full((rows * tile_px, columns * tile_px, 3), 255, np.uint8)
    shrinks = cv2.INTER_AREA if pixels.shape[1] >= tile_px else cv2.INTER_LINEAR
    for number, image in enumerate(pixels):
        top, left = number // columns * tile_px, number % columns * tile_px
        sheet[top : top + tile_px, left : left + tile_px] = cv2.resize(image, (tile_px, tile_px), interpolation=shrinks)
    return bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1])


def _warped(pixels: Tensor, affine: Tensor) -> Tensor:
    """Bilinear; beyond the border the picture is mirrored."""
    centre = (pixels.shape[1] - 1) / 2
    a, b, c, d, e, f = (affine[:, number] for number in range(6))
    side = pixels.shape[1]
    across = side * c + (centre - a * centre - b * centre)
    down = side * f + (centre - d * centre - e * centre)
    zero = ops.zeros_like(a)
    transform = ops.stack([a, b, across, d, e, down, zero, zero], axis=1)
    return ops.image.affine_transform(
        pixels, transform, interpolation="bilinear", fill_mode="reflect", data_format="channels_last"
    )


def _filtered(pixels: Tensor, blur: Tensor, scale: Tensor) -> Tensor:
    """Blurred, and made smaller and large again: both are one matrix (n, side, side), for rows as for columns."""
    side = pixels.shape[1]
    matrix = ops.matmul(_reduction(side, scale), _gaussian(side, blur))
    for _ in range(2):
        flat = ops.matmul(matrix, ops.reshape(pixels, (-1, side, side * 3)))
        pixels = ops.transpose(ops.reshape(flat, (-1, side, side, 3)), (0, 2, 1, 3))
    return pixels


def _gaussian(side: int, blur: Tensor) -> Tensor:
    """Rows that sum to 1; the identity where there is no blur."""
    places = np.arange(side, dtype=np.float32)
    squares = np.square(places[:, None] - places)[None]
    sigma = ops.reshape(ops.maximum(blur * side, 1e-2), (-1, 1, 1))
    weights = ops.exp(-0.5 * squares / ops.square(sigma))
    return weights / ops.sum(weights, axis=2, keepdims=True)


def _reduction(side: int, scale: Tensor) -> Tensor:
    """Means over the pixels of a smaller picture, read out with linear weights; the identity for a factor of 1."""
    places = np.arange(side, dtype=np.float32)
    small = ops.reshape(ops.round(side / scale), (-1, 1, 1))
    factor = side / small
    middle = (places[None, :, None] + 0.5) / factor - 0.5
    low = ops.floor(middle)
    share = middle - low

    def mean_over(pixel: Tensor) -> Tensor:
        kept = ops.minimum(ops.maximum(pixel, 0.0), small - 1)
        start = kept * factor
        common = ops.minimum(places[None, None] + 1, start + factor) - ops.maximum(places[None, None], start)
        return ops.maximum(common, 0.0) / factor

    return (1 - share) * mean_over(low) + share * mean_over(low + 1)


def _coloured(pixels: Tensor, colour: Tensor) -> Tensor:
    side = pixels.shape[1]
    matrix = ops.reshape(colour, (-1, 3, 4))
    turned = ops.matmul(ops.reshape(pixels, (-1, side * side, 3)), ops.transpose(matrix[:, :, :3], (0, 2, 1)))
    return ops.reshape(turned + 255.0 * ops.reshape(matrix[:, :, 3], (-1, 1, 3)), (-1, side, side, 3))


def _noise(side: int, sigma: Tensor, seed: Tensor) -> Tensor:
    """Bell-curved noise of each face's own sigma, shape (n, side, side, 3)."""
    numbers = np.arange(side * side * 3, dtype=np.uint32) * np.uint32(0x9E3779B1)
    hashed = ops.cast(seed, "uint32")[:, None] * np.uint32(0x85EBCA6B) + numbers[None]
    for shift, factor in _ROUNDS:
        hashed = ops.bitwise_xor(hashed, ops.right_shift(hashed, np.uint32(shift))) * np.uint32(factor)
    hashed = ops.bitwise_xor(hashed, ops.right_shift(hashed, np.uint32(16)))
    total = sum(
        ops.cast(ops.bitwise_and(ops.right_shift(hashed, np.uint32(shift)), np.uint32(255)), "float32")
        for shift in (0, 8, 16, 24)
    )
    return ops.reshape((total - _BYTES_MEAN) * (sigma / _BYTES_SIGMA)[:, None], (-1, side, side, 3))


def _cut_out(pixels: Tensor, cut: Tensor) -> Tensor:
    side = pixels.shape[1]
    places = (np.arange(side, dtype=np.float32) + 0.5) / side
    left, top, right, bottom = (cut[:, number : number + 1] for number in range(4))
    across = ops.logical_and(places[None] > left, places[None] < right)
    down = ops.logical_and(places[None] > top, places[None] < bottom)
    inside = ops.logical_and(down[:, :, None], across[:, None, :])
    return ops.where(inside[..., None], _GREY, pixels)
