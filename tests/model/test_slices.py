"""Slices of errors: how strongly clips were compressed, and groups that a table names."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.model.index import load_index
from batch.model.records import FaceIndex
from batch.model.slices import clip_quality, read_slices
from batch.records import MediaInfo, Reason, VideoRef, VideoResult, WorkUnit
from batch.shards.build import build_unit
from batch.storage.local import LocalStorage
from tests.support.face_outputs import FACES, corpus, faces_of_clip, index_of, real, write_output


@pytest.mark.parametrize(
    ("size_bytes", "duration_s", "fps", "said"),
    [
        (100_000, 10.0, 25.0, "0 to 0.025 bits a pixel"),  # 640 x 360 pixels, 250 frames: 0.014
        (1_000_000, 10.0, 25.0, "0.1 to 0.2 bits a pixel"),
        (50_000, None, None, "0.5 and more bits a pixel"),  # a picture: 1.7
        (50_000, None, 25.0, None),
    ],
)
def test_quality_is_bits_for_a_pixel_of_a_frame(
    size_bytes: int, duration_s: float | None, fps: float | None, said: str | None, tmp_path: Path
) -> None:
    sink = LocalStorage(tmp_path)
    clip = real("p/a.mp4")
    write_output(sink, [], finished=False)
    media = MediaInfo(duration_s=duration_s, fps=fps, codec="h264", width_px=640, height_px=360)
    video = VideoRef(key=clip.key, size_bytes=size_bytes, etag="e", part="p", label=0, source_id=clip.source)
    result = VideoResult(
        video=video, reason=Reason.KEPT, faces_found=1, frames_seen=1, media=media,
        faces=faces_of_clip(clip, video, media),
    )  # fmt: skip
    assert build_unit(WorkUnit(id="u", videos=(video,)), lambda _: result, "/in", sink, FACES.digest()).won
    assert clip_quality(load_index([sink])) == [said]


@pytest.fixture(scope="module")
def index() -> FaceIndex:
    return index_of(corpus(3, fakes=1))


def table(sink: LocalStorage, text: str, name: str = "groups.csv") -> str:
    sink.put(name, text.encode())
    return name


def test_groups_of_a_table_find_their_clips_by_address_or_its_end(index: FaceIndex, tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path)
    text = "uri,method,platform\n/in/part_0/real0000.mp4,  ,A\nfake0001_0.mp4,swap,B\npart_2/fake0002_0.mp4,swap,\n"
    found = read_slices(sink, table(sink, text), index)
    by_clip = {
        uri.rsplit("/", 1)[1]: values
        for uri, *values in zip(index.table["video_uri"].to_pylist(), found["method"], found["platform"], strict=True)
    }
    assert by_clip["real0000.mp4"] == [None, "A"]
    assert by_clip["fake0001_0.mp4"] == ["swap", "B"]
    assert by_clip["fake0002_0.mp4"] == ["swap", None]
    assert by_clip["real0001.mp4"] == [None, None]
    rows = io.BytesIO()
    pq.write_table(pa.table({"uri": ["real0000.mp4"], "year": [2019]}), rows)
    sink.put("groups.parquet", rows.getvalue())
    assert "2019" in read_slices(sink, "groups.parquet", index)["year"]
    pq.write_table(
        pa.table({"uri": ["real0000.mp4", "real0001.mp4"], "fps": [25.0, float("nan")]}), rows := io.BytesIO()
    )
    sink.put("numbers.parquet", rows.getvalue())
    assert set(read_slices(sink, "numbers.parquet", index)["fps"]) == {"25.0", None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uri,method\nother.mp4,swap\n", "names no clip of the data, which has /in/part_0/"),
        ("clip,method\nreal0000.mp4,swap\n", "row 1: expected a uri and one value"),
        ("uri\nreal0000.mp4\n", "row 1: expected a uri and one value"),
        ("uri,method\nreal0000.mp4,swap,2\n", "row 1: expected a uri and one value"),
        ("uri,method\nreal0000.mp4,swap\nreal0000.mp4,other\n", "real0000.mp4 stands twice"),
        ("uri,method\n", "no rows"),
        ("uri,face size\nreal0000.mp4,large\n", "column face size is named as a slice that is always made"),
        ("uri,clip quality\nreal0000.mp4,good\n", "expected other names than part, face size, frame height, clip"),
        ("\xff\xfe", "names no clip|no rows|expected a uri"),
    ],
)
def test_a_table_that_says_nothing_is_refused(text: str, said: str, index: FaceIndex, tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path)
    with pytest.raises(ValueError, match=rf"groups\.csv: .*({said})"):
        read_slices(sink, table(sink, text), index)


def test_a_number_is_no_group(tmp_path: Path) -> None:
    many = index_of(corpus(110, fakes=1))
    sink = LocalStorage(tmp_path)
    rows = "".join(f"real{number:04d}.mp4,{number}\n" for number in range(110))
    with pytest.raises(ValueError, match="column loss has 110 values, expected 100 groups at most"):
        read_slices(sink, table(sink, f"uri,loss\n{rows}"), many)
    with pytest.raises(ValueError, match=r"none\.csv: missing, expected a CSV or Parquet table"):
        read_slices(sink, "none.csv", many)
    sink.put("broken.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"broken\.parquet: damaged, expected a CSV or Parquet table"):
        read_slices(sink, "broken.parquet", many)
