"""Neck, shoulders and clothes: a person and a light in, one layer out that lies under the head."""

from __future__ import annotations

import math

import cv2
import numpy as np

from batch.corpus.draw.identity import Identity
from batch.corpus.draw.light import GAMMA, Light, light_surface, surface
from batch.corpus.draw.portrait import Layer
from batch.corpus.draw.pose import Affine, Pose
from batch.corpus.draw.relief import UNIT_PX, FloatMap, Window, bump, grain, soft
from batch.corpus.draw.skin import blend, scaled

_SHEET_UNIT_PX = 54.0
"""Coarser than the head: cloth has no fine detail."""
_LEFT, _TOP = -3.6, 0.5
_SIZE = (432, 388)


def draw_body(who: Identity, light: Light) -> Layer:
    """Everything below the chin, upright and from the front."""
    win = _sheet()
    neck, torso = _neck_mask(who, win), _torso_mask(win)
    collar = _collar(who, win)
    cloth = torso * (1 - collar)
    skin = np.clip(neck + torso * collar, 0, 1)
    alpha = np.maximum(skin, cloth)
    folds = grain(who.seed + 20, _SIZE, 9) + 0.5 * grain(who.seed + 21, _SIZE, 26)
    height = _height(win, cloth) + folds * 0.05 * cloth
    image = np.broadcast_to(np.asarray(scaled(who.skin, 0.92), np.float32), (*win.x.shape, 3))
    image = blend(
        np.asarray(image, np.float32), np.asarray(_fabric(who, win), np.float32), np.asarray(cloth, np.float32)
    )
    shadow = bump(win, -0.12 * light.x, who.face_length + 0.12, 0.6, 0.3) * 0.62 * neck
    rim = np.exp(-0.5 * ((collar - 0.5) / 0.22) ** 2) * torso * 0.35
    image = image * np.clip(1 - shadow - rim, 0.1, 1)[..., None]
    lighting = light_surface(surface(np.asarray(height, np.float32), unit_px=_SHEET_UNIT_PX), light, 0.02)
    lit = lighting.on(np.asarray(np.power(np.clip(image, 0, 1), np.float32(GAMMA)), np.float32))
    layer = np.dstack([lit[..., ::-1] * alpha[..., None], alpha]) * 255 + 0.5
    return np.asarray(np.clip(layer, 0, 255), np.uint8)


def _sheet() -> Window:
    columns = np.arange(_SIZE[1], dtype=np.float32) / np.float32(_SHEET_UNIT_PX) + _LEFT
    rows = np.arange(_SIZE[0], dtype=np.float32) / np.float32(_SHEET_UNIT_PX) + _TOP
    x, y = np.meshgrid(columns, rows)
    return Window(left=0, top=0, x=np.asarray(x, np.float32), y=np.asarray(y, np.float32))


def _neck_mask(who: Identity, win: Window) -> FloatMap:
    width = 0.54 + 0.08 * (who.jaw - 2.0) + 0.5 * np.clip((win.y - 1.55) / 0.6, 0, 1) ** 2
    return soft(np.asarray(width - np.abs(win.x), np.float32), 0.03) * (win.y < 2.4)


def _torso_mask(win: Window) -> FloatMap:
    ax = np.abs(win.x)
    top = 1.86 + 0.26 * np.clip(ax - 0.5, 0, 2) + 0.9 * np.clip((ax - 1.75) / 0.75, 0, 2) ** 3
    side = 2.45 + 0.06 * np.clip(win.y - 3.0, 0, 2)
    return np.asarray(soft(win.y - top, 0.03) * soft(np.asarray(side - ax, np.float32), 0.03), np.float32)


def _collar(who: Identity, win: Window) -> FloatMap:
    """1 where skin shows above the neckline: round, a V, or a closed collar."""
    shape = who.seed % 3
    if shape == 0:
        return soft(np.asarray(0.45 - np.hypot(win.x * 0.62, win.y - 1.8), np.float32), 0.03)
    if shape == 1:
        return soft(np.asarray(0.62 - np.abs(win.x) * 1.0 - (win.y - 1.88) * 0.75, np.float32), 0.03)
    return soft(np.asarray(0.3 - np.hypot(win.x * 0.5, win.y - 1.76), np.float32), 0.03)


def _height(win: Window, cloth: FloatMap) -> FloatMap:
    neck = 0.5 * np.sqrt(np.clip(1 - (win.x / 0.75) ** 2, 0, 1))
    chest = 0.9 * np.sqrt(np.clip(1 - (np.abs(win.x) / 2.7) ** 2.6, 0, 1)) + 0.25 * np.clip(win.y - 1.8, 0, 1.2)
    return np.asarray(cv2.GaussianBlur(neck + (chest - neck) * cloth, (0, 0), 3), np.float32)


def _fabric(who: Identity, win: Window) -> FloatMap:
    """Plain, striped or checked cloth."""
    tone = np.asarray(who.clothes, np.float32)
    weave = grain(who.seed + 22, _SIZE, 200) * 0.03
    pattern = np.zeros_like(win.x)
    kind = who.seed % 5
    if kind == 3:
        pattern = soft(np.sin(win.y * 16), 0.5) * 0.35
    elif kind == 4:
        pattern = (soft(np.sin(win.y * 9), 0.4) + soft(np.sin(win.x * 9), 0.4)) * 0.18
    seam = np.exp(-0.5 * (win.x / 0.02) ** 2) * 0.25 if who.seed % 3 == 2 else 0.0 * win.x
    return np.asarray(np.clip(tone * (1 + weave + pattern - seam)[..., None], 0, 1), np.float32)


def body_to_frame(pose: Pose, rest_x: float, rest_y: float) -> Affine:
    """From pixels of the layer to pixels of the frame: shoulders follow the head half the way and do not roll."""
    unit = pose.scale * UNIT_PX
    x, y = rest_x + (pose.x - rest_x) * 0.5, rest_y + (pose.y - rest_y) * 0.6
    scale = unit / _SHEET_UNIT_PX
    lean = math.sin(pose.roll) * 0.15 * scale
    return np.array([[scale, -lean, x + _LEFT * unit], [0.0, scale, y + _TOP * unit]])
