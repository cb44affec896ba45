"""BatchNormalization that is trained takes its statistics from the faces of the global batch.

Keras' own takes those of one replica's places, empty ones among them: two workers would then train another network than
one, and a short last batch would pull the statistics towards black pictures. Sums over faces, summed over replicas,
give mean and variance here. Only the training pass differs: a saved network has Keras' layers, with the same variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from batch.model.network import NetworkOptions

Summed = Callable[[Sequence[Any]], Sequence[Any]]
"""Tensors of this replica to their sums over all replicas, gradients included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What the layers must know of the batch that goes through them."""

    faces: Any
    """1 for a place with a face, 0 for an empty one; float32, shape (places,)."""
    summed: Summed


_BATCH: ContextVar[_Batch | None] = ContextVar("batch", default=None)


@contextmanager
def statistics_over(weights: Any, summed: Summed = lambda parts: parts) -> Iterator[None]:
    """Within it the layers of `with_global_norms` count the places of positive weight, of all replicas.

    `weights` are float32, shape (places,).
    """
    token = _BATCH.set(_Batch(faces=ops.cast(weights > 0, "float32"), summed=summed))
    try:
        yield
    finally:
        _BATCH.reset(token)


def with_global_norms(model: keras.Model, options: NetworkOptions) -> keras.Model:
    """The network itself if its norms stay frozen, else a copy with the same values whose norms are replaced."""
    if not options.trains_norms:
        return model
    made = keras.models.clone_model(model, clone_function=_replaced, recursive=True)
    made.set_weights(model.get_weights())
    return made


def _replaced(layer: keras.Layer) -> keras.Layer:
    kind = _GlobalBatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
    return kind.from_config(layer.get_config())


class _GlobalBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Ioffe and Szegedy 2015, over the faces of all replicas."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Of feature maps, shape (places, ..., channels)."""
        batch = _BATCH.get()
        if batch is None or not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        values = ops.cast(inputs, "float32")
        axes = tuple(range(len(values.shape) - 1))
        of_place = ops.reshape(batch.faces, (-1, *[1] * len(axes)))
        counted = values * of_place
        positions = ops.sum(ops.broadcast_to(of_place, (*ops.shape(values)[:-1], 1)))
        count, first, second = batch.summed([positions, ops.sum(counted, axes), ops.sum(counted * values, axes)])
        mean = first / count
        variance = ops.maximum(second / count - ops.square(mean), 0.0)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.stop_gradient(now) * (1 - self.momentum))
        scaled = ops.batch_normalization(
            values, mean, variance, axis=-1, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return ops.cast(scaled, self.compute_dtype)
