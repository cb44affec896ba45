"""Frames out of files of every kind: right pixels, right sizes, right reasons."""

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from batch.faces.decode import MediaError, decode
from batch.faces.frame import DecodedFrame
from batch.records import Box, MediaInfo, Reason
from tests.support.clips import BLUE, GREEN, RED, clip, sound

SHARED = Path(__file__).parents[2].parent / "shared" / "corpus"
REAL_CLIPS = sorted(SHARED.glob("*/*.mp4"))


def frames_of(path: Path, frames: object = "first") -> tuple[str, MediaInfo, list[DecodedFrame]]:
    with decode(io.BytesIO(path.read_bytes()), frames) as decoded:  # type: ignore[arg-type]
        return decoded.path, decoded.media, list(decoded.frames)


def assert_colours(rgb: np.ndarray, tolerance: int = 6) -> None:
    height, width = rgb.shape[:2]
    for colour, (x, y) in ((RED, (0.25, 0.25)), (GREEN, (0.75, 0.25)), (BLUE, (0.5, 0.7))):
        found = rgb[int(y * height), int(x * width)].astype(int)
        assert np.abs(found - colour).max() <= tolerance, (found, colour)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("plain.mp4", {}),
        ("faststart.mp4", {"container_options": {"movflags": "faststart"}}),
        ("fragmented.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("ten_bit.mp4", {"pix_fmt": "yuv420p10le"}),
        ("full_chroma.mp4", {"pix_fmt": "yuv444p"}),
        ("odd.mp4", {"pix_fmt": "yuv444p", "size": (321, 241)}),
        ("uneven.mp4", {"size": (330, 250)}),
        ("interlaced.mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}),
        ("bt709.mp4", {"colorspace": "bt709", "size": (1280, 720), "frames": 3}),
        ("matroska.mkv", {}),
        ("old.avi", {"codec": "mpeg4"}),
        ("program.mpg", {"codec": "mpeg2video"}),
        ("quick.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ],
)
def test_colours_and_sizes(tmp_path: Path, name: str, made: dict[str, object]) -> None:
    path = clip(tmp_path / name, **made)  # type: ignore[arg-type]
    _, media, [frame] = frames_of(path)
    size = made.get("size", (320, 240))
    assert (media.width_px, media.height_px) == size == (frame.width_px, frame.height_px)
    assert frame.luma().shape == (size[1], size[0])
    assert frame.luma().flags.c_contiguous
    assert frame.rgb().flags.c_contiguous
    assert_colours(frame.rgb(), 14 if made.get("codec") in {"mpeg4", "mpeg2video"} else 6)


def test_grey_clips_give_grey_pictures(tmp_path: Path) -> None:
    _, _, [frame] = frames_of(clip(tmp_path / "grey.mp4", pix_fmt="gray"))
    rgb = frame.rgb()
    assert (rgb == rgb[..., :1]).all()
    assert rgb.std() > 5


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_honoured(tmp_path: Path, rotation: int) -> None:
    turned = clip(tmp_path / "turned.mp4", rotation=rotation)
    way, media, [frame] = frames_of(turned)
    _, expected = cv2.VideoCapture(str(turned)).read()
    assert way == "stream"
    assert frame.rgb().shape == expected.shape
    assert np.abs(frame.rgb()[..., ::-1].astype(int) - expected).max() <= 2
    assert (media.width_px, media.height_px) == expected.shape[1::-1]
    assert frame.luma().shape == expected.shape[:2]


def test_the_first_frame_comes_from_its_packet_alone(tmp_path: Path) -> None:
    path = clip(tmp_path / "plain.mp4", frames=40, noise=30)
    way, media, [frame] = frames_of(path)
    with av.open(str(path)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert way == "key_packet"
    assert (frame.rgb() == expected).all()
    assert media.codec == "h264"
    assert media.fps == 24
    assert media.duration_s == pytest.approx(40 / 24, abs=0.01)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p"])
def test_a_part_equals_a_slice_of_the_whole(tmp_path: Path, pix_fmt: str) -> None:
    path = clip(tmp_path / "plain.mp4", pix_fmt=pix_fmt, noise=30)
    for box in (Box(left=31, top=17, right=90, bottom=101), Box(left=0, top=0, right=40, bottom=9)):
        part = frames_of(path)[2][0].rgb_part(box)
        whole = frames_of(path)[2][0].rgb()[box.top : box.bottom, box.left : box.right]
        assert (part == whole).all()


@pytest.mark.parametrize(
    "options", [{"g": "10"}, {"g": "48", "bf": "3"}, {"g": "48", "bf": "8", "x264-params": "b-pyramid=strict"}]
)
@pytest.mark.parametrize("count", [1, 4, 12])
def test_even_frames_are_those_shown_at_the_middles(tmp_path: Path, count: int, options: dict[str, str]) -> None:
    path = clip(tmp_path / "plain.mp4", frames=48, noise=20, options=options)
    frames = frames_of(path, count)[2]
    expected = [int((2 * number + 1) * 48 / (2 * count)) for number in range(count)]
    assert [frame.index for frame in frames] == expected
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, index in zip(frames, expected, strict=True):
        assert (frame.rgb() == every[index]).all()
        assert frame.pts_s == pytest.approx(index / 24)


def test_more_frames_than_there_are_come_once(tmp_path: Path) -> None:
    frames = frames_of(clip(tmp_path / "short.mp4", frames=5), 40)[2]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]


def test_variable_frame_rates_are_read_by_time(tmp_path: Path) -> None:
    times = [0, 10, 20, 30, 300, 310, 320, 590]
    frames = frames_of(clip(tmp_path / "variable.mp4", frames=8, times=times, options={"bf": "0"}), 3)[2]
    assert [round(frame.pts_s * 600) for frame in frames] == [30, 300, 320]
    assert len({frame.index for frame in frames}) == 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), Reason.EMPTY_FILE),
        (lambda path: path.write_text("this is a letter, not a film\n" * 200), Reason.UNREADABLE),
        (lambda path: path.write_bytes(clip(path, noise=30).read_bytes()[:90_000]), Reason.TRUNCATED),
        (sound, Reason.NO_VIDEO_STREAM),
    ],
)
@pytest.mark.parametrize("frames", ["first", 3])
def test_bad_files_have_a_reason(tmp_path: Path, make: object, reason: Reason, frames: object) -> None:
    path = tmp_path / "bad.mp4"
    make(path)  # type: ignore[operator]
    with pytest.raises(MediaError) as raised:
        frames_of(path, frames)
    assert raised.value.reason is reason


def test_a_file_cannot_make_us_open_another(tmp_path: Path) -> None:
    other = clip(tmp_path / "other.mp4")
    for text in (f"#EXTM3U\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{other}'\n"):
        listing = tmp_path / "list.mp4"
        listing.write_text(text)
        with pytest.raises(MediaError) as raised:
            frames_of(listing)
        assert raised.value.reason is Reason.UNREADABLE


@pytest.mark.skipif(not REAL_CLIPS, reason="../shared/corpus is absent")
def test_real_clips_give_the_pixels_that_opencv_gives() -> None:
    for path in REAL_CLIPS[::6]:
        way, _, [frame] = frames_of(path)
        _, expected = cv2.VideoCapture(str(path)).read()
        assert way == "key_packet"
        assert (frame.rgb()[..., ::-1] == expected).all(), path.name
