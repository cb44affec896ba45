"""Eyes, brows, nostrils, lips, ears and glasses, painted over skin in a window of the canvas."""

from __future__ import annotations

import numpy as np

from batch.corpus.draw.identity import Identity, Rgb
from batch.corpus.draw.light import Light
from batch.corpus.draw.relief import CANVAS, FloatMap, Window, bump, grain, pair, soft
from batch.corpus.draw.skin import blend, scaled

_IRIS_RADIUS = 0.098
_INK: Rgb = (0.06, 0.04, 0.04)


def paint_ears(who: Identity, win: Window, image: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Ears beside the head: the image with them, and their mask."""
    u, v = (np.abs(win.x) - 1.0) / 0.13, (win.y - 0.2 - 0.12 * (np.abs(win.x) - 1)) / 0.34
    radius = np.sqrt(u * u + v * v)
    mask = soft((1 - radius) * 0.14)
    tone = scaled(who.skin, 0.93)
    image = blend(image, (tone[0], tone[1] * 0.93, tone[2] * 0.93), mask)
    inner = np.exp(-0.5 * ((radius - 0.62) / 0.12) ** 2) + 1.2 * pair(win, 0.99, 0.24, 0.045, 0.1)
    return blend(image, scaled(who.skin, 0.55), np.clip(inner * 0.5, 0, 0.7) * mask), mask


def paint_lips(who: Identity, win: Window, image: FloatMap, jaw_open: float) -> FloatMap:
    """The lips, and between them teeth and dark when the jaw is open (0 to 1)."""
    width, full, y0 = who.mouth_width, who.lip_fullness, who.mouth_y
    t = np.clip(np.abs(win.x) / width, 0, 1)
    bow = 1 - 0.35 * np.exp(-0.5 * (win.x / 0.05) ** 2)
    drop = 0.17 * jaw_open
    # The middle of the upper lip dips.
    line = y0 + who.mouth_curve * t**2 + 0.012 * np.exp(-0.5 * (win.x / 0.1) ** 2)
    upper = line - 0.095 * full * (1 - t**1.7) * bow
    gap = line + drop * (1 - t**2.2)
    lower = gap + 0.13 * full * (1 - t**2.4) ** 1.1
    inside = (np.abs(win.x) < width).astype(np.float32)
    red = _lip_colour(who)
    streaks = grain(who.seed + 5, CANVAS, 200)[win.slices] * 0.04
    edge = 0.035
    top = soft(win.y - upper, edge) * soft(line - win.y) * inside
    bottom = soft(win.y - gap) * soft(lower - win.y, edge) * inside
    image = blend(image, np.asarray(scaled(red, 0.86), np.float32) * (1 + streaks)[..., None], top * 0.85)
    image = blend(image, np.asarray(red, np.float32) * (1 + streaks)[..., None], bottom * 0.8)
    if jaw_open > 0:
        mouth = soft(win.y - line) * soft(gap - win.y) * inside
        image = blend(image, (0.16, 0.05, 0.05), mouth)
        teeth = soft(line + 0.075 - win.y, 0.02) * soft(0.26 - np.abs(win.x), 0.06)
        image = blend(image, (0.80, 0.77, 0.71), mouth * teeth * np.float32(0.9))
    seam = np.exp(-0.5 * ((win.y - line) / (0.013 + 0.006 * (1 - t))) ** 2) * soft(width * 1.06 - np.abs(win.x), 0.05)
    corners = pair(win, width * 1.02, y0 + who.mouth_curve, 0.035, 0.03) * 0.35
    return blend(image, scaled(red, 0.32), np.clip(seam * 0.85 + corners, 0, 0.9))


def _lip_colour(who: Identity) -> Rgb:
    red, green, blue = who.skin
    return min(red * 0.9 + 0.02, 1.0), green * 0.70, blue * 0.80


def paint_nostrils(who: Identity, win: Window, image: FloatMap) -> FloatMap:
    """Nostrils, the crease around the wings, and the shadow under the nose."""
    y, width = who.nose_y, who.nose_width
    holes = pair(win, width * 0.46, y - 0.02, 0.045, 0.02)
    creases = pair(win, width * 1.02, y - 0.06, 0.022, 0.06) * 0.4
    under = bump(win, 0, y + 0.045, width * 0.85, 0.035) * 0.28
    image = blend(image, scaled(who.skin, 0.5), np.clip(creases + under * 0.7, 0, 0.6))
    return blend(image, scaled(who.skin, 0.16), np.clip(holes * 1.15, 0, 0.92))


def paint_brows(who: Identity, win: Window, image: FloatMap) -> FloatMap:
    """Brows of slanted strokes: thick towards the nose, thin towards the temple."""
    ax = np.abs(win.x)
    t = np.clip((ax - 0.17) / 0.56, 0, 1)
    middle = -who.brow_height + 0.03 - who.brow_arch * np.sin(np.minimum(t * 1.35, 1.45) * np.pi * 0.72) * 1.2
    middle = middle + 0.09 * np.clip(t - 0.62, 0, 1)
    half = who.brow_thickness * (0.75 + 0.5 * t - 1.15 * t**2.4)
    inside = soft(half - np.abs(win.y - middle), 0.04) * soft(ax - 0.15, 0.05) * soft(0.76 - ax, 0.05)
    strokes = _strokes(who.seed + 6, np.asarray(ax + 0.55 * (win.y - middle), np.float32), win.y, 95.0)
    alpha = np.clip(inside * (0.82 + 0.3 * strokes), 0, 0.95)
    return blend(image, scaled(who.hair, 0.62 if sum(who.hair) < 1.2 else 0.8), alpha)


def _strokes(seed: int, across: FloatMap, along: FloatMap, frequency: float) -> FloatMap:
    """Hair-like noise, about -1 to 1: fast along `across`, slow along `along`."""
    phase = np.random.default_rng(seed).uniform(0, 6.28, 3)
    wave = np.sin(across * frequency + phase[0]) + 0.7 * np.sin(across * frequency * 1.73 + 9 * along + phase[1])
    return np.asarray((wave + 0.5 * np.sin(across * frequency * 0.37 + phase[2])) / 2.2, np.float32)


def paint_eyes(who: Identity, win: Window, image: FloatMap, lid: float, light: Light) -> FloatMap:
    """Both eyes over already lit skin; `lid` is 1 for open, 0 for shut. The window's middle is the face's."""
    middle = win.x.shape[1] // 2
    halves = []
    for side, columns in ((-1.0, slice(None, middle)), (1.0, slice(middle, None))):
        half = Window(left=win.left, top=win.top, x=win.x[:, columns], y=win.y[:, columns])
        halves.append(_paint_eye(who, half, image[:, columns], lid, light, side))
    return np.concatenate(halves, axis=1)


def _paint_eye(who: Identity, win: Window, image: FloatMap, lid: float, light: Light, side: float) -> FloatMap:
    ex = np.asarray(win.x - side * who.eye_gap, np.float32)
    # Outwards positive, so that the tilt lifts both outer corners.
    out = ex * side
    ey = win.y + who.eye_tilt * out
    t = np.clip(np.abs(out + 0.02) / who.eye_width, 0, 1)
    low = who.eye_open * 0.72 * (1 - t**2.3)
    high = low - (who.eye_open * (1.05 * (1 - t**1.9)) + low) * (0.03 + 0.97 * lid)
    level = min(1.0, light.ambient + 0.55 * light.strength)
    opening = soft(ey - high) * soft(low - ey) * (t < 1)
    ball = _eyeball(who, ex, ey, light) * np.float32(level)
    ball = ball * (1 - 0.5 * np.exp(-np.clip(ey - high, 0, 1) / 0.03) - 0.25 * t**4)[..., None]
    image = blend(image, np.clip(ball, 0, 1), opening)
    image = _glint(image, ex, ey, light, opening)
    near = soft(1.12 - np.abs(out + 0.02) / who.eye_width, 0.1)
    crease = np.exp(-0.5 * ((ey - high + 0.055 + 0.03 * (1 - lid)) / 0.013) ** 2) * 0.35 * near * (0.4 + 0.6 * lid)
    rim = np.exp(-0.5 * ((ey - low) / 0.012) ** 2) * 0.35 * near
    lash = np.exp(-0.5 * ((ey - high + 0.004) / (0.013 + 0.006 * t)) ** 2) * near * 0.92
    image = blend(image, scaled(who.skin, 0.42), np.clip(crease + rim, 0, 0.6))
    return blend(image, _INK, np.clip(lash, 0, 0.92))


def _eyeball(who: Identity, ex: FloatMap, ey: FloatMap, light: Light) -> FloatMap:
    """White, iris with spokes and dark ring, pupil."""
    radius = np.sqrt(ex * ex + (ey + 0.012) ** 2)
    white = np.broadcast_to(np.array([0.86, 0.83, 0.81], np.float32), (*ex.shape, 3))
    spokes = 0.85 + 0.3 * (0.5 + 0.5 * np.sin(np.arctan2(ey, ex) * 23)) + 1.6 * np.clip(ey + 0.012, -0.05, 0.09)
    iris = np.asarray(who.iris, np.float32) * spokes[..., None]
    image = blend(np.asarray(white, np.float32), np.asarray(iris, np.float32), soft(_IRIS_RADIUS - radius, 0.012))
    ring = np.exp(-0.5 * ((radius - _IRIS_RADIUS) / 0.013) ** 2) * 0.7
    image = blend(image, scaled(who.iris, 0.3), np.asarray(ring, np.float32))
    return blend(image, (0.03, 0.03, 0.03), soft(0.042 - radius, 0.01))


def _glint(image: FloatMap, ex: FloatMap, ey: FloatMap, light: Light, opening: FloatMap) -> FloatMap:
    u, v = (ex - 0.04 * light.x) / 0.02, (ey + 0.03 - 0.02 * light.y) / 0.02
    return blend(image, (1.0, 1.0, 1.0), np.asarray(np.exp(-0.5 * (u * u + v * v)) * opening * 0.85, np.float32))


def paint_glasses(who: Identity, win: Window, image: FloatMap) -> FloatMap:
    """A thin frame: two rounded lenses, bridge, temples, and a faint sheen."""
    ax = np.abs(win.x)
    u, v = (ax - who.eye_gap - 0.02) / 0.34, (win.y - 0.05) / 0.26
    radius = (np.abs(u) ** 3.2 + np.abs(v) ** 3.2) ** (1 / 3.2)
    frame = soft(0.02 - np.abs(radius - 1) * 0.29, 0.02)
    bridge = soft(0.018 - np.abs(win.y + 0.05 + 0.04 * (1 - (ax / 0.12) ** 2)), 0.016) * soft(0.13 - ax, 0.03)
    temple = soft(0.02 - np.abs(win.y + 0.02), 0.016) * soft(ax - 0.79, 0.02) * soft(1.0 - ax, 0.03)
    sheen = soft((1 - radius) * 0.3) * soft(0.05 - np.abs(win.x * 0.7 + win.y - 0.12 - 0.4 * np.sign(win.x)), 0.06)
    image = blend(image, (1.0, 1.0, 1.0), np.asarray(sheen * 0.10, np.float32))
    colour = scaled((0.20, 0.13, 0.09), 0.4 + (who.seed % 7) / 5)
    return blend(image, colour, np.clip(frame + bridge + temple, 0, 0.9))
