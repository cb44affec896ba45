"""What the loop asks of a backend, and how one is chosen. One engine a process: it holds the network's variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from batch.model.fit.options import Backend, FitOptions
from batch.model.network import NetworkOptions, Stage, build_network
from batch.model.records import UNUSED, Batch

if TYPE_CHECKING:
    import keras

Arrays = list[npt.NDArray[Any]]
"""Values of variables in the network's or the optimizer's own order."""

Augment = Callable[[Any, Any], Any]
"""From pixels (places, side, side, 3) and draws to float32 pixels of the same shape, in `keras.ops`."""

Build = Callable[[NetworkOptions, int], "keras.Model"]
"""A network from its options and the side of its input: `network.build_network`, or `frozen.build_head`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that training changes in an engine."""

    network: Arrays
    """All variables, seeds of dropout included."""
    optimizer: Arrays
    average: Arrays
    """Moving averages of the trained variables; empty without `--ema`."""


class Engine(Protocol):
    """A network with its optimizer on one backend, in one of the run's processes.

    `open_stage`, `standardize`, `train_step`, `logits` and `gather` are collective: all processes call them in the same
    order.
    """

    rank: int
    workers: int

    def open_stage(self, stage: Stage) -> None:
        """Start a stage with a fresh optimizer, from the averaged weights of the stage before."""

    def standardize(self, batches: Iterable[Batch]) -> None:
        """Set the layer `network.STANDARDIZE` by its input in these batches, as training meets them, of all workers."""

    def train_step(self, batch: Batch, learning_rate: float, decay: float) -> Any:
        """One optimizer step on this worker's part; gives the global loss as a scalar that may still be computed."""

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Log-odds of this worker's images, of the averaged weights if there are any, shape (places,)."""

    def gather(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The arrays of all workers, of one shape, joined along the first axis in order of rank; values of 32 bits."""

    def weights(self) -> Arrays:
        """Weights as `logits` uses them, in the order of `model.weights`."""

    def load_weights(self, weights: Arrays) -> None:
        """Take such weights, and drop the average and the optimizer: nothing can be trained after that."""

    def snapshot(self) -> Snapshot:
        """All state, on the host."""

    def restore(self, snapshot: Snapshot) -> None:
        """Take the state of the same stage. Raises ValueError if the shapes differ."""


def use_backend(backend: Backend) -> None:
    """Choose Keras' backend; to be called before anything imports keras.

    Raises ValueError if it is not installed, or keras is already loaded with another one: it cannot change within a
    process.
    """
    if find_spec(backend) is None:
        raise ValueError(
            f"backend: {backend} is not installed; expected it (jax is the extra fakesift[jax]), or another"
        )
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
        return
    import keras

    loaded = keras.backend.backend()
    if loaded != backend:
        raise ValueError(
            f"keras is loaded with another backend: received {loaded}, expected {backend}; "
            f"set KERAS_BACKEND={backend} before the process imports keras"
        )


def open_engine(
    network: NetworkOptions, side: int, options: FitOptions, augment: Augment | None, build: Build = build_network
) -> Engine:
    """The engine of `options.backend`, with its network built from the seed, equal on all workers.

    With TensorFlow it joins the workers that TF_CONFIG names, so no TensorFlow operation may have run before; with JAX
    those of `jax.distributed`. Neither: one process.
    """
    use_backend(options.backend)
    if options.backend == "jax":
        from batch.model.fit.jax import JaxEngine

        return JaxEngine(network, side, options, augment, build)
    from batch.model.fit.tensorflow import TensorFlowEngine

    return TensorFlowEngine(network, side, options, augment, build)


def padded(batch: Batch, multiple: int) -> Batch:
    """The batch with empty places added until this process's devices can share it equally."""
    missing = -len(batch.rows) % multiple
    if not missing:
        return batch

    def grown(values: npt.NDArray[Any], fill: float = 0) -> npt.NDArray[Any]:
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=fill)

    return replace(
        batch,
        images=grown(batch.images),
        labels=grown(batch.labels),
        weights=grown(batch.weights),
        draws=grown(batch.draws),
        rows=grown(batch.rows, UNUSED),
    )


def checked(values: Arrays, expected: Arrays, what: str) -> Arrays:
    """The values, cast to the expected types. Raises ValueError if their number or shapes are others."""
    received = [value.shape for value in values]
    wanted = [value.shape for value in expected]
    if received != wanted:
        places = [i for i, pair in enumerate(zip(received, wanted, strict=False)) if pair[0] != pair[1]]
        detail = f"; first difference at {places[0]}: {received[places[0]]}, {wanted[places[0]]}" if places else ""
        raise ValueError(
            f"state of another {what}: received {len(received)} arrays, expected {len(wanted)} of given shapes{detail}"
        )
    return [np.asarray(value, want.dtype) for value, want in zip(values, expected, strict=True)]
