"""A person and a light in; a lit drawing of the head out, with lids and jaw that can be moved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from batch.corpus.draw import features, hair
from batch.corpus.draw.identity import Identity
from batch.corpus.draw.light import GAMMA, Light, Lighting, Surface, light_surface, surface
from batch.corpus.draw.relief import UNIT_PX, FloatMap, Window, depth, head_mask, to_canvas, window
from batch.corpus.draw.skin import skin_albedo

Layer = npt.NDArray[np.uint8]
"""Blue, green, red, alpha as uint8, shape (height, width, 4), colours multiplied by alpha."""
Points = npt.NDArray[np.float64]
"""x and y in pixels, shape (n, 2)."""

LEVELS = (0.0, 0.5, 1.0)
"""The lid and jaw positions that are drawn; those between are mixed."""
HULL_POINTS = 12
"""The first landmarks, which outline the inner face."""
# Left, top, right, bottom on the canvas, all even: what lids move, what the jaw moves, what a face swap takes.
_EYES = (96, 182, 288, 262)
_MOUTH = (124, 292, 260, 392)
_INNER = (72, 126, 312, 424)
_SKIN_GLOSS, _HAIR_GLOSS = 0.10, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Clay:
    """A head before light, on the whole canvas. Kept, since one person is drawn under many lights."""

    skin: FloatMap
    """Displayed colour of skin with all that grows on it but the lips."""
    skin_shape: Surface
    coat: FloatMap
    """Displayed colour of hair."""
    coat_shape: Surface
    head: FloatMap
    """Masks, 0 to 1: skin and ears; hair before them; hair behind."""
    front: FloatMap
    back: FloatMap
    relief: FloatMap
    """Smoothed depth in canvas pixels: how far a pixel moves for a turn of one radian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """One head under one light, on the canvas or, for swaps, on a part of it."""

    who: Identity
    shrink: int
    """1, or 2 for a drawing of half the size, for small frames."""
    left: int
    top: int
    """Where the drawing begins on the (shrunk) canvas."""
    base: Layer
    """Without eyes and lips, which `express` adds."""
    eyes: tuple[Layer, ...]
    """The eye region at every level of the lids."""
    mouth: tuple[Layer, ...]
    """The mouth region at every level of the jaw."""
    relief: FloatMap
    """As in `Clay`, for the part that is drawn."""
    landmarks: Points
    """Pixels of `base`; the same points on every head."""

    def express(self, lid: float, jaw: float) -> Layer:
        """The drawing with lids (1 open, 0 shut) and jaw (0 shut, 1 open)."""
        image = self.base.copy()
        for box, levels, value in ((_EYES, self.eyes, lid), (_MOUTH, self.mouth, jaw)):
            left, top, right, bottom = (edge // self.shrink for edge in box)
            rows = slice(top - self.top, bottom - self.top)
            columns = slice(left - self.left, right - self.left)
            image[rows, columns] = _between(levels, value)
        return image

    def halved(self) -> Portrait:
        """The same at half the size, each pixel the mean of four: warping can then skip none."""
        return Portrait(
            who=self.who,
            shrink=self.shrink * 2,
            left=self.left // 2,
            top=self.top // 2,
            base=_half(self.base),
            eyes=tuple(_half(level) for level in self.eyes),
            mouth=tuple(_half(level) for level in self.mouth),
            relief=np.asarray(
                cv2.resize(self.relief, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) / 2, np.float32
            ),
            landmarks=self.landmarks / 2,
        )


def _half(layer: Layer) -> Layer:
    return np.asarray(cv2.resize(layer, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _between(levels: tuple[Layer, ...], value: float) -> Layer:
    place = min(max(value, 0.0), 1.0) * (len(levels) - 1)
    low = min(int(place), len(levels) - 2)
    mixed = cv2.addWeighted(levels[low], 1 - (place - low), levels[low + 1], place - low, 0)
    return np.asarray(mixed, np.uint8)


def draw_portrait(who: Identity, light: Light, *, glasses: bool, inner_only: bool = False) -> Portrait:
    """Draws a head, or with `inner_only` just the part that a face swap takes."""
    whole = window(*_INNER) if inner_only else window()
    clay = knead(who)
    lit = light_surface(_part(clay.skin_shape, whole), light, _SKIN_GLOSS)
    painter = _Painter(who=who, light=light, clay=clay, glasses=glasses, lit=lit, left=whole.left, top=whole.top)
    return Portrait(
        who=who,
        shrink=1,
        left=whole.left,
        top=whole.top,
        base=painter.paint(whole),
        eyes=tuple(painter.paint(window(*_EYES), lid=lid) for lid in LEVELS),
        mouth=tuple(painter.paint(window(*_MOUTH), jaw=jaw) for jaw in LEVELS),
        relief=np.ascontiguousarray(clay.relief[whole.slices]),
        landmarks=to_canvas(landmarks(who)) - np.array([whole.left, whole.top]),
    )


def _part(shape: Surface, win: Window) -> Surface:
    return shape.part(win.slices)


# 24 people of 14 MB each stay drawn in a process; drawing one takes 0.1 s.
@lru_cache(maxsize=24)
def knead(who: Identity) -> Clay:
    """Draws a head before light, on the whole canvas."""
    win = window()
    skull = head_mask(who, win)
    back, front = hair.hair_back(who, win), hair.hair_front(who, win)
    skin = skin_albedo(who, win)
    with_ears, ears = features.paint_ears(who, win, skin)
    skin = np.asarray(np.where((skull > 0.5)[..., None], skin, with_ears), np.float32)
    skin = features.paint_nostrils(who, win, skin)
    skin = hair.paint_beard(who, win, skin)
    skin = features.paint_brows(who, win, skin)
    height = depth(who, win)
    hidden = 1 - back if who.hair_style in {"long", "fringe"} else np.ones_like(back)
    return Clay(
        skin=skin,
        skin_shape=surface(height, skull),
        coat=hair.hair_albedo(who, win),
        coat_shape=surface(hair.hair_depth(who, win, height)),
        head=np.asarray(np.maximum(skull, ears * hidden), np.float32),
        front=front,
        back=back,
        relief=np.asarray(cv2.GaussianBlur(height, (0, 0), 5) * UNIT_PX, np.float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Painter:
    """Lights parts of one clay head. `lit` covers the part of the canvas that begins at `left`, `top`."""

    who: Identity
    light: Light
    clay: Clay
    glasses: bool
    lit: Lighting
    left: int
    top: int

    def paint(self, win: Window, lid: float | None = None, jaw: float | None = None) -> Layer:
        """The lit layer of a window; lips and eyes only where their levels are given."""
        clay, where = self.clay, win.slices
        skin = clay.skin[where] if jaw is None else features.paint_lips(self.who, win, clay.skin[where], jaw)
        lit = self._light_on(win).on(np.asarray(np.power(np.clip(skin, 0, 1), np.float32(GAMMA)), np.float32))
        if lid is not None:
            lit = features.paint_eyes(self.who, win, lit, lid, self.light)
        image = self._hair(win, clay.back[where], self.light.dimmed(), np.zeros_like(lit))
        image = np.asarray(image + (lit - image) * clay.head[where][..., None], np.float32)
        image = self._hair(win, clay.front[where], self.light, image)
        if self.glasses:
            image = features.paint_glasses(self.who, win, image)
        alpha = np.maximum(np.maximum(clay.head[where], clay.front[where]), clay.back[where])
        layer = np.dstack([image[..., ::-1] * alpha[..., None], alpha]) * np.float32(255) + np.float32(0.5)
        return np.asarray(np.clip(layer, 0, 255), np.uint8)

    def _light_on(self, win: Window) -> Lighting:
        rows, columns = win.slices
        return self.lit.part(
            (
                slice(rows.start - self.top, rows.stop - self.top),
                slice(columns.start - self.left, columns.stop - self.left),
            )
        )

    def _hair(self, win: Window, mask: FloatMap, light: Light, image: FloatMap) -> FloatMap:
        if not mask.any():
            return image
        lighting = light_surface(_part(self.clay.coat_shape, win), light, _HAIR_GLOSS)
        coat = lighting.on(np.asarray(np.power(self.clay.coat[win.slices], np.float32(GAMMA)), np.float32))
        return np.asarray(image + (coat - image) * mask[..., None], np.float32)


def landmarks(who: Identity) -> Points:
    """The points that every head has, in head units: hull of the inner face first, then eyes, nose, mouth.

    Shape (19, 2): 0-11 the hull (cheeks, chin, brows, around), 12-13 pupils, 14 nose tip, 15-16 mouth corners, 17
    between the lips, 18 base of the nose.
    """
    gap, brow, chin, mouth = who.eye_gap, who.brow_height + who.brow_arch + 0.07, who.face_length, who.mouth_y
    left = [(-0.72, -0.02), (-0.66, 0.42), (-0.54, mouth), (-0.32, chin - 0.26), (0.0, chin - 0.14)]
    right = [(0.32, chin - 0.26), (0.54, mouth), (0.66, 0.42), (0.72, -0.02)]
    top = [(0.60, -brow), (0.0, -brow + 0.02), (-0.60, -brow)]
    inner = [(-gap, 0.0), (gap, 0.0), (0.0, who.nose_y - 0.1), (-who.mouth_width, mouth), (who.mouth_width, mouth)]
    return np.array([*left, *right, *top, *inner, (0.0, mouth), (0.0, who.nose_y)], np.float64)
