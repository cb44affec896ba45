"""Heads trained on features that were computed once are those that `fit` trains on pixels; decoded faces are faces."""

from functools import partial

import numpy as np
import pytest

from batch.model.augment import apply
from batch.model.crops import DecodedFaces
from batch.model.fit.feed import ReaderFeed
from batch.model.fit.frozen import FeatureFeed, Features, build_head, compute_features, graft, needed_ids, trunk_step
from batch.model.fit.loop import fit
from batch.model.fit.options import FitOptions
from batch.model.network import NetworkOptions, build_network
from batch.model.plan import DataOptions, plan_epoch
from batch.model.reader import FaceReader
from batch.model.records import FaceIndex
from batch.storage.local import LocalStorage
from tests.support.face_shards import write_index

TRAIN, HELD_OUT = np.arange(30), np.arange(30, 47)
SIDE = 32


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    labels = [[0, 1] * 8, [1] * 9 + [0] * 5, [0, 1, 1] * 5 + [0, 1]]
    return write_index(LocalStorage(tmp_path_factory.mktemp("faces")), labels)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, index: FaceIndex) -> NetworkOptions:
    path = tmp_path_factory.mktemp("weights") / "cnn.weights.h5"
    build_network(NetworkOptions(model="cnn"), SIDE).get_layer("backbone").save_weights(path)
    return NetworkOptions(model="cnn", weights=str(path), features="multi", dense_units=(8,), dropout=0.4)


def decoded(index: FaceIndex) -> DecodedFaces:
    rows = np.arange(index.table.num_rows)
    with FaceReader(index, DataOptions()) as reader:
        return DecodedFaces(rows, [reader.images(part) for part in np.array_split(rows, 4)])


@pytest.mark.parametrize("synthetic", ["none", "self-blended"])
def test_decoded_faces_give_the_batches_of_shards(index: FaceIndex, synthetic: str) -> None:
    data = DataOptions(batch_size=8, augment="robust", synthetic=synthetic, max_faces=24, seed=3)
    plan = plan_epoch(index, TRAIN, data, 2)
    faces = decoded(index)
    assert faces.holds(plan.pool) and not faces.holds(np.array([99]))
    with FaceReader(index, data) as one, FaceReader(index, data, source=faces) as other:
        pairs = list(zip(one.batches(plan, 2, training=True), other.batches(plan, 2, training=True), strict=True))
    assert len(pairs) == plan.steps
    for mine, theirs in pairs:
        assert mine.total_weight == theirs.total_weight
        for name in ("images", "labels", "weights", "draws", "rows"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize(("augment", "synthetic"), [("robust", "none"), ("none", "none"), ("none", "self-blended")])
def test_a_head_on_features_is_the_head_of_pixels(
    index: FaceIndex, network: NetworkOptions, augment: str, synthetic: str
) -> None:
    data = DataOptions(batch_size=8, augment=augment, synthetic=synthetic, seed=5)
    options = FitOptions(
        epochs=0, head_epochs=2, optimizer="nadam", head_learning_rate=0.05, weight_decay=0.01, ema=0.7, seed=5
    )
    recipe = None if augment == "none" else partial(apply, recipe=augment)
    with FaceReader(index, data) as reader:
        feed = ReaderFeed(reader, index, TRAIN, HELD_OUT, data)
        pixels = fit(network, feed, options, augment=recipe)
        scores = pixels.score(feed.scan(HELD_OUT)).scores
        steps = {False: trunk_step(network, SIDE, None), True: trunk_step(network, SIDE, recipe)}
        features = {}
        for epoch, ids in needed_ids(index, TRAIN, HELD_OUT, data, 2).items():
            parts = [compute_features(steps[epoch > 0], reader, part, epoch, 4) for part in np.array_split(ids, 3)]
            features[epoch] = Features(ids=ids, blocks=parts)
    assert set(features) == ({0} if augment == "none" == synthetic else {0, 1, 2})
    mine = FeatureFeed(SIDE, index, TRAIN, HELD_OUT, data, features.__getitem__)
    head = fit(network, mine, options, build=build_head)
    for one, other in zip(pixels.history, head.history, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-4)
        assert other.validation == pytest.approx(one.validation, abs=1e-4)
    np.testing.assert_allclose(head.score(mine.scan(HELD_OUT)).scores.logits, scores.logits, atol=1e-4)
    whole, same = pixels.model().get_weights(), graft(network, SIDE, head.weights).get_weights()
    for one, other in zip(whole, same, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_missing_features_are_an_error(index: FaceIndex) -> None:
    held = Features(ids=np.array([0, 2, 6]), blocks=[np.zeros((3, 2), np.float32)])
    with pytest.raises(ValueError, match="1 of 2 faces are missing"):
        held.take(np.array([2, 4]))
