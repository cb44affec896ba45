"""The JAX engine: one jitted step over a mesh of all devices of all processes, its state donated.

uint8 pixels go to the device and are augmented and scaled there (on an H100 three times as fast as Keras'
`train_on_batch` on float32 from the host). Each process gives its part of the batch; the compiler puts the sums over
devices where the loss is a sum over the global batch, so clipping and BatchNorm see the global values too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from batch.model.fit.engine import Arrays, Augment, Build, Snapshot, checked, padded
from batch.model.fit.norm import statistics_over, with_global_norms
from batch.model.fit.optimizers import build_optimizer
from batch.model.fit.options import FitOptions
from batch.model.fit.standardize import set_moments, sums_of
from batch.model.loss import clip_by_global_norm, weighted_loss
from batch.model.network import STANDARDIZE, NetworkOptions, Stage, build_network, logits_of, set_trainable
from batch.model.records import Batch


class _State(NamedTuple):
    """Values on the devices, a copy on each."""

    trainable: list[jax.Array]
    fixed: list[jax.Array]
    """Not trained: frozen weights, statistics, seeds."""
    optimizer: list[jax.Array]
    average: list[jax.Array]


class JaxEngine:
    """`fit.engine.Engine` on JAX."""

    def __init__(
        self,
        network: NetworkOptions,
        side: int,
        options: FitOptions,
        augment: Augment | None,
        build: Build = build_network,
    ) -> None:
        self.rank = jax.process_index()
        self.workers = jax.process_count()
        self._network = network
        self._options = options
        self._augment = augment
        mesh = Mesh(np.array(jax.devices()), ("data",))
        self._copied = NamedSharding(mesh, PartitionSpec())
        self._shared = NamedSharding(mesh, PartitionSpec("data"))
        keras.utils.set_random_seed(options.seed)
        self._model = with_global_norms(build(network, side), network)
        self._logits = logits_of(self._model)
        self._broadcast()
        self._state: _State
        self._step: Any = None
        self._predict = jax.jit(self._predicted, out_shardings=self._shared)
        self._load([])

    def open_stage(self, stage: Stage) -> None:
        """See `Engine`."""
        self._write_variables(average=True)
        set_trainable(self._model, stage, self._network, self._options.unfreeze)
        optimizer = build_optimizer(self._options, self._logits.trainable_variables)
        names = [variable.name for variable in optimizer.variables]
        self._load([np.asarray(variable.value) for variable in optimizer.variables])
        step = partial(self._stepped, optimizer, names.index("learning_rate"))
        self._step = jax.jit(step, donate_argnums=0, out_shardings=self._copied)

    def standardize(self, batches: Iterable[Batch]) -> None:
        """See `Engine`."""
        layer = self._model.get_layer(STANDARDIZE)
        below = keras.Model(self._model.input, layer.input)
        variables = [
            [variable.value for variable in part] for part in (below.trainable_variables, below.non_trainable_variables)
        ]

        def features(images: jax.Array, draws: jax.Array) -> Any:
            pixels = self._augment(images, draws) if self._augment else images
            return below.stateless_call(*variables, pixels, training=False)[0]

        set_moments(layer, self.gather(sums_of(jax.jit(features), batches)))
        fixed = [np.asarray(variable.value) for variable in self._logits.non_trainable_variables]
        self._state = self._state._replace(fixed=self._placed(fixed))

    def train_step(self, batch: Batch, learning_rate: float, decay: float) -> Any:
        """See `Engine`."""
        batch = padded(batch, jax.local_device_count())
        parts = (batch.images, batch.labels, batch.weights, batch.draws)
        data = [jax.make_array_from_process_local_data(self._shared, part) for part in parts]
        scalars = (np.float32(batch.total_weight), np.float32(learning_rate), np.float32(decay))
        self._state, loss = self._step(self._state, *data, *scalars)
        return loss

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Engine`."""
        count = len(images)
        missing = -count % jax.local_device_count()
        filled = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        weights = self._state.average or self._state.trainable
        data = jax.make_array_from_process_local_data(self._shared, filled)
        found = self._predict(weights, self._state.fixed, data)
        shards = sorted(found.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])[:count]

    def gather(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Engine`."""
        return np.asarray(multihost_utils.process_allgather(values, tiled=True))

    def weights(self) -> Arrays:
        """See `Engine`."""
        self._write_variables(average=True)
        values = [np.asarray(variable.value) for variable in self._logits.weights]
        self._write_variables(average=False)
        return values

    def load_weights(self, weights: Arrays) -> None:
        """See `Engine`."""
        self._logits.set_weights(weights)
        self._step = None
        self._load([])
        self._state = self._state._replace(average=[])

    def snapshot(self) -> Snapshot:
        """See `Engine`."""
        self._write_variables(average=False)
        return Snapshot(
            network=[np.asarray(variable.value) for variable in self._logits.variables],
            optimizer=[_host(value) for value in self._state.optimizer],
            average=[_host(value) for value in self._state.average],
        )

    def restore(self, snapshot: Snapshot) -> None:
        """See `Engine`."""
        now = self.snapshot()
        for variable, value in zip(
            self._logits.variables, checked(snapshot.network, now.network, "network"), strict=True
        ):
            variable.assign(value)
        self._load(checked(snapshot.optimizer, now.optimizer, "optimizer"))
        average = checked(snapshot.average, now.average, "moving average")
        self._state = self._state._replace(average=self._placed(average))

    def _stepped(self, optimizer: Any, rate_place: int, state: _State, *given: Any) -> tuple[_State, jax.Array]:
        """One step: new state and global loss. `given`: images, labels, weights, draws, total weight, rate, decay."""
        images, labels, weights, draws, total_weight, learning_rate, decay = given

        def loss_of(trainable: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
            """Global loss, and new values of what is not trained."""
            pixels = self._augment(images, draws) if self._augment else images
            with statistics_over(weights):
                logits, fixed = self._logits.stateless_call(trainable, state.fixed, pixels, training=True)
            loss = weighted_loss(logits[:, 0], labels, weights, total_weight, self._options.label_smoothing)
            return loss, fixed

        (loss, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
        gradients = clip_by_global_norm(gradients, self._options.clip_norm)
        settings = list(state.optimizer)
        settings[rate_place] = learning_rate
        trainable, settings = optimizer.stateless_apply(settings, gradients, state.trainable)
        pairs = zip(state.average, trainable, strict=False)
        average = [decay * old + (1 - decay) * new for old, new in pairs]
        return _State(trainable, fixed, settings, average), loss

    def _predicted(self, trainable: list[jax.Array], fixed: list[jax.Array], images: jax.Array) -> jax.Array:
        """Log-odds, shape (places,)."""
        logits, _ = self._logits.stateless_call(trainable, fixed, images, training=False)
        return jax.numpy.asarray(logits)[:, 0]

    def _load(self, optimizer: Arrays) -> None:
        """State from the model's own variables, the average started from them."""
        trainable = [np.asarray(variable.value) for variable in self._logits.trainable_variables]
        fixed = [np.asarray(variable.value) for variable in self._logits.non_trainable_variables]
        average = trainable if self._options.ema is not None else []
        self._state = _State(*(self._placed(values) for values in (trainable, fixed, optimizer, average)))

    def _write_variables(self, *, average: bool) -> None:
        """The model's own variables from the state, on the host."""
        trainable = (self._state.average if average else []) or self._state.trainable
        for variable, value in zip(self._logits.trainable_variables, trainable, strict=True):
            variable.assign(_host(value))
        for variable, value in zip(self._logits.non_trainable_variables, self._state.fixed, strict=True):
            variable.assign(_host(value))

    def _placed(self, values: Arrays) -> list[jax.Array]:
        """A copy of each on every device, of fresh memory: a CPU array may share it with numpy, and steps donate it."""
        place = jax.make_array_from_process_local_data
        return [place(self._copied, np.array(value), value.shape) for value in values]  # type: ignore[no-untyped-call]

    def _broadcast(self) -> None:
        """The first process's new weights to all: equal seeds need not give equal bits on unlike machines."""
        if self.workers > 1:
            values = [np.asarray(variable.value) for variable in self._logits.variables]
            sent = multihost_utils.broadcast_one_to_all(values)
            for variable, value in zip(self._logits.variables, sent, strict=True):
                variable.assign(np.asarray(value))


def _host(value: jax.Array) -> npt.NDArray[Any]:
    """The copy of this process."""
    return np.asarray(value.addressable_data(0))
