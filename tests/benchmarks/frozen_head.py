"""A pretrained network whose backbone stays frozen: features of each face once, then the head on them, epoch by epoch.

`batch.model.fit` sends every face through the backbone in every epoch, since augmentation changes the pixels. Without
augmentation the features never change; then this gives the head that `fit` gives, in the time of one epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.fit.options import FitOptions  # noqa: E402
from batch.model.fit.schedules import learning_rate  # noqa: E402
from batch.model.fit.standardize import STEPS, set_moments  # noqa: E402
from batch.model.network import STANDARDIZE, NetworkOptions  # noqa: E402
from batch.model.plan import DataOptions, EpochPlan, Rows, plan_epoch, plan_scan  # noqa: E402
from batch.model.reader import FaceReader  # noqa: E402
from batch.model.records import UNUSED, EpochRecord, FaceIndex, Scores  # noqa: E402

Floats = npt.NDArray[np.float32]


class FrozenNetwork:
    """A network of `batch.model.network` without dense layers or dropout: features below, one weighted sum above."""

    def __init__(self, network: NetworkOptions, side: int, seed: int) -> None:
        """Builds it as `fit` does: equal seeds, equal heads."""
        import keras

        keras.utils.set_random_seed(seed)
        from batch.model.network import build_network

        self._model = build_network(network, side)
        self._head = self._model.get_layer("logit")
        self._scale = [layer for layer in self._model.layers if layer.name == STANDARDIZE]
        self._below = keras.Model(self._model.input, (self._scale or [self._head])[0].input)
        self._below.jit_compile = keras.backend.backend() == "jax"
        self._fresh = self._head.get_weights()
        self.width = int(self._head.input.shape[-1])
        """Features of a face."""

    def features(self, reader: FaceReader, index: FaceIndex, rows: Rows, batch_size: int = 32) -> Floats:
        """Of each face, float32 (len(rows), features)."""
        place = np.full(index.table.num_rows, UNUSED, np.int64)
        place[rows] = np.arange(len(rows))
        out = np.empty((len(rows), self.width), np.float32)
        for batch in reader.batches(plan_scan(index, rows, batch_size), 0, training=False):
            used = batch.rows != UNUSED
            out[place[batch.rows[used]]] = np.asarray(self._below.predict_on_batch(batch.images), np.float32)[used]
        return out

    def logits(self, features: Floats) -> Floats:
        """Log-odds of fake, shape (n,)."""
        return self._weighted(self._scaled(features))

    def _set_scale(self, features: Floats) -> None:
        for layer in self._scale:
            set_moments(layer, np.concatenate([[len(features)], features.sum(axis=0), (features**2).sum(axis=0)])[None])

    def _scaled(self, features: Floats) -> Floats:
        for layer in self._scale:
            mean, variance = (np.asarray(value, np.float32) for value in layer.get_weights())
            features = (features - mean) / np.sqrt(variance + layer.epsilon)
        return features

    def _weighted(self, features: Floats) -> Floats:
        kernel, bias = (np.asarray(value, np.float32) for value in self._head.get_weights())
        return np.asarray(features @ kernel[:, 0] + bias, np.float32)

    def scores(self, features: Floats, rows: Rows) -> Scores:
        """The same with the rows' names."""
        return Scores(rows=rows, logits=self.logits(features))

    def train_head(
        self, features: Floats, index: FaceIndex, train: Rows, held_out: Rows, data: DataOptions, options: FitOptions
    ) -> None:
        """The head stage of `fit` on features of the whole index; leaves the weights of the best epoch.

        The gradient of the loss is written out: of one weighted sum under a sigmoid it is features times error.
        """
        from batch.model.fit.optimizers import build_optimizer

        plan = plan_epoch(index, train, data, 1)
        looked_at = np.concatenate([_step_of(plan, step)[0] for step in range(min(STEPS, plan.steps))])
        self._set_scale(features[looked_at])
        features = self._scaled(features)
        self._head.set_weights(self._fresh)
        optimizer = build_optimizer(options, self._head.trainable_variables)
        history: list[EpochRecord] = []
        best, least = self._head.get_weights(), np.inf
        for epoch in range(1, options.head_epochs + 1):
            plan = plan_epoch(index, train, data, epoch)
            for step in range(plan.steps):
                optimizer.learning_rate = learning_rate(history, options, "head", step / plan.steps)
                rows, labels, weights = _step_of(plan, step)
                gradient = self._gradient(features[rows], labels, weights, options.label_smoothing)
                optimizer.apply(gradient, self._head.trainable_variables)
            loss = _log_loss(self._weighted(features[held_out]), index.labels[held_out])
            history.append(_record(epoch, loss))
            if loss < least:
                best, least = self._head.get_weights(), loss
        self._head.set_weights(best)

    def _gradient(self, features: Floats, labels: Floats, weights: Floats, smoothing: float) -> list[Any]:
        from keras import ops

        wanted = labels * (1 - smoothing) + smoothing / 2
        error = (expit(self._weighted(features)) - wanted) * weights / weights.sum()
        parts = features.T @ error[:, None], error.sum(keepdims=True)
        return [ops.convert_to_tensor(np.asarray(part, np.float32)) for part in parts]


def _step_of(plan: EpochPlan, step: int) -> tuple[Rows, Floats, Floats]:
    """Rows, labels and weights of a global batch."""
    part = slice(step * plan.lane_batch, (step + 1) * plan.lane_batch)
    lanes = plan.lanes
    return (
        np.concatenate([lane.rows[part] for lane in lanes]),
        np.concatenate([lane.labels[part] for lane in lanes]),
        np.concatenate([lane.weights[part] for lane in lanes]),
    )


def _log_loss(logits: Floats, labels: npt.NDArray[np.int8]) -> float:
    return float(np.mean(np.logaddexp(0.0, logits.astype(np.float64)) - labels * logits))


def _record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(
        stage="head", epoch=epoch, step=0, loss=loss, learning_rate=0, images_per_second=0, seconds=0,
        validation={"loss": loss},
    )  # fmt: skip
