"""Augments under the backend that KERAS_BACKEND names, compiled: `python augment_backend.py IN.npz OUT.npz`."""

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from batch.model import augment


def compiled(call: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """By the backend's own compiler."""
    if keras.backend.backend() == "jax":
        import jax

        return lambda *given: np.asarray(jax.jit(call)(*given))
    import tensorflow as tf

    return lambda *given: np.asarray(tf.function(call)(*given))


if __name__ == "__main__":
    given = np.load(sys.argv[1])
    robust = compiled(augment.apply)(given["images"], given["draws"])
    reference = compiled(lambda images, draws: augment.apply(images, draws, "reference"))(
        given["images"], given["reference"]
    )
    same = compiled(augment.apply)(given["images"], augment.identity(len(given["images"])))
    np.savez(sys.argv[2], robust=robust, reference=reference, same=same)
