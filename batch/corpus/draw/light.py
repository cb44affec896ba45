"""Light on a height field: a surface and a lamp in, lit colours out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from batch.corpus.draw.identity import Rgb
from batch.corpus.draw.relief import UNIT_PX, FloatMap

GAMMA = 2.2
"""Displayed value = linear light to the power of 1 / GAMMA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The light of one scene: a lamp, and the rest of the room."""

    x: float
    """Where the lamp hangs: -1 left to 1 right of the camera."""
    y: float
    """-1 above to 1 below."""
    strength: float
    ambient: float
    colour: Rgb
    """The lamp's colour; the room's light is white."""

    def dimmed(self) -> Light:
        """The same light where a head throws its shadow."""
        return Light(x=self.x, y=self.y, strength=self.strength * 0.45, ambient=self.ambient * 0.7, colour=self.colour)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What light needs to know of a height field; every map has shape (height, width)."""

    nx: FloatMap
    ny: FloatMap
    nz: FloatMap
    hollow: FloatMap
    """How much light a pixel loses to the hills around it, 0 to 1; below 0 on ridges."""

    def part(self, where: tuple[slice, slice]) -> Surface:
        """The surface of some rows and columns."""
        return Surface(nx=self.nx[where], ny=self.ny[where], nz=self.nz[where], hollow=self.hollow[where])


def surface(height: FloatMap, mask: FloatMap | None = None, unit_px: float = UNIT_PX) -> Surface:
    """Normals and hollows of a height field in head units.

    Hollows are measured against the mean height around a pixel, within `mask` where one is given, so that the outline
    of a head is not a hollow. Slopes are bounded, so that the outline is still lit.
    """
    dy, dx = np.gradient(height, np.float32(1 / unit_px))
    nx, ny = np.clip(-dx, -2.2, 2.2), np.clip(-dy, -2.2, 2.2)
    length = np.sqrt(nx * nx + ny * ny + 1)
    blur = 0.065 * unit_px
    inside = np.ones_like(height) if mask is None else mask
    around = cv2.GaussianBlur(height * inside, (0, 0), blur) / (
        cv2.GaussianBlur(inside, (0, 0), blur) + np.float32(1e-3)
    )
    hollow = np.clip((around - height) * 4, -0.25, 0.6) * inside
    return Surface(
        nx=np.asarray(nx / length, np.float32),
        ny=np.asarray(ny / length, np.float32),
        nz=np.asarray(1 / length, np.float32),
        hollow=np.asarray(hollow, np.float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lighting:
    """Light that reaches every pixel of a surface, linear, shape (height, width, 3): scattered and mirrored."""

    scattered: FloatMap
    mirrored: FloatMap

    def part(self, where: tuple[slice, slice]) -> Lighting:
        """The light on some rows and columns."""
        return Lighting(scattered=self.scattered[where], mirrored=self.mirrored[where])

    def on(self, linear_albedo: FloatMap) -> FloatMap:
        """Displayed colours 0 to 1 of a surface with this albedo (linear, shape (height, width, 3))."""
        lit = np.clip(linear_albedo * self.scattered + self.mirrored, 0, 1)
        return np.asarray(np.power(lit, np.float32(1 / GAMMA)), np.float32)


def light_surface(shape: Surface, light: Light, gloss: float) -> Lighting:
    """Lambert's law with the light wrapped around by a third, and Blinn's highlight of strength `gloss`."""
    lamp = np.array([light.x, light.y, 0.9], np.float32)
    lamp /= np.linalg.norm(lamp)
    facing = np.clip((shape.nx * lamp[0] + shape.ny * lamp[1] + shape.nz * lamp[2] + np.float32(0.3)) / 1.3, 0, 1)
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    shine = np.clip(shape.nx * half[0] + shape.ny * half[1] + shape.nz * half[2], 0, 1)
    for _ in range(4):
        shine = shine * shine
    room = light.ambient * (0.72 + 0.28 * shape.nz) * (1 - 0.25 * shape.ny)
    open_sky = 1 - shape.hollow
    lamp_colour = np.asarray(light.colour, np.float32) * np.float32(light.strength)
    scattered = (room * open_sky)[..., None] + (facing * open_sky)[..., None] * lamp_colour
    mirrored = (shine * open_sky * np.float32(gloss))[..., None] * lamp_colour
    return Lighting(scattered=np.asarray(scattered, np.float32), mirrored=np.asarray(mirrored, np.float32))
