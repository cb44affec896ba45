"""Faces and a network in, logits out, in pieces that can be scored side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from batch.model.plan import DataOptions, Rows, plan_scan
from batch.model.reader import FaceReader
from batch.model.records import UNUSED, FaceIndex, Scores

if TYPE_CHECKING:
    from batch.model.predictor import BatchPredictor

PREDICTIONS = "predictions.parquet"
CHUNK_FACES = 2048
"""Faces that one task scores: some seconds on a GPU, two minutes of Xception on a core."""


def chunks(index: FaceIndex, rows: Rows) -> list[Rows]:
    """The rows in pieces of about `CHUNK_FACES` that keep a shard's faces together: each shard is read once."""
    ordered = np.sort(rows)
    shards = index.table["shard"].to_numpy()[ordered]
    cuts, start = [], 0
    for change in [*(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(ordered)]:
        if change - start >= CHUNK_FACES or change == len(ordered):
            cuts.append(ordered[start:change])
            start = change
    return [part for part in cuts if len(part)]


def score_faces(index: FaceIndex, rows: Rows, predictor: BatchPredictor, *, threads: int | None = None) -> Scores:
    """Logits of the crops at `rows`, as they are stored: no augmentation; `threads` decode (default: one a core).

    Raises `ValueError` as `FaceReader` does.
    """
    plan = plan_scan(index, rows, predictor.batch_size)
    seen, logits = [], []
    with FaceReader(index, DataOptions(cache="none"), threads=threads) as reader:
        for batch in reader.batches(plan, 0, training=False):
            used = batch.rows != UNUSED
            seen.append(batch.rows[used])
            logits.append(predictor(batch.images)[used])
    return Scores(rows=np.concatenate(seen), logits=np.concatenate(logits))


def joined(parts: Sequence[Scores]) -> Scores:
    """All parts, in the order of the index."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    return Scores(rows=rows[order], logits=np.concatenate([part.logits for part in parts])[order])
