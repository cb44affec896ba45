"""Faces as the network meets them in its first epoch, on one sheet: what augmentation and blending do to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from batch.model.plan import DataOptions, Rows, plan_epoch
from batch.model.reader import FaceReader
from batch.model.records import FaceIndex

SHEET = "augmented.png"
"""Where it lies under OUTPUT."""
_FACES = 32


def augmented_sheet(reader: FaceReader, index: FaceIndex, train: Rows, data: DataOptions) -> bytes:
    """A PNG of the first faces that this reader's worker is given. Computes with Keras, on its default device."""
    from batch.model.augment import apply, contact_sheet

    plan = plan_epoch(index, train, data, 1)
    found: list[npt.NDArray[np.float32]] = []
    for batch in reader.batches(plan, 1, training=True):
        used = batch.weights > 0
        images, draws = batch.images[used], batch.draws[used]
        pixels = images if data.augment == "none" else apply(images, draws, data.augment)
        found.append(np.asarray(pixels, np.float32))
        if sum(map(len, found)) >= _FACES:
            break
    return contact_sheet(np.concatenate(found)[:_FACES])
