"""Detections of successive frames in, one number for the same face over the frames out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batch.records import Box, Detection

# Evenly spaced frames lie far apart: a head may have moved by its own width, seldom by more, and never doubled.
_REACH = 1.0
_GROWTH = 2.0


class Tracker:
    """Follows faces by the nearest centre among boxes of like size. Numbers begin at 0."""

    def __init__(self) -> None:
        self._last: list[Box] = []

    def assign(self, found: Sequence[Detection]) -> list[int]:
        """The track of each detection of one frame, in the order given; no two share one."""
        pairs = sorted(
            (distance, number, track)
            for number, detection in enumerate(found)
            for track, last in enumerate(self._last)
            if (distance := _distance(detection.box_px, last)) is not None
        )
        tracks: dict[int, int] = {}
        for _, number, track in pairs:
            if number not in tracks and track not in tracks.values():
                tracks[number] = track
        for number, detection in enumerate(found):
            if number not in tracks:
                tracks[number] = len(self._last)
                self._last.append(detection.box_px)
            self._last[tracks[number]] = detection.box_px
        return [tracks[number] for number in range(len(found))]


def _distance(box: Box, last: Box) -> float | None:
    """Between centres in widths of the larger box; None where it cannot be the same face."""
    larger, smaller = max(box.width, last.width), max(1, min(box.width, last.width))
    dx = (box.left + box.right - last.left - last.right) / 2
    dy = (box.top + box.bottom - last.top - last.bottom) / 2
    distance = math.hypot(dx, dy) / max(1, larger)
    return distance if distance <= _REACH and larger <= _GROWTH * smaller else None
