"""What trials can take from one another: which faces they look at, and whose features are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batch.faces.options import digest_of
from batch.model.fit.frozen import changes, needed_ids
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions, Rows, plan_epoch
from batch.model.records import FaceIndex
from batch.model.tuning.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGroup:
    """Trials whose heads learn from the same features."""

    network: NetworkOptions
    """Of one of them; the head does not matter."""
    data: DataOptions
    """Of one of them."""
    ids: Mapping[int, Rows]
    """Of which faces features are needed, by epoch and for `frozen.PLAIN` (`frozen.face_id`)."""

    @property
    def faces(self) -> int:
        """Over all epochs."""
        return sum(map(len, self.ids.values()))


def group_of(recipe: Recipe) -> str | None:
    """Names the features that a trial's head learns from; None where its backbone changes."""
    if not recipe.is_frozen:
        return None
    network, data = recipe.network, recipe.data
    looks = [data.augment, data.synthetic, data.seed] if changes(data) else []
    return digest_of([network.model, network.source_of_weights, network.features, network.precision, *looks])[:10]


def feature_groups(
    index: FaceIndex, train: Rows, validation: Rows, recipes: Sequence[Recipe]
) -> dict[str, FeatureGroup]:
    """The groups of these trials, each with all faces that any of its trials will ask for."""
    found: dict[str, FeatureGroup] = {}
    for recipe in recipes:
        name = group_of(recipe)
        if name is None:
            continue
        ids = dict(needed_ids(index, train, validation, recipe.data, recipe.fit.head_epochs))
        if name in found:
            for epoch, earlier in found[name].ids.items():
                ids[epoch] = np.union1d(ids.get(epoch, earlier), earlier)
        found[name] = FeatureGroup(network=recipe.network, data=recipe.data, ids=dict(sorted(ids.items())))
    return found


def faces_of(index: FaceIndex, train: Rows, validation: Rows, recipes: Sequence[Recipe]) -> Rows:
    """Every face that a trial looks at, ascending."""
    pools = {recipe.data: plan_epoch(index, train, recipe.data, 1).pool for recipe in recipes}
    return np.unique(np.concatenate([validation, *pools.values()]))
