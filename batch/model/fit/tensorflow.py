"""The TensorFlow engine: an own step by `strategy.run`, since Keras 3's `fit` does not run on several workers.

Each replica computes the gradient of its part of the global loss and sums the parts over all replicas. Variables are
this process's own, made and updated outside the strategy: every process then does the same arithmetic on the same
gradient. Keras' optimizer under the strategy would clip each part before the sum, and sum what is summed already.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from batch.model.fit.engine import Arrays, Augment, Build, Snapshot, checked, padded
from batch.model.fit.norm import statistics_over, with_global_norms
from batch.model.fit.optimizers import build_optimizer
from batch.model.fit.options import FitOptions
from batch.model.fit.standardize import set_moments, sums_of
from batch.model.loss import clip_by_global_norm, weighted_loss
from batch.model.network import STANDARDIZE, NetworkOptions, Stage, build_network, logits_of, set_trainable
from batch.model.records import Batch


class TensorFlowEngine:
    """`fit.engine.Engine` on TensorFlow."""

    def __init__(
        self,
        network: NetworkOptions,
        side: int,
        options: FitOptions,
        augment: Augment | None,
        build: Build = build_network,
    ) -> None:
        self._strategy = _strategy()
        resolver = self._strategy.cluster_resolver
        self.workers = len(_named_workers()) if resolver else 1
        self.rank = int(resolver.task_id) if resolver else 0
        self._devices = max(1, self._strategy.num_replicas_in_sync // self.workers)
        self._network = network
        self._options = options
        self._augment = augment
        keras.utils.set_random_seed(options.seed)
        self._model = with_global_norms(build(network, side), network)
        self._logits = logits_of(self._model)
        self._broadcast()
        self._optimizer: Any = None
        self._average: list[Any] = []
        self._step: Any = None
        self._predict = tf.function(self._predicted)

    def open_stage(self, stage: Stage) -> None:
        """See `Engine`."""
        for variable, value in zip(self._logits.trainable_variables, self._average, strict=False):
            variable.assign(value.numpy())
        set_trainable(self._model, stage, self._network, self._options.unfreeze)
        trained = self._logits.trainable_variables
        self._optimizer = build_optimizer(self._options, trained)
        started = trained if self._options.ema is not None else []
        self._average = [tf.Variable(variable.numpy(), trainable=False) for variable in started]
        self._step = tf.function(self._stepped)
        self._predict = tf.function(self._predicted)

    def standardize(self, batches: Iterable[Batch]) -> None:
        """See `Engine`."""
        layer = self._model.get_layer(STANDARDIZE)
        below = keras.Model(self._model.input, layer.input)

        def features(images: tf.Tensor, draws: tf.Tensor) -> Any:
            return below(self._augment(images, draws) if self._augment else images, training=False)

        set_moments(layer, self.gather(sums_of(tf.function(features), batches)))

    def train_step(self, batch: Batch, learning_rate: float, decay: float) -> Any:
        """See `Engine`."""
        batch = padded(batch, self._devices)
        parts = (batch.images, batch.labels, batch.weights, batch.draws)
        scalars = (batch.total_weight, learning_rate, decay)
        return self._step([self._split(part) for part in parts], [tf.constant(x, tf.float32) for x in scalars])

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Engine`."""
        count = len(images)
        filled = np.pad(images, [(0, -count % self._devices), (0, 0), (0, 0), (0, 0)])
        found = self._strategy.experimental_local_results(self._predict(self._split(filled)))
        return np.concatenate([part.numpy() for part in found])[:count]

    def gather(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Engine`."""
        copies = [values] + [values[:0]] * (self._devices - 1)
        part = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(copies[context.replica_id_in_sync_group % self._devices])
        )
        return np.asarray(self._strategy.gather(part, axis=0).numpy())

    def weights(self) -> Arrays:
        """See `Engine`."""
        averaged = dict(zip(map(id, self._logits.trainable_variables), self._average, strict=False))
        return [np.array(averaged.get(id(variable), variable).numpy()) for variable in self._logits.weights]

    def load_weights(self, weights: Arrays) -> None:
        """See `Engine`."""
        self._logits.set_weights(weights)
        self._average, self._step, self._optimizer = [], None, None
        self._predict = tf.function(self._predicted)

    def snapshot(self) -> Snapshot:
        """See `Engine`."""
        optimizer = self._optimizer.variables if self._optimizer else []
        groups = (self._logits.variables, optimizer, self._average)
        network, optimizer, average = ([np.array(variable.numpy()) for variable in group] for group in groups)
        return Snapshot(network=network, optimizer=optimizer, average=average)

    def restore(self, snapshot: Snapshot) -> None:
        """See `Engine`."""
        now = self.snapshot()
        _assign(self._logits.variables, checked(snapshot.network, now.network, "network"))
        if self._optimizer:
            _assign(self._optimizer.variables, checked(snapshot.optimizer, now.optimizer, "optimizer"))
        _assign(self._average, checked(snapshot.average, now.average, "moving average"))

    def _stepped(self, parts: list[Any], scalars: list[Any]) -> Any:
        """One step over all replicas: gives the global loss. Scalars: total weight, learning rate, decay."""
        total_weight, learning_rate, decay = scalars
        found = self._strategy.run(self._replica_step, args=(*parts, total_weight))
        loss, gradients, fixed = tf.nest.map_structure(self._first, found)
        trained = self._logits.trainable_variables
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(clip_by_global_norm(gradients, self._options.clip_norm), trained)
        for variable, value in zip(self._logits.non_trainable_variables, fixed, strict=True):
            if value is not None:
                variable.assign(value)
        for average, variable in zip(self._average, trained, strict=False):
            average.assign(decay * average + (1 - decay) * variable.value)
        return loss

    def _replica_step(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, draws: tf.Tensor, total_weight: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor | None]]:
        """Global loss, global gradient, and new values of what is not trained but changes, else None."""
        trainable = [tf.convert_to_tensor(variable.value) for variable in self._logits.trainable_variables]
        fixed = [tf.convert_to_tensor(variable.value) for variable in self._logits.non_trainable_variables]
        context = tf.distribute.get_replica_context()
        summed = partial(context.all_reduce, tf.distribute.ReduceOp.SUM)
        with tf.GradientTape(watch_accessed_variables=False) as tape, statistics_over(weights, summed):
            tape.watch(trainable)
            pixels = self._augment(images, draws) if self._augment else images
            logits, after = self._logits.stateless_call(trainable, fixed, pixels, training=True)
            loss = weighted_loss(logits[:, 0], labels, weights, total_weight, self._options.label_smoothing)
        *gradients, loss = summed([*tape.gradient(loss, trainable), loss])
        changed = [None if new is old else new for old, new in zip(fixed, after, strict=True)]
        return loss, gradients, changed

    def _predicted(self, images: Any) -> Any:
        """Log-odds on each replica of this process, of the average if there is one."""
        return self._strategy.run(self._replica_logits, args=(images,))

    def _replica_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Log-odds, shape (places,)."""
        averaged = self._average or [variable.value for variable in self._logits.trainable_variables]
        trainable = [tf.convert_to_tensor(value) for value in averaged]
        fixed = [tf.convert_to_tensor(variable.value) for variable in self._logits.non_trainable_variables]
        logits, _ = self._logits.stateless_call(trainable, fixed, images, training=False)
        return logits[:, 0]

    def _split(self, values: npt.NDArray[Any]) -> Any:
        """An equal part for each replica of this process."""
        parts = np.split(values, self._devices)
        if self._devices == 1:
            return tf.convert_to_tensor(parts[0])
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group % self._devices])
        )

    def _first(self, value: Any) -> Any:
        """A value that is the same on all replicas."""
        return self._strategy.experimental_local_results(value)[0]

    def _broadcast(self) -> None:
        """The first process's new weights to all: equal seeds need not give equal bits on unlike machines."""
        if self.workers > 1:
            for variable in self._logits.weights:
                value = variable.numpy()
                variable.assign(self.gather(value[None])[0])


def _named_workers() -> list[str]:
    """Addresses in TF_CONFIG, none without one."""
    return list(json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {}).get("worker", []))


@cache
def _strategy() -> tf.distribute.Strategy:
    """Over the workers of TF_CONFIG, else over this process's GPUs if there are several, else none.

    One for all runs of a process: each new one of several devices would number its collective operations from the
    start again, and the second run of a process fails by the numbers of the first.
    """
    if len(_named_workers()) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _assign(variables: list[Any], values: Arrays) -> None:
    """Values into variables, one to one."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
