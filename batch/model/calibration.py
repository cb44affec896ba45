"""Logits of validation faces in, a map from logits to probabilities out that keeps its promises.

A network's sigmoid is mostly too sure of itself (Guo et al. 2017, https://arxiv.org/abs/1706.04599). Two maps are
known here: a temperature, by which every logit is divided, and isotonic regression, a rising curve of any form
(Zadrozny and Elkan 2002). Both keep the order of the faces.

A probability is one at even odds: in the fit both classes count the same, since corpora are mostly fakes and archives
hardly any, and neither's mix belongs into a score. What a score means at another prevalence is Bayes' rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedGroupKFold

Floats = npt.NDArray[np.float64]

CalibrationKind = Literal["none", "temperature", "isotonic"]

MIN_ISOTONIC_FACES = 1000
"""Faces of the rarer class under which isotonic regression overfits
(https://scikit-learn.org/stable/modules/calibration.html says "much less than 1000")."""
_FOLDS = 5
_MIN_GROUPS = 2
_COLDEST, _HOTTEST = 0.05, 1000.0
"""A network that is far too sure wants 30 or so; only one that tells nothing wants ever more."""
_MAX_KNOTS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a logit becomes a probability. Plain numbers, so that nothing is unpickled to use it."""

    kind: CalibrationKind = "none"
    """`none` is the network's own sigmoid."""
    temperature: float = 1.0
    """Of `temperature`: the logit is divided by it; over 1 for a network that was too sure."""
    logits: tuple[float, ...] = ()
    """Of `isotonic`: knots, rising; between them the probability is a straight line, beyond them constant."""
    probabilities: tuple[float, ...] = ()
    why: str = "not fitted"
    """How it was chosen, in a sentence."""

    def __post_init__(self) -> None:
        """Refuses what cannot be a calibration."""
        if self.kind not in get_args(CalibrationKind):
            raise ValueError(f"calibration: got {self.kind!r}, expected one of {', '.join(get_args(CalibrationKind))}")
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"calibration: got temperature {self.temperature}, expected a number above 0")
        knots = np.asarray(self.logits, np.float64), np.asarray(self.probabilities, np.float64)
        if len(knots[0]) != len(knots[1]) or (self.kind == "isotonic") != bool(len(knots[0])):
            raise ValueError(
                f"calibration: got {len(knots[0])} logits and {len(knots[1])} probabilities for {self.kind}, "
                "expected as many of one as of the other, and some for isotonic alone"
            )
        if any(np.any(np.diff(part) < 0) for part in knots) or np.any((knots[1] < 0) | (knots[1] > 1)):
            raise ValueError("calibration: expected rising knots with probabilities from 0 to 1")

    @property
    def flattened(self) -> bool:
        """Whether the temperature is the hottest that is tried: where all scores are one half, the loss is least."""
        return self.kind == "temperature" and self.temperature > 0.99 * _HOTTEST

    def __call__(self, logits: npt.ArrayLike) -> Floats:
        """Probabilities of fake for logits of any shape, as float64."""
        values = np.asarray(logits, np.float64)
        if self.kind == "isotonic":
            return np.asarray(np.interp(values, self.logits, self.probabilities))
        return np.asarray(expit(values / self.temperature))


NO_CALIBRATION = Calibration()


