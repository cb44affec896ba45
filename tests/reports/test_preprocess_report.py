"""The preprocessing report: what a person reads on the page for an output of known content."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from batch.records import Reason
from batch.reports.faces import MAX_SHARDS
from batch.shards.commit import FACES, read_commits
from batch.shards.summary import summarize
from batch.storage.local import LocalStorage
from tests.reports.outputs import BLUE, GREEN, ORANGE, aside, commit, fault, kept, media, near, report


class CountingStorage(LocalStorage):
    """A folder that remembers which faces it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, key: str) -> bytes:
        self.reads[key] += key.startswith(FACES)
        return super().read(key)

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        self.reads[key] += key.startswith(FACES)
        return super().read_range(key, start, length, etag=etag)


@pytest.fixture
def sink(tmp_path: Path) -> CountingStorage:
    return CountingStorage(tmp_path / "out")


def test_totals_and_accounting_stand_on_the_page(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/a.mp4", 0), kept("p/b.mp4"), aside("p/c.mp4"), fault("p/d.mp4")])
    commit(sink, "u2", [kept("q/e.mp4"), fault("q/f.mp4", Reason.TRUNCATED, "ends early")])
    page = report(sink)
    assert "Every one of 6 listed videos is accounted for." in page.text
    shown = page.section("accounting")
    assert "6 listed = 3 kept + 1 set aside + 2 faults" in shown.text
    assert "Kept 3 50.0%" in shown.text
    assert "Cut off truncated 1 16.7%" in shown.text
    assert "Kept: 3 (50.0%)" in shown.text, "the bar's pieces say what they are"
    assert "2 labelled files are not in the corpus." in page.section("corpus").text


def test_an_accounting_that_does_not_close_is_an_alarm(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/a.mp4"), aside("p/b.mp4")])
    right = summarize(read_commits(sink))
    lost = report(sink, summary=replace(right, listed=3))
    assert "does not close" in lost.text
    assert "3 videos were listed, but 2 outcomes are counted." in lost.text
    # Closes by the sum, but not by the tables.
    wrong = report(sink, summary=replace(right, kept=2, set_aside={}))
    assert "no_face: the summary counts 0 videos, the outcome tables hold 1." in wrong.text
    assert "The accounting closes" not in wrong.text


def test_a_video_counts_with_its_latest_generation(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/a.mp4"), fault("p/b.mp4"), fault("p/c.mp4", detail="still broken")])
    commit(sink, "u1", [kept("p/b.mp4"), fault("p/c.mp4", detail="broken again")], generation=1)
    first = summarize(commit for commit in read_commits(sink) if commit.generation == 0)
    page = report(sink, summary=replace(first, kept=2, faces=2, faults={"unreadable": 1}))
    assert "3 listed = 2 kept + 0 set aside + 1 fault" in page.text
    assert "broken again" in page.section("faults").text
    assert "still broken" not in page.text


def test_label_balance_by_video_face_and_part(sink: CountingStorage) -> None:
    videos = [kept("p/r.mp4", 0), *(kept(f"p/f{n}.mp4", 1) for n in range(3)), kept("$\\frac{$q/u.mp4", None)]
    commit(sink, "u1", [*videos, aside("p/x.mp4")])
    shown = report(sink).section("labels")
    assert "3.0 fake faces for one real." in shown.text
    assert "fake 4 3 75.0% 3 60.0%" in shown.text  # listed, kept, of listed, faces, share
    assert "unknown 1 1 100% 1 20.0%" in shown.text
    assert "p: 1 real, 3 fake" in shown.text, "the chart by part says its numbers"
    assert "$\\frac{$q" in shown.text, "a folder's name is text, not a formula"


def test_many_parts_are_told_by_their_extremes(sink: CountingStorage) -> None:
    for part in range(20):
        fakes = [kept(f"part{part:02}/f{n}.mp4", 1) for n in range(1 + part)]
        commit(sink, f"u{part:02}", [kept(f"part{part:02}/r.mp4", 0), *fakes])
    shown = report(sink).section("labels")
    assert "Fakes are 50.0% of the faces of part00 and 95.2% of those of part19" in shown.text
    assert "Faces by part" not in shown.text


def test_face_sizes_give_median_and_scaling_against_the_crop(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept(f"p/{side}.mp4", side=side) for side in (40, 50, 60, 64, 200)])
    shown = report(sink).section("sizes")
    assert "Median 60 px" in shown.text
    assert "Enlarged to 64 px 60.0%" in shown.text
    assert "Reduced to 64 px 20.0%" in shown.text
    assert "Neither 20.0%" in shown.text
    assert "crop 64 px" in shown.text, "the histogram marks the crop's size"


def test_clip_sizes_durations_and_time(sink: CountingStorage) -> None:
    clips = [media(1920, 1080, 10.0), media(1920, 1080, 10.0), media(720, 1280, 30.0)]
    commit(sink, "u1", [kept(f"p/{n}.mp4", info=info) for n, info in enumerate(clips)])
    told = replace(summarize(read_commits(sink)), seconds={"read": 1.5, "detect": 6.0, "wall": 12.0})
    page = report(sink, summary=told)
    assert "1920 × 1080: 2; 720 × 1280: 1" in page.section("clips").text
    assert "3 videos, median 10 s" in page.section("clips").text
    assert "12 s of task time in all, 4 s a video." in page.section("time").text
    assert "Detect 6 s 2 s 50.0%" in page.section("time").text
    assert "Other 4.5 s 1.5 s 37.5%" in page.section("time").text


def test_real_faces_stand_beside_fakes_of_the_same_source(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/r1.mp4", 0), kept("p/alone.mp4", 0), kept("p/f0.mp4", 1, "p/other.mp4")])
    commit(sink, "u2", [kept("p/f1.mp4", 1, "p/r1.mp4"), kept("p/f2.mp4", 1, "p/r1.mp4")])
    shown = report(sink).section("faces")
    assert [alt for alt, _ in shown.pictures] == [
        "Face from p/r1.mp4, real",
        "Face from p/f1.mp4, fake",
        "Face from p/f2.mp4, fake",
    ]
    assert all(near(mean, want) for (_, mean), want in zip(shown.pictures, (BLUE, ORANGE, ORANGE), strict=True))
    assert "p/r1.mp4" in shown.text
    assert "50 × 48" in shown.text.replace("\u202f", " ")


def test_without_pairs_single_faces_are_shown(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept(f"p/{n}.mp4", None) for n in range(3)])
    shown = report(sink).section("faces")
    assert "No source has both" in shown.text
    assert len(shown.pictures) == 3


def test_set_aside_videos_show_their_frame_and_a_count_of_the_rest(sink: CountingStorage) -> None:
    commit(sink, "u1", [aside(f"p/n{n:02}.mp4") for n in range(30)])
    commit(sink, "u2", [aside("p/two.mp4", Reason.SEVERAL_FACES, "2 faces in one frame"), fault("p/bad.mp4")])
    page = report(sink)
    shown = page.section("set-aside")
    assert "No face 30, 8 of them shown no_face" in shown.text
    assert "and 22 more" in shown.text
    assert "two.mp4 /in/p/ 2 faces in one frame" in shown.text
    assert len(shown.pictures) == 9
    assert all(near(mean, GREEN) for _, mean in shown.pictures)
    assert "bad.mp4 /in/p/ broken" in page.section("faults").text


def test_without_pictures_no_face_and_no_frame_is_in_the_page(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/r.mp4", 0), kept("p/f.mp4", 1, "p/r.mp4"), aside("p/n.mp4")])
    page = report(sink, pictures=False)
    assert not page.all("img")
    assert "data:image" not in page.source
    assert "no face and no frame is in it" in page.text
    assert "n.mp4 /in/p/ no face in the frame" in page.text, "the file is named all the same"
    assert "Median 50 px" in page.text


def test_options_and_versions_are_shown(sink: CountingStorage) -> None:
    commit(sink, "u1", [kept("p/a.mp4")])
    shown = report(sink).section("run")
    assert "crop crop_size 64" in shown.text
    assert "versions fakesift 9.8.7" in shown.text


@pytest.mark.parametrize("results", [[], [fault("a.mp4")], [aside("a.mp4")]])
def test_outputs_without_faces_have_a_page(sink: CountingStorage, results: list) -> None:
    if results:
        commit(sink, "u1", results)
    page = report(sink)
    assert "There are no faces." in page.text
    assert "does not close" not in page.text


def test_equal_outputs_give_equal_pages(tmp_path: Path) -> None:
    pages = []
    numbers = range(20)
    for name, order in (("one", numbers), ("two", reversed(numbers))):
        sink = LocalStorage(tmp_path / name / "out")
        for n in order:
            commit(sink, f"u{n:02}", [kept(f"p/r{n}.mp4", 0), kept(f"p/f{n}.mp4", 1, f"p/r{n}.mp4")])
        told = replace(summarize(read_commits(sink)), seconds={"read": 1.0})
        pages.append(report(sink, summary=told).source.replace(str(sink.root), ""))
    assert pages[0] == pages[1]


def test_a_large_corpus_gives_a_small_page_from_few_shards(sink: CountingStorage) -> None:
    units = 40
    for unit in range(units):
        # Real and fakes of a source lie in different shards: the worst case for reading pictures.
        faces = [kept(f"p{unit}/{n:03}-{'x' * 150}.mp4", n % 2, f"s{unit // 2}-{n // 2}") for n in range(40)]
        split = [face for face in faces if (face.video.label == 0) == (unit % 2 == 0)]
        faults = [reason for reason in Reason if reason.is_fault]
        bad = [fault(f"p{unit}/bad{n}{'y' * 150}.mp4", faults[n % len(faults)], "z" * 5000) for n in range(36)]
        commit(sink, f"u{unit:03}", [*split, *bad, *(aside(f"p{unit}/n{n}.mp4") for n in range(10))])
    sizes_alone = report(sink, pictures=False)
    baseline = sink.reads.copy()
    page = report(sink)
    opened = [key for key in sink.reads if sink.reads[key] > 2 * baseline[key]]
    assert page.section("faces").pictures
    assert 0 < len(opened) <= MAX_SHARDS
    assert len(page.source) < 1_000_000
    assert len(sizes_alone.source) < 400_000
