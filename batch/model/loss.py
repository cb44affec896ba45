"""The loss, written once in `keras.ops` for every backend."""

from __future__ import annotations

from typing import Any

from keras import ops


def weighted_loss(logits: Any, labels: Any, weights: Any, total_weight: Any, label_smoothing: float) -> Any:
    """A worker's part of the mean binary cross-entropy over the global batch: a float32 scalar.

    logits, labels (0 or 1) and weights have shape (places,); a place of weight 0 adds nothing, whatever it holds.
    The parts of all workers sum to the loss since `total_weight` is the sum over all of them. Labels are moved towards
    one half by `label_smoothing` (Szegedy et al. 2016).
    """
    smoothed = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    losses = ops.binary_crossentropy(smoothed, ops.cast(logits, "float32"), from_logits=True)
    return ops.sum(ops.where(weights > 0, losses * weights, 0.0)) / total_weight


def clip_by_global_norm(gradients: list[Any], largest: float | None) -> list[Any]:
    """Gradients scaled so that their joint norm is at most `largest` (Pascanu et al. 2013); None leaves them.

    Keras' own clipping under tf.distribute acts on each replica's part before the sum over workers, so the result
    would depend on their number: this is called on the sum.
    """
    if largest is None:
        return gradients
    norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients))
    factor = largest / ops.maximum(norm, largest)
    return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]
