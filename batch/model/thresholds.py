"""Scores of validation's items in, the operating points and the three bands of a score out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from batch.model.calibration import Floats

Band = Literal["likely real", "uncertain", "likely fake"]

FEW_FALSE_POSITIVES = 0.01
_ABOVE = 5e-7
"""By so much a threshold lies above a score: tables hold scores as float32, which may round them up by 3e-8."""
MIN_REALS = 100
"""Real items under which a false-positive rate of 1% cannot be told from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Probabilities from which on an item counts as fake, fitted on validation's items."""

    half: float = 0.5
    equal_error: float | None = None
    """Where as large a share of the fakes is missed as of the reals is suspected; None without both classes."""
    few_false: float | None = None
    """Where 1% of the real items are suspected at most; None with fewer than 100 real items."""
    real_below: float = 0.2
    """Under it an item is likely real."""
    fake_from: float = 0.8
    """From it on an item is likely fake; between the two it is uncertain."""
    why: str = "not fitted"

    def __post_init__(self) -> None:
        """Refuses what is no threshold."""
        for name in ("half", "equal_error", "few_false", "real_below", "fake_from"):
            value = getattr(self, name)
            # Above 1 is "nothing counts as fake".
            if value is not None and not 0 <= value <= 1.000001:
                raise ValueError(f"threshold {name}: got {value}, expected a probability")
        if self.real_below > self.fake_from:
            raise ValueError(f"bands: got likely real below {self.real_below} and likely fake from {self.fake_from}")

    def band(self, score: float) -> Band:
        """What a score says."""
        return "likely fake" if score >= self.fake_from else "likely real" if score < self.real_below else "uncertain"

    def points(self) -> tuple[tuple[str, float], ...]:
        """Names and values of those operating points that there are."""
        named = (("half", self.half), ("equal_error", self.equal_error), ("few_false", self.few_false))
        return tuple((name, value) for name, value in named if value is not None)


def fit_thresholds(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Thresholds:
    """Thresholds and bands from validation's items.

    The bands: likely fake from where 1% of the real items at most are suspected, and from 0.8 on at the least; likely
    real below where 1% of the fakes at most are missed, and below 0.2 at the most. So the uncertain band is never
    narrower than 0.2 to 0.8: classes that are parted in validation are not so in what nobody has seen.

    Args:
        scores: calibrated and aggregated probabilities, shape (items,).
        labels: 1 fake, 0 real, shape (items,).
    """
    p, y = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    reals, fakes = p[y == 0], p[y == 1]
    if not len(reals) or not len(fakes):
        return Thresholds(why="not fitted: validation has items of one class only")
    few = _few_false(reals)
    missed = float(np.quantile(fakes, FEW_FALSE_POSITIVES, method="lower"))
    enough = len(reals) >= MIN_REALS
    told = f"fitted on {len(reals):,} real and {len(fakes):,} fake items of validation"
    return Thresholds(
        equal_error=_equal_error(p, y),
        few_false=few if enough else None,
        real_below=min(missed, Thresholds().real_below),
        fake_from=max(few, Thresholds().fake_from),
        why=told if enough else f"{told}; a rate of 1% false positives wants {MIN_REALS} real ones",
    )


def _equal_error(p: Floats, y: npt.NDArray[np.int64]) -> float:
    """Where the two error rates are closest: in the middle of the gap between two scores that gives the same errors."""
    fpr, tpr, cuts = roc_curve(y, p, drop_intermediate=False)
    cut = float(cuts[1:][np.argmin(np.abs(fpr - (1 - tpr))[1:])])
    below = p[p < cut]
    return (cut + float(below.max())) / 2 if len(below) else cut


def _few_false(reals: Floats) -> float:
    """The least threshold that 1% of the reals at most reach: just above the score of one of them, also of a 1."""
    allowed = int(np.floor(FEW_FALSE_POSITIVES * len(reals)))
    return float(np.sort(reals)[::-1][allowed]) + _ABOVE
