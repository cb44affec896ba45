"""A clip with a face, large enough that looking at it takes several ranged reads."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.support.drawn_face import scene


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """640 x 360, ten frames a second apart, a key frame each; the index is at the end."""
    path: Path = tmp_path_factory.mktemp("clip") / "face.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.options = {"crf": "8", "g": "1", "threads": "1"}
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(scene(640, 360, [(300 + 4 * number, 170, 120)], seed=5), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()
