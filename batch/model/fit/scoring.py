"""Faces through an engine: logits gathered from all workers, and the metrics that steer training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.model.fit.engine import Engine
from batch.model.records import UNUSED, Batch, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledScores:
    """Scores of all workers with what the batches said of the faces, ascending by row; shape (n,) each."""

    scores: Scores
    labels: npt.NDArray[np.float32]
    """1 fake, 0 real."""
    weights: npt.NDArray[np.float32]
    """0 for an unknown label; of even odds where training has them."""


Logits = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From crops, (n, side, side, 3), to log-odds, (n,)."""


def score(engine: Engine, batches: Iterable[Batch], logits_of: Logits | None = None) -> LabelledScores:
    """Score each face of the batches, by the engine or, where it is given, by `logits_of`.

    Collective: every worker gives its part, as many batches each, and gets all.
    """
    logits_of = logits_of or engine.logits
    rows: list[npt.NDArray[np.int64]] = []
    values: list[npt.NDArray[np.float32]] = []
    for batch in batches:
        rows.append(batch.rows)
        values.append(np.stack([logits_of(batch.images), batch.labels, batch.weights], axis=1))
    # Rows go as int32: JAX knows no larger whole numbers unless told to.
    gathered_rows = engine.gather(np.concatenate(rows).astype(np.int32)).astype(np.int64)
    gathered = engine.gather(np.concatenate(values).astype(np.float32))
    order = np.argsort(gathered_rows, kind="stable")
    order = order[gathered_rows[order] != UNUSED]
    logits, labels, weights = gathered[order].T
    return LabelledScores(
        scores=Scores(rows=gathered_rows[order], logits=logits.copy()), labels=labels.copy(), weights=weights.copy()
    )


def quick_metrics(found: LabelledScores) -> dict[str, float]:
    """Weighted `loss` (binary cross-entropy) and `accuracy` at one half, and `auc` where both classes are there.

    Unlabelled faces do not count. Raises ValueError if no face has a label.
    """
    from sklearn.metrics import roc_auc_score

    known = found.weights > 0
    logits, labels = found.scores.logits[known].astype(np.float64), found.labels[known]
    if not len(labels):
        raise ValueError(f"no labelled face to validate on: received {len(known)} faces, expected some with labels")
    losses, right = np.logaddexp(0.0, logits) - labels * logits, (logits > 0) == (labels > 0.5)
    metrics = {
        name: float(np.average(each, weights=found.weights[known]))
        for name, each in (("loss", losses), ("accuracy", right))
    }
    if 0 < labels.sum() < len(labels) and np.isfinite(logits).all():
        metrics["auc"] = float(roc_auc_score(labels, logits))
    return metrics
