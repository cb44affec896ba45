"""What a wild corpus holds beside good clips: the kinds, how each is made, and the outcomes that are right for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import av
import numpy as np

from batch.corpus.draw.clip import Fake, Person, Take, draw_take
from batch.corpus.draw.encode import draw_voice, write_sound
from batch.corpus.draw.identity import Identity
from batch.records import Reason

Work = Callable[[], int]
"""Writes files and gives their number. Can be pickled."""

_KEPT = (Reason.KEPT,)
_TINY_HEAD_PX = 20.0
"""Detectors of this project see drawn heads from about 24 pixels on."""
_CUT_AT = 0.6


class PlantedKind(StrEnum):
    """What is odd or broken about a planted file."""

    NO_FACE = "no_face"
    TWO_FACES = "two_faces"
    TINY_FACE = "tiny_face"
    PORTRAIT = "portrait"
    EMPTY_FILE = "empty_file"
    CUT_FILE = "cut_file"
    TEXT_FILE = "text_file"
    AUDIO_ONLY = "audio_only"
    NO_METADATA = "no_metadata"
    ORPHAN_FAKE = "orphan_fake"
    TEN_BIT = "ten_bit"
    GREY = "grey"
    ODD_SIZE = "odd_size"
    INTERLACED = "interlaced"
    VARIABLE_RATE = "variable_rate"


EXPECTED: dict[PlantedKind, tuple[Reason, ...]] = {
    PlantedKind.NO_FACE: (Reason.NO_FACE,),
    PlantedKind.TWO_FACES: (Reason.SEVERAL_FACES,),
    # Whether a face of 20 pixels is seen at all is the detector's affair.
    PlantedKind.TINY_FACE: (Reason.NO_FACE, Reason.FACE_TOO_SMALL),
    PlantedKind.PORTRAIT: _KEPT,
    PlantedKind.EMPTY_FILE: (Reason.EMPTY_FILE,),
    # Without its index a cut mp4 cannot be opened: whether that is told apart is the decoder's affair.
    PlantedKind.CUT_FILE: (Reason.TRUNCATED, Reason.UNREADABLE),
    PlantedKind.TEXT_FILE: (Reason.UNREADABLE,),
    PlantedKind.AUDIO_ONLY: (Reason.NO_VIDEO_STREAM,),
    PlantedKind.NO_METADATA: _KEPT,
    PlantedKind.ORPHAN_FAKE: _KEPT,
    PlantedKind.TEN_BIT: _KEPT,
    PlantedKind.GREY: _KEPT,
    PlantedKind.ODD_SIZE: _KEPT,
    PlantedKind.INTERLACED: _KEPT,
    PlantedKind.VARIABLE_RATE: _KEPT,
}
"""The outcomes that are right for each kind, with `--faces one`; any one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFile:
    """One file that is odd on purpose."""

    key: str
    """Relative to the corpus's folder."""
    kind: PlantedKind

    @property
    def expected(self) -> tuple[Reason, ...]:
        """The outcomes that are right for it; any one of them."""
        return EXPECTED[self.kind]


def plant(kind: PlantedKind, take: Take, donor: Identity) -> Work:
    """The work that writes one planted file, made from an ordinary take of one person without fakes.

    The file goes where the take's real clip would. `donor` is the second person where one is needed.
    """
    path = take.path
    simple: dict[PlantedKind, Work] = {
        PlantedKind.EMPTY_FILE: partial(write_bytes, path, b""),
        PlantedKind.TEXT_FILE: partial(write_bytes, path, b"This is a note, not a video.\n" * 40),
        PlantedKind.AUDIO_ONLY: partial(write_audio_only, path, take.seed, take.seconds),
        PlantedKind.CUT_FILE: partial(write_cut, replace(take, encoding=replace(take.encoding, index_first=False))),
        PlantedKind.ORPHAN_FAKE: partial(
            draw_take,
            replace(take, write_real=False, fakes=(Fake(path=path, donor=donor, crf=take.encoding.crf),)),
        ),
    }
    return simple.get(kind) or partial(draw_take, _odd(kind, take, donor))


def _odd(kind: PlantedKind, take: Take, other: Identity) -> Take:
    """The take with other people in it, or stored in another way."""
    encoding, first = take.encoding, take.people[:1]
    height = encoding.height
    if kind is PlantedKind.NO_FACE:
        return replace(take, people=())
    if kind is PlantedKind.TWO_FACES:
        places = ((first[0].who, 0.29), (other, 0.71))
        pair = tuple(Person(who=who, x=x, y=0.42, head_px=0.33 * height) for who, x in places)
        return replace(take, people=pair)
    if kind is PlantedKind.TINY_FACE:
        # Low in the frame, so that the body reaches its lower edge.
        far = Person(who=first[0].who, x=0.55, y=1 - 2.9 * _TINY_HEAD_PX / height, head_px=_TINY_HEAD_PX)
        return replace(take, people=(far,))
    if kind is PlantedKind.PORTRAIT:
        tall = replace(encoding, width=height, height=encoding.width // 2 * 2, rotation=90)
        return replace(take, encoding=tall, people=(replace(first[0], head_px=0.42 * height),))
    if kind is PlantedKind.ODD_SIZE:
        # Halved colour planes need even sizes; with full ones x264 takes any.
        odd = replace(encoding, width=encoding.width + 1, height=height - 1, pixel_format="yuv444p")
        return replace(take, encoding=odd)
    stored = {
        PlantedKind.TEN_BIT: replace(encoding, pixel_format="yuv420p10le"),
        PlantedKind.GREY: replace(encoding, pixel_format="gray"),
        PlantedKind.INTERLACED: replace(encoding, interlaced=True),
    }
    return replace(take, encoding=stored.get(kind, encoding), variable_rate=kind is PlantedKind.VARIABLE_RATE)


def write_bytes(path: Path, data: bytes) -> int:
    """Writes something that is no video."""
    path.write_bytes(data)
    return 1


def write_cut(take: Take) -> int:
    """Draws a clip and keeps its first part; the index, at the end, is lost."""
    draw_take(take)
    data = take.path.read_bytes()
    take.path.write_bytes(data[: int(len(data) * _CUT_AT)])
    return 1


def write_audio_only(path: Path, seed: int, seconds: float) -> int:
    """An mp4 with a voice and no picture."""
    sound = draw_voice(np.random.default_rng([seed, 19]), 150.0, seconds)
    with av.open(str(path), "w", format="mp4") as container:
        write_sound(container, sound)
    return 1
