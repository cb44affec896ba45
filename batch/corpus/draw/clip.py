"""One real clip and the fakes made from it: a specification in, files out. Frames are drawn once for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from batch.corpus.draw.body import body_to_frame, draw_body
from batch.corpus.draw.encode import ClipWriter, Encoding, draw_voice
from batch.corpus.draw.identity import Identity
from batch.corpus.draw.light import Light
from batch.corpus.draw.portrait import Layer, Portrait, draw_portrait
from batch.corpus.draw.pose import Frame, Pose, draw_motion, moved, paste, to_frame, turn, turned_landmarks
from batch.corpus.draw.relief import UNIT_PX
from batch.corpus.draw.scene import Background, Sensor, draw_camera, draw_light
from batch.corpus.draw.swap import SwapStyle, draw_style, swap_face

_HALVE_BELOW = 0.62
"""Scale under which a drawing is halved first, so that warping does not skip pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in the picture: where, and how large."""

    who: Identity
    x: float
    y: float
    """Middle of the eye line, as shares of the frame's width and height."""
    head_px: float
    """Width of the head in the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """A fake of the clip's first person."""

    path: Path
    donor: Identity
    crf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Everything that one real clip and its fakes are drawn from."""

    seed: int
    encoding: Encoding
    seconds: float
    people: tuple[Person, ...]
    path: Path
    """Of the real clip."""
    write_real: bool = True
    """False: only the fakes are written."""
    fakes: tuple[Fake, ...] = ()
    sound: bool = False
    variable_rate: bool = False


class _Actor:
    """A person with all that is drawn of them under the take's light."""

    def __init__(self, person: Person, light: Light, take: Take, rng: np.random.Generator) -> None:
        self._body = draw_body(person.who, light)
        self.portrait = _sized(draw_portrait(person.who, light, glasses=person.who.glasses), person.head_px)
        self._rest_x, self._rest_y = person.x * take.encoding.width, person.y * take.encoding.height
        self.motion = draw_motion(rng, self._rest_x, self._rest_y, person.head_px / (2 * UNIT_PX), take.seconds)

    def enter(self, frame: Frame, pose: Pose) -> None:
        """Draws the person into the frame."""
        paste(frame, self._body, body_to_frame(pose, self._rest_x, self._rest_y))
        paste(frame, _expressed(self.portrait, pose), to_frame(self.portrait, pose))


class _Forger:
    """Makes the frames of one fake from the frames of the real clip."""

    def __init__(self, donor: Identity, target: _Actor, head_px: float, light: Light, style: SwapStyle) -> None:
        # The glasses stay on the target's nose: a donor without them, or with others, would be cut off at the hull.
        glasses = target.portrait.who.glasses
        self._donor = _sized(draw_portrait(donor, light, glasses=glasses, inner_only=True), head_px)
        self._target = target.portrait
        self._style = style

    def forge(self, frame: Frame, pose: Pose) -> Frame:
        """The frame with the donor's face, in the same pose and expression."""
        marks = moved(turned_landmarks(self._target, pose), to_frame(self._target, pose))
        return swap_face(frame, marks, _expressed(self._donor, pose), turned_landmarks(self._donor, pose), self._style)


def _sized(portrait: Portrait, head_px: float) -> Portrait:
    return portrait.halved() if head_px < _HALVE_BELOW * 2 * UNIT_PX else portrait


def _expressed(portrait: Portrait, pose: Pose) -> Layer:
    return turn(portrait, portrait.express(pose.lid, pose.jaw), pose)


def draw_take(take: Take) -> int:
    """Draws and writes one real clip and its fakes; gives the number of files written."""
    rng = np.random.default_rng([take.seed, 17])
    light = draw_light(rng)
    actors = [_Actor(person, light, take, rng) for person in take.people]
    forgers = [_Forger(f.donor, actors[0], take.people[0].head_px, light, draw_style(rng)) for f in take.fakes]
    sound = draw_voice(rng, take.people[0].who.voice_hz, take.seconds) if take.sound and take.people else None
    with contextlib.ExitStack() as stack:
        real = stack.enter_context(ClipWriter(take.path, take.encoding, sound)) if take.write_real else None
        fakes = [stack.enter_context(ClipWriter(f.path, replace(take.encoding, crf=f.crf), sound)) for f in take.fakes]
        for time_s, frame, poses in _frames(take, actors, rng):
            if real is not None:
                real.write(frame, time_s)
            for forger, writer in zip(forgers, fakes, strict=True):
                writer.write(forger.forge(frame, poses[0]), time_s)
    return len(fakes) + (real is not None)


def _frames(take: Take, actors: list[_Actor], rng: np.random.Generator) -> Iterator[tuple[float, Frame, list[Pose]]]:
    """Every frame of the real clip with its time in seconds and the people's poses."""
    size = (take.encoding.height, take.encoding.width)
    background, camera = Background(rng, *size), draw_camera(rng)
    sensor = Sensor(rng, *size, camera.noise)

    def look(time_s: float) -> tuple[Frame, list[Pose]]:
        x, y = camera.offset(time_s)
        frame = background.view(x, y)
        poses = [actor.motion.at(time_s) for actor in actors]
        # A camera that looks to the right moves the people to the left, the farther background with them.
        poses = [replace(pose, x=pose.x - x, y=pose.y - y) for pose in poses]
        for actor, pose in zip(actors, poses, strict=True):
            actor.enter(frame, pose)
        return sensor.expose(np.asarray(cv2.LUT(frame, camera.exposure(time_s)), np.uint8)), poses

    for time_s, step_s in _times(take, rng):
        frame, poses = look(time_s)
        if take.encoding.interlaced:
            # The second field is half a frame later: where something moves, lines comb.
            frame[1::2] = look(time_s + step_s / 2)[0][1::2]
        yield time_s, frame, poses


def _times(take: Take, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Start and length of every frame in seconds."""
    step_s, time_s = float(1 / take.encoding.fps), 0.0
    for number in range(max(1, round(take.seconds / step_s))):
        if take.variable_rate:
            length_s = step_s * float(rng.choice([0.5, 1.0, 1.0, 2.5]))
            yield time_s, length_s
            time_s += length_s
        else:
            yield number * step_s, step_s
