"""Skin as it is before light falls on it, and the two ways to lay colour on colour."""

from __future__ import annotations

import numpy as np

from batch.corpus.draw.identity import Identity, Rgb
from batch.corpus.draw.relief import (
    CANVAS,
    FloatMap,
    Window,
    bump,
    grain,
    pair,
    soft,
)


def blend(base: FloatMap, colour: Rgb | FloatMap, alpha: FloatMap) -> FloatMap:
    """Paints a colour over an RGB map, alpha 0 to 1 a pixel."""
    top = np.asarray(colour, np.float32)
    return np.asarray(base + (top - base) * alpha[..., None], np.float32)


def scaled(colour: Rgb, factor: float) -> Rgb:
    """A darker or lighter colour of the same hue."""
    red, green, blue = (min(max(c * factor, 0.0), 1.0) for c in colour)
    return red, green, blue


def skin_albedo(who: Identity, win: Window) -> FloatMap:
    """Skin colour of every pixel of the window, shape (height, width, 3), with blush, blotches, pores and freckles."""
    rows, columns = win.slices
    blotches = (
        grain(who.seed, CANVAS, 14)[rows, columns] * 0.012 + grain(who.seed + 1, CANVAS, 60)[rows, columns] * 0.012
    )
    pores = grain(who.seed + 2, CANVAS, 300)[rows, columns] * (0.018 + 0.012 * who.age)
    tone = np.asarray(who.skin, np.float32) * (1 + blotches + pores)[..., None]
    blush = pair(win, 0.55, 0.42, 0.22, 0.17) * 0.8 + bump(win, 0, who.nose_y - 0.08, 0.17, 0.14)
    blush = (blush + 0.4 * bump(win, 0, who.face_length, 0.3, 0.16)) * 0.07 * who.redness
    tone = tone * (1 + blush[..., None] * np.array([0.35, -1.0, -0.85], np.float32))
    rings = pair(win, who.eye_gap - 0.03, 0.12, 0.17, 0.07) * (0.06 + 0.08 * who.age)
    rings = rings + pair(win, who.eye_gap, -0.13, 0.2, 0.06) * 0.07
    tone = tone * (1 - rings[..., None] * np.array([0.8, 1.0, 0.9], np.float32))
    if who.freckles > 0:
        spots = soft(grain(who.seed + 3, CANVAS, 110)[rows, columns] - 1.35, 0.3) * pair(win, 0.35, 0.35, 0.35, 0.25)
        tone = blend(tone, scaled(who.skin, 0.62), np.clip(spots * who.freckles * 0.7, 0, 1))
    return np.asarray(np.clip(tone * (1 - _wrinkles(who, win))[..., None], 0, 1), np.float32)


def _wrinkles(who: Identity, win: Window) -> FloatMap:
    """Darkening by forehead lines and crow's feet, 0 for the young."""
    if who.age < 0.35:
        return np.zeros_like(win.x)
    wave = win.y + 0.03 * np.cos(win.x * 2.4) + 0.008 * np.sin(win.x * 9)
    lines = sum(np.exp(-0.5 * ((wave + y) / 0.011) ** 2) for y in (0.5, 0.61, 0.73))
    lines = lines * soft(0.55 - np.abs(win.x), 0.3)
    fan_x, fan_y = np.abs(win.x) - who.eye_gap - who.eye_width, win.y - 0.02
    fan = np.exp(-0.5 * (np.sin(np.arctan2(fan_y, fan_x) * 7) / 0.3) ** 2)
    fan = fan * np.exp(-0.5 * (((fan_x - 0.13) / 0.05) ** 2 + (fan_y / 0.07) ** 2))
    return np.asarray((lines * 0.1 + fan * 0.12) * (who.age - 0.3), np.float32)
