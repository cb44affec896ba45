"""A backbone that never changes: its features of each face and epoch once, and heads that learn from them.

What augmentation does to a face is a pure function of seed, epoch and row (`batch.model.draws`), so the features of an
epoch can be computed beforehand, for all heads at once, and are those that each would have computed by itself. The head
is then trained by the same loop (`fit(..., build=build_head)`) from the same first weights, and put back by `graft`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from batch.model.draws import identity
from batch.model.fit.engine import Arrays, Augment
from batch.model.fit.feed import Pass
from batch.model.network import NetworkOptions, build_network
from batch.model.plan import DataOptions, EpochPlan, Lane, Rows, plan_epoch, plan_scan
from batch.model.reader import FaceReader
from batch.model.records import UNUSED, Batch, FaceIndex

if TYPE_CHECKING:
    import keras

Floats = npt.NDArray[np.float32]
Step = Callable[[npt.NDArray[np.uint8], Floats], Floats]
"""Pixels (places, side, side, 3) and draws to features (places, features)."""
PLAIN = 0
"""The epoch that stands for faces as they are: validation, and training without augmentation."""


def build_head(options: NetworkOptions, side: int) -> keras.Model:
    """The head alone, from features of shape (n, 1, 1, features) to `probability`: for `fit`, which sees no backbone.

    Its first weights, and the seeds of its dropout, are those that `build_network` gives it after the same seed.
    """
    import keras

    whole = build_network(replace(options, weights="none"), side)
    layers = _head_layers(whole)
    width = int(layers[0].input.shape[-1])
    features = keras.Input((1, 1, width), name="features", dtype="float32")
    # Stands for what `set_trainable` freezes.
    hidden = keras.layers.Identity(name="backbone")(features)
    hidden = keras.layers.Reshape((width,), name="flat")(hidden)
    for layer in layers:
        copy = type(layer).from_config(layer.get_config())
        hidden = copy(hidden)
        for mine, theirs in zip(copy.variables, layer.variables, strict=True):
            mine.assign(theirs.value)
    return keras.Model(features, hidden, name=f"{options.model}_head")


def build_trunk(options: NetworkOptions, side: int) -> keras.Model:
    """What lies below the head, from pixels (n, side, side, 3) to features, float32 (n, features)."""
    import keras

    whole = build_network(replace(options, dense_units=(), dropout=0.0), side)
    features = keras.layers.Activation("linear", dtype="float32")(_head_layers(whole)[0].input)
    return keras.Model(whole.input, features, name=f"{options.model}_trunk")


def graft(options: NetworkOptions, side: int, head: Arrays) -> keras.Model:
    """The whole network in float32 with a trained head's weights, as `FitResult.weights` gives them."""
    model = build_network(replace(options, precision="float32"), side)
    model.set_weights([*model.get_weights()[: -len(head)], *head])
    return model


def _head_layers(model: keras.Model) -> list[Any]:
    """From the first that takes the joined features on."""
    names = [layer.name for layer in model.layers]
    return [model.layers[place] for place in range(_first(names), len(names))]


