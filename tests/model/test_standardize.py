"""Features of several depths are brought to one scale by what training meets first."""

from pathlib import Path

import numpy as np
import pytest

from batch.model.fit.feed import ReaderFeed
from batch.model.fit.loop import fit
from batch.model.fit.options import FitOptions
from batch.model.fit.standardize import STEPS
from batch.model.network import STANDARDIZE, NetworkOptions, build_network
from batch.model.plan import DataOptions, plan_epoch
from batch.model.reader import FaceReader
from batch.model.records import FaceIndex
from batch.storage.local import LocalStorage
from tests.support.face_shards import write_index

TRAIN, HELD_OUT = np.arange(40), np.arange(40, 47)
SIDE = 32


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    labels = [[0, 1] * 8, [1] * 9 + [0] * 5, [0, 1, 1] * 5 + [0, 1]]
    return write_index(LocalStorage(tmp_path_factory.mktemp("faces")), labels)


def fitted(index: FaceIndex, network: NetworkOptions) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance that the trained network subtracts and divides by."""
    data = DataOptions(batch_size=2, augment="none", balance="none")
    with FaceReader(index, data) as reader:
        feed = ReaderFeed(reader, index, TRAIN, HELD_OUT, data)
        result = fit(network, feed, FitOptions(head_epochs=1, epochs=1))
    mean, variance = result.model().get_layer(STANDARDIZE).get_weights()
    return mean, variance


def test_mean_and_variance_are_those_of_the_first_faces(index: FaceIndex, tmp_path: Path) -> None:
    import keras

    path = tmp_path / "cnn.weights.h5"
    whole = build_network(NetworkOptions(model="cnn", features="multi"), SIDE)
    whole.get_layer("backbone").save_weights(path)
    data = DataOptions(batch_size=2, augment="none", balance="none")
    below = keras.Model(whole.input, whole.get_layer(STANDARDIZE).input)
    lane = plan_epoch(index, TRAIN, data, 1).lanes
    rows = np.concatenate([each.rows[: STEPS * 2 // len(lane)] for each in lane])
    with FaceReader(index, data) as reader:
        found = np.asarray(below(reader.images(rows), training=False))

    mean, variance = fitted(index, NetworkOptions(model="cnn", weights=str(path), features="multi"))

    # The backbone learnt in the second stage; what its first features were still stands.
    np.testing.assert_allclose(mean, found.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, found.var(axis=0), rtol=1e-2, atol=1e-5)


def test_a_network_from_noise_keeps_its_features_as_they_are(index: FaceIndex) -> None:
    mean, variance = fitted(index, NetworkOptions(model="cnn", features="multi"))

    assert not mean.any()
    assert (variance == 1).all()
