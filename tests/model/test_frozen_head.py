from pathlib import Path

import numpy as np
import pytest

from batch.faces.options import CropOptions, FaceOptions
from batch.model.fit.feed import ReaderFeed
from batch.model.fit.loop import fit
from batch.model.fit.options import FitOptions
from batch.model.index import load_index
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions
from batch.model.reader import FaceReader
from batch.storage.local import LocalStorage
from tests.benchmarks.accuracy import WEIGHTS
from tests.benchmarks.frozen_head import FrozenNetwork
from tests.support.face_outputs import Clip, picture, write_output

SIDE = 71

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights: {WEIGHTS} is absent")


@pytest.mark.slow
def test_a_head_on_stored_features_is_the_head_that_fit_trains(tmp_path: Path) -> None:
    sink = LocalStorage(str(tmp_path))
    clips = [Clip(key=f"{n}.jpg", label=n % 2, source=f"s{n}", crops=[picture(n, SIDE)]) for n in range(22)]
    write_output(sink, clips, options=FaceOptions(crop=CropOptions(crop_size=SIDE)))
    index = load_index([sink])
    network = NetworkOptions(weights=str(WEIGHTS), features="multi")
    data = DataOptions(batch_size=8, augment="none")
    options = FitOptions(epochs=0, head_epochs=3, head_learning_rate=1e-2, seed=5)
    train, held_out = np.arange(16), np.arange(16, 22)

    with FaceReader(index, data) as reader:
        frozen = FrozenNetwork(network, reader.side, options.seed)
        features = frozen.features(reader, index, np.arange(22))
        untrained = frozen.logits(features)
        frozen.train_head(features, index, train, held_out, data, options)
        feed = ReaderFeed(reader, index, train, held_out, data)
        fitted = fit(network, feed, options).score(feed.scan(np.arange(22))).scores

    assert np.abs(frozen.logits(features) - untrained).max() > 0.1
    assert np.allclose(frozen.logits(features), fitted.logits, atol=2e-3)