def _first(names: list[str]) -> int:
    before = [place for place, name in enumerate(names) if name == "join" or name.startswith("pool")]
    return before[-1] + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of faces in one epoch, in blocks that processes of a node may share."""

    ids: Rows
    """`face_id` of each, ascending."""
    blocks: Sequence[Floats]
    """One after another, shape (n, features) each."""

    def take(self, ids: Rows) -> Floats:
        """Of these faces, shape (n, features). Raises ValueError if one is not there."""
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        if not np.array_equal(self.ids[places], ids):
            raise ValueError(f"features: {(self.ids[places] != ids).sum()} of {len(ids)} faces are missing")
        starts = np.cumsum([0, *map(len, self.blocks)])
        blocks = np.searchsorted(starts, places, side="right") - 1
        out = np.empty((len(ids), self.blocks[0].shape[1]), np.float32)
        for number in np.unique(blocks):
            here = blocks == number
            out[here] = self.blocks[number][places[here] - starts[number]]
        return out


def face_id(rows: Rows, synthetic: npt.NDArray[np.bool_]) -> Rows:
    """Tells a face from the fake that is made of it."""
    return 2 * rows + synthetic


def epoch_ids(plan: EpochPlan) -> Rows:
    """The faces of a plan, ascending."""
    return np.unique(np.concatenate([face_id(lane.rows, lane.synthetic) for lane in plan.lanes]))


def trunk_step(options: NetworkOptions, side: int, augment: Augment | None) -> Step:
    """Pixels and their draws to features, compiled by the backend that keras is loaded with."""
    import keras

    trunk = build_trunk(options, side)

    def features(images: Any, draws: Any) -> Any:
        return trunk(images if augment is None else augment(images, draws), training=False)

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(features)
    else:
        import tensorflow as tf

        compiled = tf.function(features)
    return lambda images, draws: np.asarray(compiled(images, draws), np.float32)


def compute_features(step: Step, reader: FaceReader, ids: Rows, epoch: int, batch_size: int) -> Floats:
    """Features of faces as training meets them in an epoch, or with `PLAIN` as they are: shape (n, features).

    `step` takes `batch_size` places, the last of which may be empty; for `PLAIN` it must not augment.
    """
    plan = _plan_of(ids, batch_size)
    batches = reader.batches(plan, epoch, training=epoch != PLAIN)
    return np.concatenate([step(batch.images, batch.draws)[batch.rows != UNUSED] for batch in batches])


class FeatureFeed:
    """`fit.feed.Feed` of features: the batches of `ReaderFeed`, with features in the place of pixels."""

    def __init__(
        self,
        side: int,
        index: FaceIndex,
        train: Rows,
        validation: Rows,
        options: DataOptions,
        features: Callable[[int], Features],
    ) -> None:
        """`features` gives those of an epoch, or of `PLAIN`; of augmented training it is asked for each epoch once."""
        self.side = side
        self._index, self._options, self._features = index, options, features
        self._train, self._validation = train, validation

    def training(self, epoch: int) -> Pass:
        """See `Feed`."""
        plan = plan_epoch(self._index, self._train, self._options, epoch)
        return _pass(plan, self._features(epoch if changes(self._options) else PLAIN))

    def validation(self) -> Pass:
        """See `Feed`."""
        return self.scan(self._validation)

    def scan(self, rows: Rows) -> Pass:
        """Each of these faces once."""
        return _pass(
            plan_scan(self._index, rows, self._options.batch_size, even=self._options.balance != "none"),
            self._features(PLAIN),
        )


def changes(options: DataOptions) -> bool:
    """Whether a face looks different in each epoch."""
    return options.augment != "none" or options.synthetic != "none"


def needed_ids(
    index: FaceIndex, train: Rows, validation: Rows, options: DataOptions, epochs: int
) -> Mapping[int, Rows]:
    """Of which faces features are needed, by epoch and for `PLAIN`."""
    plain = [face_id(validation, np.zeros(len(validation), np.bool_))]
    found: dict[int, Rows] = {}
    for epoch in range(1, epochs + 1):
        ids = epoch_ids(plan_epoch(index, train, options, epoch))
        if changes(options):
            found[epoch] = ids
        else:
            plain.append(ids)
    return {PLAIN: np.unique(np.concatenate(plain)), **found}


def _pass(plan: EpochPlan, features: Features) -> Pass:
    def batches(start_step: int) -> Iterator[Batch]:
        for step in range(start_step, plan.steps):
            yield _batch(plan, step, features)

    return Pass(steps=plan.steps, faces=plan.faces, batches=batches)


def _batch(plan: EpochPlan, step: int, features: Features) -> Batch:
    """As `FaceReader` lays it out for one worker."""
    places = plan.places(1)
    rows = np.full(places, UNUSED, np.int64)
    labels, weights = np.zeros(places, np.float32), np.zeros(places, np.float32)
    synthetic = np.zeros(places, np.bool_)
    for number, lane in enumerate(plan.lanes):
        part = slice(step * plan.lane_batch, min((step + 1) * plan.lane_batch, len(lane)))
        size = max(0, part.stop - part.start)
        here = slice(number * plan.lane_batch, number * plan.lane_batch + size)
        rows[here], labels[here], weights[here] = lane.rows[part], lane.labels[part], lane.weights[part]
        synthetic[here] = lane.synthetic[part]
    used = rows != UNUSED
    values = np.zeros((places, 1, 1, features.blocks[0].shape[1]), np.float32)
    values[used, 0, 0] = features.take(face_id(rows[used], synthetic[used]))
    return Batch(
        # Where the network begins with features, they are what a batch holds of a face.
        images=cast("npt.NDArray[np.uint8]", values),
        labels=labels, weights=weights, draws=identity(places), rows=rows,
        total_weight=float(plan.total_weights[step]),
    )  # fmt: skip


def _plan_of(ids: Rows, batch_size: int) -> EpochPlan:
    """One lane of these faces in their order."""
    count = len(ids)
    lane = Lane(
        rows=ids // 2, synthetic=(ids % 2).astype(np.bool_), labels=np.zeros(count, np.float32),
        weights=np.ones(count, np.float32), windows=np.array([0, count], np.int64),
    )  # fmt: skip
    return EpochPlan(
        lanes=(lane,), lane_batch=batch_size, pool=np.unique(lane.rows), total_weights=np.ones(-(-count // batch_size))
    )
