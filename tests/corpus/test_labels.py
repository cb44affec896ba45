"""Labels from metadata.json, folders, tables and nothing, read from real folders."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos
from batch.corpus.listing import list_videos, sample_videos
from batch.records import VideoRef
from batch.storage.open import open_storage


def fill(folder: Path, *keys: str) -> None:
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clip")


def labelled(folder: Path, wanted: str = "auto") -> tuple[str, dict[str, VideoRef], CorpusNotes]:
    source, notes = open_storage(str(folder)), CorpusNotes()
    table = open_storage(str(Path(wanted).parent)) if "." in wanted else None
    labels, items = choose_labels(wanted, source, list_videos(source), notes, table)
    videos = {video.key: video for video in label_videos(items, labels, notes)}
    return labels.mode, videos, notes


def test_dfdc_metadata_is_found_folder_by_folder(tmp_path: Path) -> None:
    fill(tmp_path, "p0/a.mp4", "p0/b.mp4", "p0/extra.mp4", "p0/deep/c.mp4", "p1/d.mp4", "p0/zz.MP4")
    (tmp_path / "p0/metadata.json").write_text(
        json.dumps(
            {
                "a.mp4": {"label": "REAL", "split": "train"},
                "b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
                "zz.MP4": {"label": "REAL"},
                "gone.mp4": {"label": "REAL"},
            }
        )
    )
    (tmp_path / "p1/metadata.json").write_text(json.dumps({"d.mp4": {"label": "FAKE", "original": "other.mp4"}}))
    mode, videos, notes = labelled(tmp_path)
    assert mode == "dfdc"
    assert (videos["p0/a.mp4"].label, videos["p0/b.mp4"].label, videos["p1/d.mp4"].label) == (0, 1, 1)
    assert videos["p0/a.mp4"].source_id == videos["p0/b.mp4"].source_id == "a.mp4"
    assert videos["p1/d.mp4"].source_id == "other.mp4"
    assert videos["p0/zz.MP4"].label == 0
    assert videos["p0/extra.mp4"].label is None
    assert notes.unlabelled == 2
    assert notes.missing_examples == ["p0/gone.mp4"]
    assert {video.part for video in videos.values()} == {"p0", "p1"}


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "[" * 100_000, '{"a.mp4": 3}', '{"a.mp4": {"label": []}}', "\0"])
def test_damaged_metadata_leaves_labels_unknown(tmp_path: Path, text: str) -> None:
    fill(tmp_path, "p/a.mp4")
    (tmp_path / "p/metadata.json").write_text(text)
    _, videos, _ = labelled(tmp_path, "dfdc")
    assert videos["p/a.mp4"].label is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entry=JSON, other=JSON)
def test_metadata_of_any_shape_is_survived(tmp_path: Path, entry: object, other: object) -> None:
    fill(tmp_path, "p/a.mp4")
    (tmp_path / "p/metadata.json").write_text(json.dumps({"a.mp4": entry, "label": other}))
    assert set(labelled(tmp_path, "dfdc")[1]) == {"p/a.mp4"}


def test_folder_names(tmp_path: Path) -> None:
    fill(tmp_path, "x/real/a.mp4", "x/Fake/b.mov")
    mode, videos, _ = labelled(tmp_path)
    assert mode == "folders"
    assert (videos["x/real/a.mp4"].label, videos["x/Fake/b.mov"].label) == (0, 1)


def test_no_labels(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4", "notes.txt")
    mode, videos, notes = labelled(tmp_path)
    assert (mode, list(videos), notes.unlabelled) == ("none", ["a.mp4"], 1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables(tmp_path: Path, kind: str) -> None:
    corpus = tmp_path / "corpus"
    fill(corpus, "a.mp4", "b.mp4", "c.mp4")
    rows = {"uri": ["a.mp4", f"{corpus}/b.mp4", "x.mp4"], "label": ["real", "1", "0"], "source": ["", "a.mp4", ""]}
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        path.write_text(
            "uri,label,source\n" + "".join(f"{u},{n},{s}\n" for u, n, s in zip(*rows.values(), strict=True))
        )
    else:
        pq.write_table(pa.table(rows), path)
    mode, videos, notes = labelled(corpus, str(path))
    assert mode == "table"
    assert [videos[key].label for key in ("a.mp4", "b.mp4", "c.mp4")] == [0, 1, None]
    assert videos["b.mp4"].source_id == videos["a.mp4"].source_id == "a.mp4"
    assert notes.missing_examples == ["x.mp4"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("a,b\n1,2\n", "expected uri, label"), ("uri,label\na.mp4,maybe\n", "row 1"), ("uri,label\n", "no rows")],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, told: str) -> None:
    fill(tmp_path / "corpus", "a.mp4")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=told):
        labelled(tmp_path / "corpus", str(tmp_path / "labels.csv"))


def test_an_unknown_way_to_label_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match="expected auto, dfdc"):
        labelled(tmp_path, "guess")


def video(number: int) -> VideoRef:
    return VideoRef(key=f"{number:05d}.mp4", size_bytes=100, etag="", part="", label=0, source_id="")


def test_samples_are_seeded_and_in_order() -> None:
    corpus = [video(number) for number in range(1000)]
    first = list(sample_videos(corpus, limit=50, max_bytes=None, seed=1))
    assert first == sorted(first, key=lambda v: v.key)
    assert len(first) == 50
    assert first == list(sample_videos(reversed(corpus), limit=50, max_bytes=None, seed=1))
    assert first != list(sample_videos(corpus, limit=50, max_bytes=None, seed=2))
    by_size = list(sample_videos(corpus, limit=None, max_bytes=5000, seed=1))
    assert by_size == first
    assert list(sample_videos(corpus, limit=None, max_bytes=None, seed=1)) == corpus
    assert {v.key for v in sample_videos(corpus[:900], limit=50, max_bytes=None, seed=1)} & {v.key for v in first}
