"""A trained network in, a function from crops to logits out: fixed shapes, one trace, one precision, checked."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from batch.model.golden import Golden, Precision, check_precision, drift

LOGIT = "logit"
"""Name of the layer whose output is the log-odds of fake."""
DEFAULT_BATCH = 32
_ALWAYS_FLOAT32 = (keras.layers.InputLayer, keras.layers.Rescaling)


class BatchPredictor(abc.ABC):
    """Gives the logits of crops, a batch at a time. Loaded once a process; not safe to call from two threads."""

    def __init__(self, *, side: int, batch_size: int, precision: Precision) -> None:
        """Refuses what no network computes.

        Args:
            side: of the crops.
            batch_size: most crops that are computed at a time.
            precision: of the arithmetic.

        Raises:
            ValueError: for a batch size below 1 or an unknown precision.
        """
        check_precision(precision)
        if batch_size < 1:
            raise ValueError(f"batch size: got {batch_size}, expected 1 or more")
        self.side, self.batch_size, self.precision = side, batch_size, precision

    @property
    @abc.abstractmethod
    def engine(self) -> str:
        """What computes, with its version."""

    @abc.abstractmethod
    def _logits(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Of up to `batch_size` crops, in their order; what follows is not looked at."""

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Log-odds of fake before calibration.

        Args:
            images: crops in RGB, uint8, shape (n, side, side, 3); they go to the device as they are.

        Returns:
            float32, shape (n,).

        Raises:
            ValueError: for pictures of another shape or type.
        """
        wanted = (self.side, self.side, 3)
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise ValueError(
                f"predict: got {images.dtype} {images.shape}, expected uint8 (n, {wanted[0]}, {wanted[1]}, 3)"
            )
        out = np.empty(len(images), np.float32)
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            out[start : start + len(part)] = self._logits(part)[: len(part)]
        return out

    def check(self, golden: Golden, tolerance: float, where: str) -> float:
        """Repeats the golden inputs and gives the drift.

        Raises:
            ValueError: if it is above the tolerance, saying by how much.
        """
        found = drift(self(golden.images), golden.logits)
        if not found <= tolerance:
            raise ValueError(
                f"{where}: scores drift from those stored with the model: golden logits differ by {found:.3g}, "
                f"expected {tolerance:.3g} at most in {self.precision} ({self.engine}); "
                "use the versions that bundle.json names, or save the bundle anew and judge it anew"
            )
        return found


class Predictor(BatchPredictor):
    """The network as Keras computes it, on TensorFlow or JAX."""

    def __init__(
        self, model: keras.Model, *, batch_size: int = DEFAULT_BATCH, precision: Precision = "float32"
    ) -> None:
        """Takes a network with a layer `logit`.

        Args:
            model: input of shape (side, side, 3) with values 0 to 255, RGB.
            batch_size: crops a call of the network; the last ones are padded, so that there is one shape to trace.
            precision: of the arithmetic; a copy of the network is made where it differs from the network's own.

        Raises:
            ValueError: for a network without that layer, a batch size below 1 or an unknown precision.
        """
        super().__init__(side=side_of(model), batch_size=batch_size, precision=precision)
        self.network = logits_model(in_precision(model, precision))
        # XLA on a CPU under TensorFlow is ten times slower than its own kernels; JAX knows no other way.
        self.network.jit_compile = keras.backend.backend() == "jax"

    @property
    def engine(self) -> str:
        """Keras and its backend."""
        return f"Keras {keras.__version__} on {keras.backend.backend()}"

    def _logits(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with full_float32(self.precision):
            found = self.network.predict_on_batch(padded(batch, self.batch_size))
        return np.asarray(found, np.float32).reshape(-1)


def padded(crops: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """So many crops: these, then black ones."""
    missing = count - len(crops)
    return np.pad(crops, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else crops


def side_of(model: keras.Model) -> int:
    """The side of the crops that a network takes. Raises `ValueError` for another input."""
    shape = tuple(model.input_shape)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or shape[1] is None:
        raise ValueError(f"network: got input shape {shape}, expected (None, side, side, 3)")
    return int(shape[1])


def logits_model(model: keras.Model) -> keras.Model:
    """The same network up to its layer `logit`, sharing weights. Raises `ValueError` if there is no such layer."""
    names = [layer.name for layer in model.layers]
    if LOGIT not in names:
        raise ValueError(f"network: got layers {', '.join(names[-4:])} at its end, expected one named {LOGIT}")
    return keras.Model(model.inputs, model.get_layer(LOGIT).output)


def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """The network with every layer computing in this precision: itself if it does so, else a copy.

    Variables stay float32, and so do the scaling of pixels and the layers `logit` and `probability`.
    """
    policy = "float32" if precision == "float32" else f"mixed_{precision}"

    def wanted(layer: keras.Layer) -> str:
        keeps = layer.name in {LOGIT, "probability"} or isinstance(layer, _ALWAYS_FLOAT32)
        return "float32" if keeps else policy

    def cloned(layer: keras.Layer) -> keras.Layer:
        config: dict[str, Any] = {**layer.get_config(), "dtype": wanted(layer)}
        return layer.__class__.from_config(config)

    if all(layer.dtype_policy.name == wanted(layer) for layer in _leaves(model)):
        return model
    # Lambdas and custom classes are not known here: bundles hold built-in layers alone.
    copy = keras.models.clone_model(model, clone_function=cloned, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


@contextlib.contextmanager
def full_float32(precision: Precision) -> Iterator[None]:
    """Sums of float32 in float32: GPUs would round its factors to 10 bits otherwise (TF32), scores with them."""
    if precision != "float32":
        yield
    elif keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def _leaves(model: keras.Model) -> list[keras.Layer]:
    # Keras has no public walk over nested models' layers.
    found: list[keras.Layer] = []
    for layer in model.layers:
        found += _leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found
