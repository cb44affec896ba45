"""Images of every kind through the extraction that videos take."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from pillow_heif import from_pillow

from batch.faces.extract import extract_video
from batch.faces.images import decode_image, is_image
from batch.faces.options import FaceOptions
from batch.records import Reason, VideoRef, VideoResult
from batch.storage.local import LocalStorage
from tests.support.drawn_face import scene

WIDTH, HEIGHT = 320, 240
TURNS = {3: 180, 6: 90, 8: 270}
"""By EXIF's orientation: how far a picture that is stored so was turned, in degrees."""


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A drawn face left of the middle."""
    return Image.fromarray(scene(WIDTH, HEIGHT, [(130, 120, 130)], seed=5))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    if kind == "HEIF":  # not by Pillow, which would then know the format without our doing
        from_pillow(picture).save(out, **options)
    else:
        picture.save(out, kind, **options)
    return out.getvalue()


def looked_at(tmp_path: Path, key: str, data: bytes, frames: int = 4) -> VideoResult:
    store = LocalStorage(tmp_path)
    store.put(key, data)
    [item] = [item for item in store.list() if item.key == key]
    video = VideoRef(key=key, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id=key)
    return extract_video(store, video, FaceOptions(frames=frames, faces="all"))


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("jpg", "JPEG"), ("JPEG", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("avif", "AVIF"), ("gif", "GIF"),
        ("heic", "HEIF"), ("HEIF", "HEIF"),
    ],
)  # fmt: skip
def test_every_kind_gives_its_face(tmp_path: Path, picture: Image.Image, suffix: str, kind: str) -> None:
    result = looked_at(tmp_path, f"a.{suffix}", encoded(picture, kind))
    assert (result.reason, len(result.faces), result.frames_seen) == (Reason.KEPT, 1, 1)
    assert result.media is not None
    assert (result.media.width_px, result.media.height_px) == (WIDTH, HEIGHT)
    box = result.faces[0].face_box_px
    assert box.left < 130 < box.right
    assert box.top < 120 < box.bottom


def test_a_png_crop_has_the_pixels_of_the_file(tmp_path: Path, picture: Image.Image) -> None:
    with decode_image(io.BytesIO(encoded(picture, "PNG")), 1) as decoded:
        [frame] = list(decoded.frames)
    assert np.array_equal(frame.rgb(), np.asarray(picture))
    assert (frame.index, frame.pts_s) == (0, 0.0)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photo_of_a_phone_is_turned_once(tmp_path: Path, picture: Image.Image, orientation: int) -> None:
    """HEIC says it twice: in its own property, which its decoder obeys, and in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.rotate(TURNS[orientation], expand=True)
    result = looked_at(tmp_path, "a.heic", encoded(stored, "HEIF", exif=exif.tobytes()))
    assert result.media is not None
    assert (result.media.width_px, result.media.height_px) == (WIDTH, HEIGHT)
    [face] = result.faces
    assert face.face_box_px.left < 130 < face.face_box_px.right
    assert face.face_box_px.top < 120 < face.face_box_px.bottom


def test_of_several_pictures_in_a_heic_file_the_primary_is_taken(tmp_path: Path, picture: Image.Image) -> None:
    both = from_pillow(Image.new("RGB", (64, 64)))
    both.add_from_pillow(picture)
    both.add_from_pillow(Image.new("RGB", (9000, 8000)))  # more pixels than are decoded of any picture
    out = io.BytesIO()
    both.save(out, primary_index=1)
    result = looked_at(tmp_path, "a.heic", out.getvalue())
    assert (result.reason, len(result.faces), result.frames_seen) == (Reason.KEPT, 1, 1)
    assert result.media is not None
    assert (result.media.width_px, result.media.height_px) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photo_comes_upright(tmp_path: Path, picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.rotate(TURNS[orientation], expand=True)
    result = looked_at(tmp_path, "a.png", encoded(stored, "PNG", exif=exif))
    assert result.media is not None
    assert (result.media.width_px, result.media.height_px) == (WIDTH, HEIGHT)
    plain = looked_at(tmp_path, "b.png", encoded(picture, "PNG"))
    assert result.faces[0].face_box_px == plain.faces[0].face_box_px
    assert result.faces[0].image == plain.faces[0].image


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_a_clip(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(scene(WIDTH, HEIGHT, [(100 + 4 * n, 120, 130)], seed=5)) for n in range(12)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, loop=0)
    result = looked_at(tmp_path, f"a.{kind.lower()}", data, frames=4)
    assert result.frames_seen == 4
    assert [face.frame_index for face in result.faces] == [1, 4, 7, 10]
    assert [face.pts_s for face in result.faces] == pytest.approx([0.1, 0.4, 0.7, 1.0])
    assert {face.track_id for face in result.faces} == {0}
    left = [face.face_box_px.left for face in result.faces]
    assert left == sorted(left)
    assert looked_at(tmp_path, f"a.{kind.lower()}", data, frames=1).frames_seen == 1


def test_odd_modes_are_seen(tmp_path: Path, picture: Image.Image) -> None:
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 256)
    clear = picture.convert("RGBA")
    for number, odd in enumerate((grey, deep, clear, picture.convert("P"))):
        assert looked_at(tmp_path, f"{number}.png", encoded(odd, "PNG")).reason is Reason.KEPT, odd.mode
    assert looked_at(tmp_path, "cmyk.jpg", encoded(picture.convert("CMYK"), "JPEG")).reason is Reason.KEPT


def huge_png(side: int) -> bytes:
    """A header that promises side x side pixels, and nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def test_bad_files_are_outcomes(tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as face_recognition leaves it
    jpeg, heic = encoded(picture, "JPEG"), encoded(picture, "HEIF")
    cases = {
        "empty.jpg": (b"", Reason.EMPTY_FILE),
        "text.jpg": (b"no picture at all", Reason.UNREADABLE),
        "cut.jpg": (jpeg[: len(jpeg) // 2], Reason.TRUNCATED),
        "cut.png": (encoded(picture, "PNG")[:5000], Reason.TRUNCATED),
        "bomb.png": (huge_png(30_000), Reason.FRAME_TOO_LARGE),
        "large.png": (huge_png(9_000), Reason.FRAME_TOO_LARGE),
        "cut.heic": (heic[: len(heic) // 2], Reason.TRUNCATED),
        "icon.jpg": (encoded(picture.resize((64, 64)), "ICO"), Reason.UNREADABLE),  # a format that nobody asked for
        "blank.png": (encoded(Image.new("RGB", (64, 64)), "PNG"), Reason.NO_FACE),
    }
    found = {key: looked_at(tmp_path, key, data).reason for key, (data, _) in cases.items()}
    assert found == {key: reason for key, (_, reason) in cases.items()}


def test_a_damaged_file_never_raises(tmp_path: Path, picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"):
        data = np.frombuffer(encoded(picture, kind), np.uint8)
        for number in range(15):
            mutant = data.copy()
            mutant[rng.integers(0, len(mutant), 1 + number)] = rng.integers(0, 256)
            result = looked_at(tmp_path, f"{kind}{number}.{kind.lower()}", mutant.tobytes())
            assert result.reason in Reason


def test_suffixes() -> None:
    assert is_image("a/b.JPG")
    assert is_image("b.heic")
    assert not is_image("a.mp4")
