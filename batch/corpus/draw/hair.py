"""Hair and beards: masks over the head, and the colour of strands before light."""

from __future__ import annotations

import cv2
import numpy as np

from batch.corpus.draw.identity import Identity
from batch.corpus.draw.relief import (
    CANVAS,
    CROWN_Y,
    FloatMap,
    Window,
    bump,
    grain,
    half_width,
    soft,
)
from batch.corpus.draw.skin import blend, scaled

_GROWTH = {"bald": 0.0, "cropped": 0.045, "short": 0.12, "fringe": 0.13, "long": 0.13, "curly": 0.28, "bun": 0.07}
"""How far the hair stands from the skull, by style, in head units."""
_ENDS = {"long": 2.05, "fringe": 1.3, "curly": 0.95}
_BURNS = {"cropped": 0.15, "short": 0.32, "fringe": 0.9, "long": 1.2, "curly": 0.5, "bun": 0.12}


def hair_back(who: Identity, win: Window) -> FloatMap:
    """Mask of the hair behind the head: what falls beside face and neck, and a bun."""
    if who.hair_style == "bun":
        return soft(0.36 - np.hypot(win.x, (win.y - CROWN_Y + 0.14) * 1.1), 0.05)
    if who.hair_style not in _ENDS:
        return np.zeros_like(win.x)
    end, grow = _ENDS[who.hair_style], _GROWTH[who.hair_style]
    ragged = _ragged(who, win)
    flare = 1.02 + 0.75 * grow + 0.1 * np.clip(win.y, 0, 3) * (who.hair_style == "long")
    flare = flare + 0.03 * np.sin(win.y * 5 + who.parting * 5) + ragged * 0.02
    up = np.clip((0.1 - win.y) / (0.08 - CROWN_Y + grow), 0, 1)
    top = np.sqrt(1 - up**2.3) * (up < 1)
    taper = 1 - 0.35 * np.clip((win.y - end + 0.7) / 0.7, 0, 1) ** 2
    below = soft(end - 0.1 * np.cos(win.x * 2) - win.y + ragged * 0.07, 0.16)
    # The neck stands before this hair, though it is drawn before the head is.
    neck = soft(0.52 - np.abs(win.x), 0.1) * soft(win.y - 1.05, 0.2)
    return np.asarray(soft(flare * top * taper - np.abs(win.x), 0.04) * below * (1 - neck) * (up < 1), np.float32)


def hair_front(who: Identity, win: Window) -> FloatMap:
    """Mask of the hair on the skull: everything above the hairline and beside the temples."""
    if who.hair_style == "bald":
        return np.zeros_like(win.x)
    ragged = _ragged(who, win)
    grow = _GROWTH[who.hair_style] + ragged * (0.045 if who.hair_style == "curly" else 0.012)
    stretched = np.asarray((win.y + 0.1) / (1 + 0.62 * grow) - 0.1, np.float32)
    outer = soft(half_width(who, stretched) * (1 + grow) - np.abs(win.x), 0.03) * (stretched > CROWN_Y)
    opening = _face_opening(who, win, ragged)
    ends = soft(_BURNS[who.hair_style] - win.y + ragged * 0.03, 0.14)
    return np.asarray(outer * (1 - opening) * ends, np.float32)


def _face_opening(who: Identity, win: Window, ragged: FloatMap) -> FloatMap:
    """1 where no hair covers the face."""
    line = who.hairline + 0.025 * ragged
    if who.hair_style == "fringe":
        line = np.minimum(line, 0.5 + 0.05 * np.cos(win.x * 3 + who.parting) + 0.03 * ragged)
    elif who.hair_style in {"short", "long"}:
        line = line + 0.1 - 0.24 * np.exp(-0.5 * ((win.x + who.parting * 1.4) / 0.42) ** 2)
    elif who.age > 0.55 and who.beard != "none":
        line = line + 0.14 * np.exp(-0.5 * ((np.abs(win.x) - 0.5) / 0.2) ** 2)
    side = 0.9 if who.hair_style in {"long", "fringe"} else 0.93
    above = (np.abs(win.x) / side) ** 3.4 + np.clip(-win.y / line, 0, 3) ** 2.8
    return soft(np.asarray((1 - above) * 0.2, np.float32), 0.03)


def _ragged(who: Identity, win: Window) -> FloatMap:
    """Noise that makes edges look like locks: round ones for curls, drawn out for straight hair."""
    if who.hair_style == "curly":
        return grain(who.seed + 8, CANVAS, 30)[win.slices]
    return np.asarray(_drawn_out(who, win, 150, sigma=2.2) * 1.4, np.float32)