def fit_calibration(
    logits: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Calibration:
    """Fits a temperature and, where the faces are enough for it, isotonic regression, and keeps the better one.

    Better is the lower log-loss in five-fold cross-validation over groups; a tie goes to the temperature.

    Args:
        logits: of validation faces, shape (n,).
        labels: 1 fake, 0 real, shape (n,); no unknown ones.
        groups: the split's groups, shape (n,), any dtype.
        weights: of each face; one over the number of its clip's frames lets every clip count the same. The classes
            are brought to the same sum.

    Returns:
        `none`, with the reason in `why`, where a class is missing.
    """
    x, y, named = np.asarray(logits, np.float64), np.asarray(labels, np.int64), np.asarray(groups)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if set(np.unique(y)) != {0, 1}:
        return Calibration(why="not fitted: validation has faces of one class only")
    w = w * even_odds(y, w)
    rarer = int(np.bincount(y, minlength=2).min())
    if rarer < MIN_ISOTONIC_FACES or _rarer_groups(y, named) < _MIN_GROUPS:
        return _temperature(x, y, w, f"temperature: isotonic regression wants {MIN_ISOTONIC_FACES:,} faces of either "
                            f"class, validation has {rarer:,} of one")  # fmt: skip
    loss_t = _cross_validated(lambda a, b, c: _temperature(a, b, c, ""), x, y, w, named)
    loss_i = _cross_validated(lambda a, b, c: _isotonic(a, b, c, ""), x, y, w, named)
    told = f"log-loss in cross-validation over groups: temperature {loss_t:.4f}, isotonic {loss_i:.4f}"
    return _isotonic(x, y, w, told) if loss_i < loss_t else _temperature(x, y, w, told)


def even_odds(labels: npt.NDArray[np.int64], weights: Floats) -> Floats:
    """Factors of the weights that give each class half of their sum, shape (n,)."""
    sums = np.bincount(labels, weights, 2)
    return np.asarray(sums.sum() / (2 * sums))[labels]


def log_loss(probabilities: Floats, labels: npt.NDArray[np.int64], weights: Floats) -> float:
    """Mean negative log-likelihood; a probability of 0 or 1 counts as 1e-7 from it."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return float(-np.sum(weights * (xlogy(labels, p) + xlogy(1 - labels, 1 - p))) / np.sum(weights))


def _temperature(x: Floats, y: npt.NDArray[np.int64], w: Floats, why: str) -> Calibration:
    """The temperature of least log-loss.

    Labels are drawn in as Platt (1999) does, by one made-up face a class: classes that are fully parted would
    otherwise give a temperature of zero, and every score would be a certainty.
    """
    fakes, reals = float(np.sum(w * y)), float(np.sum(w * (1 - y)))
    target = np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    def loss(log_t: float) -> float:
        z = x / np.exp(log_t)
        return float(np.sum(w * (np.logaddexp(0, z) - target * z)))

    found = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return Calibration(kind="temperature", temperature=float(np.exp(found.x)), why=why)


def _isotonic(x: Floats, y: npt.NDArray[np.int64], w: Floats, why: str) -> Calibration:
    """Isotonic regression, each of its flat steps drawn in to its middle.

    Between the middles the curve rises, so that unlike faces keep unlike scores (Oron and Flournoy 2017, centered
    isotonic regression). Kept off 0 and 1: no finite number of faces shows that there are no others.
    """
    bound = 1 / (len(x) + 2)
    fitted = IsotonicRegression(y_min=bound, y_max=1 - bound, out_of_bounds="clip").fit(x, y, w).predict(x)
    knots_y, step = np.unique(fitted, return_inverse=True)
    knots_x = np.bincount(step, w * x) / np.bincount(step, w)
    if len(knots_x) > _MAX_KNOTS:
        kept = np.unique(np.linspace(0, len(knots_x) - 1, _MAX_KNOTS).astype(np.int64))
        knots_x, knots_y = knots_x[kept], knots_y[kept]
    # The outermost steps go on rising, up to half the way to certainty at the outermost faces.
    ends = (min(float(x.min()), knots_x[0] - 1e-3), max(float(x.max()), knots_x[-1] + 1e-3))
    knots_x = np.concatenate([ends[:1], knots_x, ends[1:]])
    knots_y = np.concatenate([[knots_y[0] / 2], knots_y, [(knots_y[-1] + 1) / 2]])
    return Calibration(kind="isotonic", logits=tuple(knots_x.tolist()), probabilities=tuple(knots_y.tolist()), why=why)


def _cross_validated(
    fit: Callable[[Floats, npt.NDArray[np.int64], Floats], Calibration],
    x: Floats, y: npt.NDArray[np.int64], w: Floats, groups: npt.NDArray[np.generic],
) -> float:  # fmt: skip
    out = np.empty(len(x))
    folds = StratifiedGroupKFold(min(_FOLDS, _rarer_groups(y, groups)), shuffle=True, random_state=0)
    for train, held in folds.split(x, y, groups):
        out[held] = fit(x[train], y[train], w[train])(x[held])
    return log_loss(out, y, w)


def _rarer_groups(y: npt.NDArray[np.int64], groups: npt.NDArray[np.generic]) -> int:
    return min(len(np.unique(groups[y == label])) for label in (0, 1))
