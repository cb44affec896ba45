"""What trials have in common is made once, on a real Ray: faces are decoded, landmarks found, features computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.model.fit.frozen import PLAIN, face_id, needed_ids
from batch.model.fit.options import FitOptions
from batch.model.index import load_index
from batch.model.landmarks import KEY
from batch.model.network import NetworkOptions, build_network
from batch.model.plan import DataOptions
from batch.model.tuning.recipe import Recipe
from batch.storage.local import LocalStorage
from jobs.session import ray_session
from jobs.tune_options import Resources
from jobs.tune_share import share, share_landmarks
from jobs.tune_trial import shared_landmarks
from tests.support.face_outputs import SIDE
from tests.support.learnable import write_learnable
from tests.support.logged_storage import LoggedStorage


def heads(weights: Path) -> list[Recipe]:
    """Four on one frozen network; two of them need an epoch more."""
    build_network(NetworkOptions(model="cnn"), SIDE).get_layer("backbone").save_weights(weights)
    network = NetworkOptions(model="cnn", weights=str(weights))
    data = DataOptions(batch_size=8, augment="none", synthetic="self-blended")
    return [
        Recipe(network=replace(network, dropout=dropout), data=data, fit=FitOptions(epochs=0, head_epochs=epochs))
        for dropout in (0.0, 0.5)
        for epochs in (1, 2)
    ]


@pytest.mark.slow
def test_four_heads_read_each_shard_once_and_share_landmarks_and_features(tmp_path: Path) -> None:
    sink, output = LoggedStorage(tmp_path / "faces"), LocalStorage(tmp_path / "tuned")
    write_learnable(sink, sources=12)
    index, recipes = load_index([sink]), heads(tmp_path / "cnn.weights.h5")
    train, validation = np.arange(20), np.arange(20, 24)
    shards = {shard.key for shard in index.shards}
    sink.reads()
    with ray_session(None, 1) as ray:
        assert share_landmarks(ray, index, train, output, [replace(recipes[0], data=DataOptions())]) is None
        assert not output.exists(KEY) and not sink.reads()
        landmarks = share_landmarks(ray, index, train, output, recipes)
        assert sink.reads() == dict.fromkeys(shards, 1)
        known, table = shared_landmarks(landmarks, index), output.read(KEY)
        assert known is not None and len(known) == (index.labels[train] == 0).sum()
        again = share_landmarks(ray, index, train, output, recipes)
        assert not sink.reads() and output.read(KEY) == table and again is not None

        shared = share(ray, index, train, validation, recipes, Resources(), "all", landmarks)
        # Features are computed of the decoded faces, which alone looked into the shards.
        assert sink.reads() == dict.fromkeys(shards, 1)
        assert shared.faces is not None and sum(map(len, ray.get(list(shared.faces.blocks)))) == len(shared.faces.ids)
        (group,) = shared.features.values()
        wanted = needed_ids(index, train, validation, recipes[0].data, 2)
        assert {epoch: each.ids.tolist() for epoch, each in group.items()} == {
            epoch: ids.tolist() for epoch, ids in wanted.items()
        }
        made = {epoch: np.concatenate(ray.get(list(each.blocks))) for epoch, each in group.items()}
        assert {epoch: len(features) for epoch, features in made.items()} == {
            epoch: len(ids) for epoch, ids in wanted.items()
        }
        assert shared.seconds > 0
    # A real face has the same features in both epochs, and the fake that is made of it has others.
    row = int(train[index.labels[train] == 0][0])
    face, fake = (int(face_id(np.array([row]), np.array([made_here]))[0]) for made_here in (False, True))
    place = {epoch: dict(zip(ids.tolist(), range(len(ids)), strict=True)) for epoch, ids in wanted.items()}
    first, second = (made[epoch][place[epoch][face]] for epoch in (1, 2))
    np.testing.assert_allclose(first, second, rtol=1e-5)
    blended = [made[epoch][place[epoch][fake]] for epoch in (1, 2)]
    assert not np.allclose(blended[0], first, rtol=1e-3) and PLAIN in made