def hair_depth(who: Identity, win: Window, head: FloatMap) -> FloatMap:
    """The coat's height field: that of the head, smoothed, with strands."""
    return np.asarray(cv2.GaussianBlur(head, (0, 0), 8) + _strands(who, win) * 0.008, np.float32)


def hair_albedo(who: Identity, win: Window) -> FloatMap:
    """Colour of the strands, with a sheen across the crown, shape (height, width, 3)."""
    strands = _strands(who, win)
    coat = np.asarray(who.hair, np.float32) * np.clip(0.92 + 0.22 * strands, 0.45, 1.4)[..., None]
    if who.hair_style in {"curly", "cropped"}:
        return np.asarray(np.clip(coat, 0, 1), np.float32)
    wave = win.y + 1.12 + 0.16 * np.abs(win.x)
    sheen = np.exp(-0.5 * (wave / 0.14) ** 2) * np.clip(0.5 + 0.5 * strands, 0, 1) * 0.2
    coat = coat + sheen[..., None] * (0.3 + 0.7 * np.asarray(who.hair, np.float32))
    return np.asarray(np.clip(coat, 0, 1), np.float32)


def _strands(who: Identity, win: Window) -> FloatMap:
    """Noise along the way that hair lies, about unit variance."""
    if who.hair_style == "curly":
        mixed = grain(who.seed + 9, CANVAS, 46) * 0.7 + grain(who.seed + 13, CANVAS, 110) * 0.5
        return np.asarray(mixed[win.slices], np.float32)
    if who.hair_style == "cropped":
        return np.asarray(grain(who.seed + 9, CANVAS, 260)[win.slices] * 0.6, np.float32)
    return _drawn_out(who, win, 300, sigma=1.3)


def _drawn_out(who: Identity, win: Window, frequency: float, sigma: float) -> FloatMap:
    """Noise that changes fast around the crown and slowly away from it."""
    noise = np.random.default_rng(who.seed + 10).standard_normal((64, 1024), np.float32)
    sheet = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma, sigmaY=1.0)
    u, v = win.x + who.parting * 0.5, win.y - CROWN_Y + 0.17
    angle = np.arctan2(u, np.maximum(v, 0.02) + 0.35) * np.float32(frequency)
    radius = np.hypot(u, v) * 7
    columns, rows = np.mod(angle + 512, 1000), np.mod(radius, 60)
    drawn = cv2.remap(sheet, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(drawn * (2.6 * sigma / 1.6), np.float32)


def paint_beard(who: Identity, win: Window, image: FloatMap) -> FloatMap:
    """Beard over unlit skin, so that light and relief shape it too. `stubble` only shades."""
    if who.beard == "none":
        return image
    lips = np.hypot(win.x / (who.mouth_width * 1.02), (win.y - who.mouth_y - 0.02) / (0.15 * who.lip_fullness))
    hairs = grain(who.seed + 12, CANVAS, 260)[win.slices]
    strength = 0.3 if who.beard == "stubble" else 0.86
    alpha = _beard_mask(who, win) * soft(np.asarray(lips - 1, np.float32), 0.15) * strength
    alpha = np.clip(alpha * (1 + 0.12 * hairs), 0, 0.95)
    tone = np.asarray(scaled(who.hair, 0.75), np.float32) * (1 + 0.16 * hairs)[..., None]
    return blend(image, np.asarray(np.clip(tone, 0, 1), np.float32), np.asarray(alpha, np.float32))


def _beard_mask(who: Identity, win: Window) -> FloatMap:
    low = soft(win.y - who.mouth_y + 0.03 + 0.16 * np.clip(np.abs(win.x) - 0.3, 0, 1), 0.16)
    edge = half_width(who, win.y) - np.abs(win.x)
    jaw = soft(win.y - 0.15 - 0.95 * np.clip(0.24 - edge, 0, 1), 0.2) * soft(0.24 - edge, 0.12)
    lip = win.y - who.mouth_y + 0.14 - 0.22 * win.x**2
    moustache = soft(0.085 - np.abs(lip), 0.06) * soft(0.42 - np.abs(win.x), 0.1)
    if who.beard == "moustache":
        return moustache
    if who.beard == "goatee":
        chin = np.clip(bump(win, 0, who.mouth_y + 0.36, 0.27, 0.2) * 1.35, 0, 1)
        return np.asarray(np.maximum(moustache, chin), np.float32)
    return np.asarray(np.maximum(np.maximum(jaw, low), moustache), np.float32)
