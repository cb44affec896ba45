"""The default detector: BlazeFace says where a face may be, dlib's HOG looks there and decides.

1. The network looks at the squares that cover the frame, two for 16:9. In the frame as a whole a small face has too few
   of its 192 pixels (75 of 1280 become eleven), and fewer still are answered for beside a large face.
2. Answers that lie together share one patch, scaled so that the face is about 90 px, at a scale of the image pyramid
   that dlib climbs on the whole frame: so it tries the same sizes, and boxes agree with those of `hog`.
3. What dlib finds there is the detection. Its box goes back to pixels of the frame.
4. Where nothing was found: what the network answered faintly is looked at again through up to two windows of twice the
   resolution; then dlib searches the frame, much reduced, for a close-up, which the network, made for faces across a
   room, does not see.

Scores are dlib's, from -0.1 on: a place that the network points at needs a little less evidence than any of the million
windows of a frame.

Measured (`tests/benchmarks/detectors.py`, 53 clips of 360p to 1080p): 15 ms a frame where dlib over the whole frame
takes 378 ms, 18 against 645 ms at 1080p; the same decision on all 53, mean IoU of the boxes 0.82. Two passes of the
network are 7 ms of it. Faces below 7% of the shorter side are missed more often than by `hog`.
Tried and left out, with ms a 1080p frame where this takes 18: one pass over the whole frame and a second look at what
is faint there costs the same and misses 65% of the faces of 10% of the height that stand beside a large one; three
passes cost 4 more and find the same. Windows over all answers, those that dlib had just refused too: 1 more, and they
find no more. One window (1 less), no window where dlib refused a sure answer (2 less), no patch where one was refused
(1 less): each loses a face of 118 and one decision. Asking dlib about faint answers with no second look: 6 more, 20
more for a lone small face; of 17 of 5% it finds 15 instead of 11, of 7% 15 instead of 17. Four windows: 1 more, and 12
of the 17 of 5%. Dlib's search of the whole frame wherever nothing was found (`recheck_empty`): 45 more, 14 on all
clips, and the same faces on 106 frames. A close-up from 40% of the shorter side instead of 30%: 0.5 less, and misses
faces that fill the frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import dlib
import numpy as np

from batch.faces.blazeface import BlazeFace, Floats, Proposals, intersection_over_union, join, resized, suppress
from batch.faces.detect import DetectOptions, Frame
from batch.records import Box, Detection, LumaImage

# The network's scores: from `_SURE` dlib is asked at once, from `_HINT` after a second look.
_HINT, _SURE = 0.05, 0.2
# Frames up to this ratio of their sides are one square, and so are strips; squares overlap by `_SEAM` of their side.
_NEARLY_SQUARE, _STRIP, _SEAM = 1.4, 4.0, 0.2
# Side of a window of the second look, as a share of the frame's shorter side.
_WINDOW_SHARE, _MAX_WINDOWS = 0.5, 2
# Bounds what a crowd costs: about 2.5 ms a patch.
_MAX_PATCHES = 24

# dlib looks at the frame doubled once, then at that shrunk by 5/6 again and again.
_PYRAMID = 2 * (5 / 6) ** np.arange(24)
_FACE_PX = 90
# Side of a patch in faces. With 2.2 the boxes come closer to those of the whole frame (IoU 0.84 instead of 0.82), and a
# patch takes a fifth longer: 0.6 ms a 1080p frame. The same faces are found.
_PATCH_SIDES = 2.0
# Faces that differ less than this are found at one scale; a shared patch must save a tenth of the pixels.
_LIKE_SIZE, _SHARE_GAIN = 1.6, 0.9
_HOG_THRESHOLD = -0.1
# dlib's smallest box, in pixels of the image that it is given.
_HOG_WINDOW_PX = 72
# Share of the shorter side from which a face is a close-up. Searching for those of 0.2 takes three times as long.
_CLOSE_UP = 0.3
_SAME_FACE = 0.3


class CascadeDetector:
    """Proposals of a small network, confirmed by dlib's HOG on patches of the brightness plane, one thread."""

    name = "cascade"
    batch_frames = 1

    def __init__(self, options: DetectOptions) -> None:
        """Loads the network and the detector, 60 ms; sets OpenCV to one thread in this process."""
        cv2.setNumThreads(1)
        self._net = BlazeFace()
        self._hog: Any = dlib.get_frontal_face_detector()
        self._options = options

    def detect(self, frame: Frame) -> list[Detection]:
        """The faces of one frame, best first. Those below `min_face` are not sought, yet one may be among them."""
        luma = frame.luma()
        smallest_px = self._options.min_face * min(luma.shape)
        hints = self._look(luma, _squares(frame.width_px, frame.height_px), _HINT, smallest_px)
        sure = hints.scores >= _SURE
        found = self._confirm(luma, hints.where(sure))
        if not found and not sure.all():
            # Not where dlib has just said no: the windows are few.
            windows = _windows(suppress(hints.where(~sure)), frame.width_px, frame.height_px)
            found = self._confirm(luma, self._look(luma, windows, _SURE, smallest_px))
        if not found:
            found = self._search(luma, smallest_px if self._options.recheck_empty else self._close_up_px(luma))
        return _distinct(found)

    def detect_many(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """One after the other: on one thread a batch of the network takes as long as its frames."""
        return [self.detect(frame) for frame in frames]

    def _look(self, luma: LumaImage, windows: Iterable[Box], threshold: float, smallest_px: float) -> Proposals:
        """What the network sees in one window or more; overlapping answers are not yet merged."""
        seen = join([self._net.propose(luma, window, threshold) for window in windows])
        inside = ((seen.centres >= 0) & (seen.centres < luma.shape[::-1])).all(axis=1)
        # The network's boxes of small faces come out too large, by up to a half.
        return seen.where(inside & (seen.sides >= smallest_px / 1.5))

    def _confirm(self, luma: LumaImage, proposals: Proposals) -> list[Detection]:
        """Asks dlib about the proposals; the same face may come back from two patches."""
        height, width = luma.shape
        found: list[Detection] = []
        for patch, side_px in _patches(suppress(proposals), width, height)[:_MAX_PATCHES]:
            if any(_is_at_centre(face.box_px, patch, side_px) for face in found):
                continue
            scale = float(_PYRAMID[np.argmin(np.abs(np.log(_PYRAMID * side_px / _FACE_PX)))])
            found += self._hog_at(luma, patch, scale, _HOG_THRESHOLD)
        return found

    def _close_up_px(self, luma: LumaImage) -> float:
        return float(max(_CLOSE_UP, self._options.min_face) * min(luma.shape))

    def _search(self, luma: LumaImage, smallest_px: float) -> list[Detection]:
        """Dlib's faces in the whole frame, scaled so that its smallest box is the smallest face."""
        height, width = luma.shape
        whole = Box(left=0, top=0, right=width, bottom=height)
        return self._hog_at(luma, whole, min(2.0, _HOG_WINDOW_PX / smallest_px), 0.0)

    def _hog_at(self, luma: LumaImage, part: Box, scale: float, threshold: float) -> list[Detection]:
        """Dlib's faces in a part of the frame resized by `scale`, in pixels of the frame and cut to it."""
        height, width = luma.shape
        size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
        picture = resized(luma[part.top : part.bottom, part.left : part.right], size)
        rects, scores, _ = self._hog.run(picture, 0, threshold)
        across, down = part.width / size[0], part.height / size[1]
        return [
            Detection(
                box_px=Box(
                    left=max(0, round(rect.left() * across) + part.left),
                    top=max(0, round(rect.top() * down) + part.top),
                    right=min(width, round(rect.right() * across) + part.left),
                    bottom=min(height, round(rect.bottom() * down) + part.top),
                ),
                score=float(score),
            )
            for rect, score in zip(rects, scores, strict=True)
        ]


def _squares(width: int, height: int) -> list[Box]:
    """Squares that cover the frame side by side, overlapping by a fifth or more; or the frame itself."""
    long, short = max(width, height), min(width, height)
    if long <= _NEARLY_SQUARE * short or long > _STRIP * short:
        return [Box(left=0, top=0, right=width, bottom=height)]
    count = math.ceil((long / short - _SEAM) / (1 - _SEAM))
    starts = [(long - short) * number // (count - 1) for number in range(count)]
    if width >= height:
        return [Box(left=start, top=0, right=start + short, bottom=short) for start in starts]
    return [Box(left=0, top=start, right=short, bottom=start + short) for start in starts]


def _windows(hints: Proposals, width: int, height: int) -> Iterator[Box]:
    """Square windows over the hints, the best first, each over as many as fit; at most `_MAX_WINDOWS`."""
    side = max(1, int(_WINDOW_SHARE * min(width, height)))
    left = hints.centres
    for _ in range(_MAX_WINDOWS):
        if not len(left):
            return
        near = left[(np.abs(left - left[0]) < 0.45 * side).all(axis=1)]
        centre = (near.min(axis=0) + near.max(axis=0)) / 2
        x = int(np.clip(centre[0] - side / 2, 0, width - side))
        y = int(np.clip(centre[1] - side / 2, 0, height - side))
        yield Box(left=x, top=y, right=x + side, bottom=y + side)
        left = left[~((left > (x, y)) & (left < (x + side, y + side))).all(axis=1)]


def _patches(proposals: Proposals, width: int, height: int) -> list[tuple[Box, float]]:
    """Parts of the frame to look at closely, best first, with the side of the face expected in each, in pixels.

    Proposals of like size share a patch where that makes less to look at than one for each: a face at a distance draws
    three or four that do not overlap enough to be the same.
    """
    areas: list[Floats] = []
    sides: list[list[float]] = []
    for centre, side in zip(proposals.centres, proposals.sides, strict=True):
        reach = _PATCH_SIDES * side / 2
        area = np.concatenate([centre - reach, centre + reach])
        for held, expected in zip(areas, sides, strict=True):
            union = np.concatenate([np.minimum(held[:2], area[:2]), np.maximum(held[2:], area[2:])])
            alike = 1 / _LIKE_SIZE < side / np.median(expected) < _LIKE_SIZE
            if alike and _extent(union) < _SHARE_GAIN * (_extent(held) + _extent(area)):
                held[:] = union
                expected.append(float(side))
                break
        else:
            areas.append(area)
            sides.append([float(side)])
    boxes = [_inside(area, width, height) for area in areas]
    patches = zip(boxes, sides, strict=True)
    return [(box, float(np.median(expected))) for box, expected in patches if min(box.width, box.height) >= 16]


def _extent(box: Floats) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _inside(box: Floats, width: int, height: int) -> Box:
    """The part of a box within the frame, in whole pixels."""
    left, top, right, bottom = (round(float(value)) for value in box)
    return Box(left=max(left, 0), top=max(top, 0), right=min(right, width), bottom=min(bottom, height))


def _is_at_centre(face: Box, patch: Box, side_px: float) -> bool:
    """Whether a face that was found is the one that a patch is to show."""
    x, y = (patch.left + patch.right) / 2, (patch.top + patch.bottom) / 2
    return face.left < x < face.right and face.top < y < face.bottom and face.width > side_px / 2


def _distinct(found: list[Detection]) -> list[Detection]:
    """Best first, without those that overlap a better one: two patches can show the same face."""
    kept: list[Detection] = []
    edges = np.empty((0, 4), np.float32)
    for face in sorted(found, key=lambda face: -(face.score or 0.0)):
        box = face.box_px
        edge = np.array([box.left, box.top, box.right, box.bottom], np.float32)
        if not (intersection_over_union(edge, edges) >= _SAME_FACE).any():
            kept.append(face)
            edges = np.vstack([edges, edge])
    return kept
