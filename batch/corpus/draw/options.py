"""What can be chosen about the drawn corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOptions:
    """What corpus is drawn. Equal options give equal bytes on the same lock and kind of processor."""

    seed: int = 0
    identities: int = 24
    """People with a real clip, one each."""
    parts: int = 3
    fakes_per_real: int = 5
    """As in DFDC, where 83% of the clips are fake."""
    shortest_s: float = 1.5
    longest_s: float = 2.6
    max_height: int = 1080
    """Frames are no higher than this, pixels."""
    planted: bool = True
    """Adds one file of every odd or broken kind."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
        _check("seed", self.seed, 0, 2**31 - 1)
        _check("identities", self.identities, 2, 10_000)
        _check("parts", self.parts, 1, self.identities)
        _check("fakes a real", self.fakes_per_real, 0, 100)
        _check("shortest clip in seconds", self.shortest_s, 0.2, 60)
        _check("longest clip in seconds", self.longest_s, self.shortest_s, 60)
        _check("height in pixels", self.max_height, 360, 1080)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value}, expected {low} to {high}")
