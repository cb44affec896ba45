"""Probabilities of frames in, one score a followed face (track) and one an item out, by a stated rule.

The rules: `mean`; `max`; and `confident`, after the winner of the Deepfake Detection Challenge
(https://github.com/selimsef/dfdc_deepfake_challenge): if enough frames are surely fake, the mean of those; if nearly
all are surely real, the mean of those; else the mean of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from batch.model.calibration import Floats, even_odds, log_loss

RuleName = Literal["mean", "max", "confident"]

SURE_FAKE, SURE_REAL = 0.8, 0.2
FAKE_SHARE, MIN_FAKE_FRAMES = 0.4, 3
"""So many frames must be surely fake. The winner asked for 12 of his 32 frames at least, more than a third; with any
number of frames here, three are asked for, so that a single odd frame never decides."""
REAL_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """How an item's score comes from its frames' scores."""

    frames: RuleName = "mean"
    """From the frames of a track to the track."""
    tracks: RuleName = "max"
    """From the tracks of an item to the item. One swapped face among several makes a clip a fake, so that the most
    suspicious one stands for it unless validation shows otherwise."""
    why: str = "not chosen on data"
    """How it was chosen, in a sentence."""

    def __post_init__(self) -> None:
        """Refuses an unknown rule."""
        for name in (self.frames, self.tracks):
            if name not in get_args(RuleName):
                raise ValueError(f"aggregation: got {name!r}, expected one of {', '.join(get_args(RuleName))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Scores of groups of values. All arrays have the shape (keys,), keys in rising order."""

    keys: npt.NDArray[np.generic]
    scores: Floats
    counts: npt.NDArray[np.int64]
    """Values in each group."""
    errors: Floats
    """Standard error of the group's mean: how far its values disagree; NaN for a single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores of tracks and of the items that they belong to."""

    tracks: Pooled
    """Keys are `track_ids` below."""
    track_items: npt.NDArray[np.generic]
    """Each track's item, shape (tracks,)."""
    track_ids: npt.NDArray[np.generic]
    """Each track's id within its item, shape (tracks,)."""
    items: Pooled
    """Keys are items; counts and errors are over the item's frames, not over its tracks."""


def pool(values: npt.ArrayLike, keys: npt.ArrayLike, rule: RuleName) -> Pooled:
    """One score for all values of each key.

    Args:
        values: probabilities from 0 to 1, shape (n,); none may be NaN.
        keys: to which group each belongs, shape (n,), any dtype that sorts.
        rule: see the module.

    Raises:
        ValueError: for a value that is no probability.
    """
    p, named = np.asarray(values, np.float64), np.asarray(keys)
    if np.any(~((p >= 0) & (p <= 1))):
        raise ValueError(f"pool: got {p[~((p >= 0) & (p <= 1))][0]}, expected probabilities from 0 to 1")
    unique, place = np.unique(named, return_inverse=True)
    size = len(unique)
    counts = np.bincount(place, minlength=size)
    mean = _means(p, place, size)
    spread = np.bincount(place, (p - mean[place]) ** 2, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(counts > 1, np.sqrt(spread / (counts - 1) / counts), np.nan)
    if rule == "max":
        scores = np.full(size, -np.inf)
        np.maximum.at(scores, place, p)
    else:
        scores = mean if rule == "mean" else _confident(p, place, counts, mean)
    return Pooled(keys=unique, scores=scores, counts=counts, errors=errors)


def score_items(probabilities: npt.ArrayLike, items: npt.ArrayLike, tracks: npt.ArrayLike, rule: Aggregation) -> Scored:
    """Frames to tracks to items.

    Args:
        probabilities: of frames, shape (n,).
        items: the clip or image that each frame is of, shape (n,).
        tracks: the followed face within the item, shape (n,).
        rule: for either step.
    """
    p, named, followed = np.asarray(probabilities, np.float64), np.asarray(items), np.asarray(tracks)
    _, item_place = np.unique(named, return_inverse=True)
    ids, id_place = np.unique(followed, return_inverse=True)
    joint = item_place.astype(np.int64) * max(len(ids), 1) + id_place
    _, first = np.unique(joint, return_index=True)
    by_track = pool(p, joint, rule.frames)
    by_item = pool(by_track.scores, named[first], rule.tracks)
    over_frames = pool(p, named, "mean")
    return Scored(
        tracks=Pooled(keys=followed[first], scores=by_track.scores, counts=by_track.counts, errors=by_track.errors),
        track_items=named[first],
        track_ids=followed[first],
        items=Pooled(
            keys=by_item.keys, scores=by_item.scores, counts=over_frames.counts, errors=over_frames.errors
        ),
    )  # fmt: skip


def choose_aggregation(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, items: npt.ArrayLike, tracks: npt.ArrayLike
) -> Aggregation:
    """The rule of least log-loss over validation's items, at even odds.

    Ties go to `mean` over frames and to `max` over tracks (`Aggregation` says why). Where validation cannot tell,
    since its items have one frame or one track or one class, the same ones are taken.

    Args:
        probabilities: calibrated, of validation's frames, shape (n,).
        labels: 1 fake, 0 real; one label an item.
        items: as in `score_items`.
        tracks: as in `score_items`.
    """
    y, named, followed = np.asarray(labels, np.int64), np.asarray(items), np.asarray(tracks)
    unique, first, counts = np.unique(named, return_index=True, return_counts=True)
    of_item = y[first]
    if len(np.unique(of_item)) < 2 or not np.any(counts > 1):
        return Aggregation(why="validation cannot tell the rules apart: its items have one frame each, or one class")
    several = len(np.unique(np.rec.fromarrays([np.searchsorted(unique, named), followed]))) > len(unique)
    over_tracks: tuple[RuleName, ...] = ("max", "mean", "confident") if several else ("max",)
    weights = even_odds(of_item, np.ones(len(of_item)))
    losses: dict[tuple[RuleName, RuleName], float] = {}
    for frames in get_args(RuleName):
        for track in over_tracks:
            found = score_items(probabilities, named, followed, Aggregation(frames=frames, tracks=track))
            losses[frames, track] = log_loss(found.items.scores, of_item, weights)
    # Rules are tried in the order of preference, and rounding noise decides nothing.
    best = min(losses, key=lambda pair: round(losses[pair], 9))
    told = ", ".join(
        f"{frames}{f' then {track}' if several else ''} {loss:.4f}" for (frames, track), loss in losses.items()
    )
    return Aggregation(frames=best[0], tracks=best[1], why=f"log-loss of validation's items: {told}")


def _means(p: Floats, place: npt.NDArray[np.intp], size: int) -> Floats:
    return np.asarray(np.bincount(place, p, size) / np.maximum(np.bincount(place, minlength=size), 1))


def _confident(p: Floats, place: npt.NDArray[np.intp], counts: npt.NDArray[np.int64], mean: Floats) -> Floats:
    size = len(counts)
    fake, real = p > SURE_FAKE, p < SURE_REAL
    fakes, reals = np.bincount(place[fake], minlength=size), np.bincount(place[real], minlength=size)
    of_fakes, of_reals = _means(p[fake], place[fake], size), _means(p[real], place[real], size)
    surely_fake = (fakes > FAKE_SHARE * counts) & (fakes >= MIN_FAKE_FRAMES)
    return np.where(surely_fake, of_fakes, np.where(reals > REAL_SHARE * counts, of_reals, mean))
