"""A seed in, a drawn person out: proportions, colours, hair, glasses. Nothing here draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rgb = tuple[float, float, float]
"""Colour as red, green, blue, 0 to 1, as displayed (sRGB)."""

HairStyle = Literal["bald", "cropped", "short", "fringe", "long", "curly", "bun"]
BeardStyle = Literal["none", "stubble", "moustache", "goatee", "full"]

# From light to dark, as displayed under white light.
_SKINS: tuple[Rgb, ...] = (
    (0.93, 0.77, 0.69),
    (0.89, 0.71, 0.60),
    (0.84, 0.65, 0.51),
    (0.77, 0.56, 0.43),
    (0.66, 0.45, 0.35),
    (0.53, 0.35, 0.27),
    (0.42, 0.28, 0.22),
)
_HAIRS: tuple[Rgb, ...] = (
    (0.07, 0.06, 0.06),
    (0.13, 0.09, 0.07),
    (0.24, 0.15, 0.10),
    (0.38, 0.24, 0.14),
    (0.62, 0.47, 0.28),
    (0.46, 0.21, 0.10),
)
_GREY: Rgb = (0.66, 0.65, 0.64)
_IRISES: tuple[Rgb, ...] = ((0.23, 0.14, 0.08), (0.33, 0.21, 0.11), (0.34, 0.40, 0.27), (0.36, 0.48, 0.60))
_CLOTHES: tuple[Rgb, ...] = (
    (0.16, 0.18, 0.24),
    (0.45, 0.13, 0.14),
    (0.20, 0.35, 0.30),
    (0.75, 0.74, 0.71),
    (0.30, 0.42, 0.60),
    (0.58, 0.45, 0.28),
    (0.12, 0.12, 0.12),
    (0.52, 0.36, 0.48),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person. Lengths are in units of half the head's width (about 68 mm), from the middle of the eye line."""

    seed: int
    """Of everything grained: pores, strands, freckles, folds."""
    skin: Rgb
    redness: float
    freckles: float
    age: float
    """0 (about 20) to 1 (about 70): wrinkles and grey hair."""
    face_length: float
    """Eye line to chin."""
    jaw: float
    """Roundness exponent of the lower face: 2 pointed to 3 square."""
    eye_gap: float
    """Middle of the face to the middle of an eye."""
    eye_width: float
    """Half an eye's width."""
    eye_open: float
    """Half an eye's height."""
    eye_tilt: float
    iris: Rgb
    brow_height: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    nose_bridge: float
    mouth_width: float
    mouth_curve: float
    """How far the corners hang; below 0 they are lifted."""
    lip_fullness: float
    hair: Rgb
    hair_style: HairStyle
    hairline: float
    """Eye line up to the hair."""
    parting: float
    beard: BeardStyle
    glasses: bool
    clothes: Rgb
    voice_hz: float

    @property
    def mouth_y(self) -> float:
        """Eye line to the line between the lips."""
        return 0.62 * self.face_length + 0.02

    @property
    def nose_y(self) -> float:
        """Eye line to the base of the nose."""
        return self.nose_length


def draw_identity(seed: int, number: int, skin_rank: float) -> Identity:
    """Makes person `number` of the corpus `seed`. `skin_rank` (0 light to 1 dark) spreads tones over the corpus."""
    rng = np.random.default_rng([seed, 11, number])
    age = float(rng.beta(1.2, 1.8))
    masculine = bool(rng.random() < 0.5)
    style, beard = _styles(rng, masculine)
    hair = _mix(_HAIRS[_pick_hair(rng, skin_rank)], _GREY, max(0.0, age - 0.55) * 1.9)
    return Identity(
        seed=int(rng.integers(2**31)),
        skin=_jitter(rng, _ramp(_SKINS, skin_rank), 0.01),
        redness=float(rng.uniform(0.3, 1.0)),
        freckles=float(max(0.0, rng.uniform(-1.6, 1.0))) if skin_rank < 0.5 else 0.0,
        age=age,
        face_length=float(rng.uniform(1.56, 1.76)),
        jaw=float(rng.uniform(2.35, 3.0) if masculine else rng.uniform(2.0, 2.5)),
        eye_gap=float(rng.uniform(0.415, 0.47)),
        eye_width=float(rng.uniform(0.205, 0.24)),
        eye_open=float(rng.uniform(0.072, 0.1)),
        eye_tilt=float(rng.uniform(-0.03, 0.12)),
        iris=_IRISES[int(rng.integers(0, 2 if skin_rank > 0.45 else len(_IRISES)))],
        brow_height=float(rng.uniform(0.27, 0.34)),
        brow_thickness=float(rng.uniform(0.055, 0.08) if masculine else rng.uniform(0.035, 0.055)),
        brow_arch=float(rng.uniform(0.02, 0.09)),
        nose_width=float(rng.uniform(0.2, 0.25) + 0.05 * skin_rank),
        nose_length=float(rng.uniform(0.62, 0.74)),
        nose_bridge=float(rng.uniform(0.7, 1.2)),
        mouth_width=float(rng.uniform(0.34, 0.42)),
        mouth_curve=float(rng.uniform(-0.055, 0.015)),
        lip_fullness=float(rng.uniform(0.75, 1.15) + 0.2 * skin_rank),
        hair=_jitter(rng, hair, 0.02),
        hair_style=style,
        hairline=float(rng.uniform(0.82, 1.0) + (0.12 * age if masculine else 0.0)),
        parting=float(rng.uniform(-0.5, 0.5)),
        beard=beard,
        glasses=bool(rng.random() < 0.22),
        clothes=_jitter(rng, _CLOTHES[int(rng.integers(len(_CLOTHES)))], 0.04),
        voice_hz=float(rng.uniform(95, 140) if masculine else rng.uniform(170, 230)),
    )


def _styles(rng: np.random.Generator, masculine: bool) -> tuple[HairStyle, BeardStyle]:
    if not masculine:
        styles: tuple[HairStyle, ...] = ("long", "long", "fringe", "curly", "bun", "short")
        return styles[int(rng.integers(len(styles)))], "none"
    styles = ("bald", "cropped", "short", "short", "cropped", "curly")
    beards: tuple[BeardStyle, ...] = ("none", "none", "stubble", "moustache", "goatee", "full")
    return styles[int(rng.integers(len(styles)))], beards[int(rng.integers(len(beards)))]


def _pick_hair(rng: np.random.Generator, skin_rank: float) -> int:
    # Fair hair goes with fair skin here, so that hair and skin stay apart for a detector.
    return int(rng.integers(0, 2 if skin_rank > 0.6 else len(_HAIRS)))


def _ramp(colours: tuple[Rgb, ...], rank: float) -> Rgb:
    place = min(max(rank, 0.0), 1.0) * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return _mix(colours[low], colours[low + 1], place - low)


def _mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    share = min(max(share, 0.0), 1.0)
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def _jitter(rng: np.random.Generator, colour: Rgb, amount: float) -> Rgb:
    red, green, blue = (float(min(max(c + rng.normal(0, amount), 0.02), 0.98)) for c in colour)
    return red, green, blue
