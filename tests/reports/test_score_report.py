"""The page of a scoring run: what a reviewer reads and sees there, over real files, tables and a small network."""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.faces.isolate import LimitOptions
from batch.model.bundle import Bundle, load_bundle
from batch.records import Reason
from batch.reports.score import PictureOptions, write_score_report
from batch.scoring.commit import commit_keys, read_commits
from batch.scoring.drift import compare
from batch.scoring.ledger import read_ledger_files, write_ledger
from batch.scoring.records import Item
from batch.scoring.summary import ScoreSummary, read_history
from batch.scoring.suspicious import find
from batch.scoring.twins import TwinWriter
from batch.scoring.waiting import Waiting
from batch.storage.base import Storage
from batch.storage.local import LocalStorage
from tests.reports.outputs import Page
from tests.support.made_bundle import made_bundle
from tests.support.scored_nights import FACES, FRAMES, items_of, moving, recipe_of, score_night, still, summarized

HOSTILE = "<script>alert(1)<"
SURE, UNSURE, REAL = [[3.0] * FRAMES], [[0.2] * FRAMES], [[-3.0] * FRAMES]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    sink = LocalStorage(tmp_path_factory.mktemp("bundle"))
    made_bundle(sink)
    return load_bundle(sink)


@pytest.fixture(scope="module")
def drawn_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    still(folder / "still.jpg", 1)
    moving(folder / "clip.mp4", 2)
    return folder


@pytest.fixture(scope="module")
def shown(
    bundle: Bundle, drawn_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Page, Sequence[Storage]]:
    """The page of a night with pictures, and the buckets."""
    folder = tmp_path_factory.mktemp("shown")
    inputs, sink = buckets(drawn_files, folder), LocalStorage(folder / "out")
    return report(sink, inputs, bundle, night(sink, inputs, bundle)), inputs


@pytest.fixture
def sources(drawn_files: Path, tmp_path: Path) -> tuple[Storage, Storage]:
    return buckets(drawn_files, tmp_path)


def buckets(drawn_files: Path, folder: Path) -> tuple[Storage, Storage]:
    """A fake clip, a hostile name, an uncertain picture, a real one and a file that is none."""
    files = {
        "one": ["clip.mp4", f"{HOSTILE}/x onerror=.jpg", "real.jpg"],
        "two": ["unsure.jpg", "broken.jpg"],
    }
    for name, keys in files.items():
        for key in keys:
            path = folder / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn_files / f"{'clip' if key.endswith('mp4') else 'still'}{path.suffix}", path)
    return LocalStorage(folder / "one"), LocalStorage(folder / "two")


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "out")


def logits(item: Item) -> Sequence[Sequence[float]]:
    if item.key == "clip.mp4":
        return [[-1.0, 0.0, 5.0, 4.0, 3.0], [-2.0] * FRAMES]
    return UNSURE if item.key == "unsure.jpg" else REAL if item.key == "real.jpg" else SURE


def night(sink: Storage, sources: Sequence[Storage], bundle: Bundle, **more) -> ScoreSummary:
    return score_night(
        sink, sources, items_of(sources), logits, reasons={"broken.jpg": Reason.UNREADABLE}, bundle=bundle.digest,
        **more,
    )  # fmt: skip


def report(
    sink: Storage, sources: Sequence[Storage], bundle: Bundle, summary: ScoreSummary, *, pictures: bool = True,
    most: int = 24,
) -> Page:  # fmt: skip
    looked = PictureOptions(sources=tuple(sources), faces=FACES, limits=LimitOptions())
    commits = read_commits(sink, commit_keys(sink, summary.runs))
    findings = find(sink, commits, files=read_ledger_files(sink), most=most)
    uri = write_score_report(
        sink, summary=summary, findings=findings,
        drift=compare(read_history(sink), summary), bundle=bundle, options={"faces": {"frames": FRAMES}},
        pictures=looked if pictures else None,
    )  # fmt: skip
    return Page(Path(uri).read_text("utf-8"))


def test_the_page_names_what_to_look_at(shown: tuple[Page, Sequence[Storage]]) -> None:
    page, sources = shown
    assert "1 of 4 scored items is likely fake, 2 uncertain. 1 have no score." in page.text
    first = page.section("suspicious")
    assert re.findall(r"<bdi>([^<]*)</bdi><bdi class=\"folder", first.source) == [
        "x onerror=.jpg", "clip.mp4", "unsure.jpg",
    ], "most suspicious first, likely real ones not at all"  # fmt: skip
    assert "Of 2 faces, this one scores highest" in first.text
    assert "3 of its 5 frames score 0.80 or more." in first.text
    assert "neither likely real nor likely fake" in first.text
    coverage = page.section("coverage").text
    assert f"{sources[0].root} 3 3 3 100% 1 1 1 0 0" in coverage
    assert f"{sources[1].root} 2 2 1 50.0% 0 1 0 0 1" in coverage
    assert "Unreadable 1 unreadable broken.jpg" in page.section("unscored").text
    assert "told of broken.jpg" in page.section("unscored").text


def test_faces_frames_and_heatmaps_are_those_of_the_items(shown: tuple[Page, Sequence[Storage]]) -> None:
    found = shown[0].section("suspicious")
    kinds = Counter(alt.split(" ")[0] for alt, _ in found.pictures)
    assert kinds == {"Frame": 3, "Face": 3, "Heatmap": 3}
    skin = [colour for alt, colour in found.pictures if alt.startswith("Face")]
    assert all(red > blue + 15 for red, _, blue in skin), "the crop is on the face"
    frames = [colour for alt, colour in found.pictures if alt.startswith("Frame")]
    assert all(abs(red - blue) < 25 for red, _, blue in frames), "the frame is mostly wall"
    marks = re.findall(r'class="mark" style="left: ([\d.]+)%; top: ([\d.]+)%; width: ([\d.]+)%', found.source)
    assert {tuple(map(float, mark)) for mark in marks} == {(26.04, 31.48, 18.75)}
    assert "8 × 8 areas" in found.text
    assert "The frame at 1" in found.text
    assert "Score over 5 frames in 2.0 s: lowest 0.27, highest 0.99; 1 more face as a thin line" in found.text


def test_no_pictures_leaves_every_face_out_and_opens_no_file(
    sink: Storage, sources: tuple[Storage, ...], bundle: Bundle, tmp_path: Path
) -> None:
    summary = night(sink, sources, bundle)
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
    page = report(sink, sources, bundle, summary, pictures=False)
    assert page.all("img") == []
    assert "data:image" not in page.source
    assert "clip.mp4" in page.section("suspicious").text
    assert "Score over 5 frames" in page.section("suspicious").text
    assert "no face and no frame is in this page" in page.text


def test_files_that_are_gone_cost_their_pictures_alone(
    sink: Storage, sources: tuple[Storage, ...], bundle: Bundle, tmp_path: Path
) -> None:
    summary = night(sink, sources, bundle)
    (tmp_path / "one" / "clip.mp4").unlink()
    (tmp_path / "two" / "unsure.jpg").write_bytes(b"another file now")
    shown = report(sink, sources, bundle, summary).section("suspicious")
    assert shown.text.count("No picture: could not be opened again") == 2
    assert len(shown.pictures) == 3


def test_strangers_names_are_text(shown: tuple[Page, Sequence[Storage]]) -> None:
    page = shown[0]
    assert Counter(tag for tag, _ in page.tags)["script"] == 0
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.section("suspicious").text
    addresses = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert re.findall("#[0-9a-f]{6}", drawn) == [], "a fixed colour would vanish in one of the themes"


def test_the_page_stays_small_and_equal_content_is_shown_once(
    sink: Storage, sources: tuple[Storage, ...], bundle: Bundle
) -> None:
    one = items_of(sources)[0]
    items = [replace(one, etag=f"e{n}", fingerprint=(b"same" if n < 40 else b"f%03d" % n) * 4) for n in range(300)]
    summary = score_night(sink, sources, items, lambda item: SURE, bundle=bundle.digest)
    page = report(sink, sources, bundle, summary, pictures=False, most=7)
    shown = page.section("suspicious").text
    assert "The 7 highest scores of 300 items" in shown
    assert page.section("suspicious").source.count('class="suspect bare"') == 7
    assert len(page.source) < 80_000


@pytest.mark.parametrize("most", [1, 5])
def test_the_highest_scores_of_many_units_are_found(
    sink: Storage, sources: tuple[Storage, ...], bundle: Bundle, most: int
) -> None:
    one = next(item for item in items_of(sources) if item.key == "real.jpg")
    items = [replace(one, etag=f"e{n}") for n in np.random.default_rng(0).permutation(400)]
    summary = score_night(sink, sources, items, lambda item: [[int(item.etag[1:]) / 100]], bundle=bundle.digest)
    assert summary.units > 3
    shown = report(sink, sources, bundle, summary, pictures=False, most=most).section("suspicious").source
    expected = [f"{1 / (1 + np.exp(-n / 100)):.2f}" for n in range(399, 399 - most, -1)]
    assert re.findall(r'class="figure">([\d.]+)<', shown) == expected


def copied(sink: Storage, sources: Sequence[Storage], item: Item, *, run: int, bundle: Bundle) -> None:
    """Run `run` gives the item the outcome of what the ledger knows to be equal."""
    recipe = recipe_of(sources, run=run, night="2026-03-03", bundle=bundle.digest)
    twins = Waiting()
    twins.add(item)
    assert [each.won for each in TwinWriter(sink, recipe).write(twins, read_ledger_files(sink), [])] == [True]


def test_a_copy_of_what_was_scored_on_an_earlier_night_has_its_pictures(
    sink: Storage, sources: tuple[Storage, ...], bundle: Bundle
) -> None:
    """It was moved, after it had been touched: a copy of itself."""
    clip = replace(next(item for item in items_of(sources) if item.key == "clip.mp4"), fingerprint=b"f" * 16)
    score_night(sink, sources, [clip, replace(clip, etag="older", fingerprint=b"o" * 16)], logits, bundle=bundle.digest)
    write_ledger(sink, 1, [1])
    copied(sink, sources, replace(clip, etag="touched"), run=2, bundle=bundle)
    write_ledger(sink, 2, [2])
    sources[0].put("copy.mp4", sources[0].read("clip.mp4"))
    sources[0].delete("clip.mp4")
    copy = replace(next(item for item in items_of(sources) if item.key == "copy.mp4"), fingerprint=b"f" * 16)
    copied(sink, sources, copy, run=3, bundle=bundle)
    summary = summarized(sink, sources, run=3, night="2026-03-03", bundle=bundle.digest)
    page = report(sink, sources, bundle, summary)
    found = page.section("suspicious").text
    assert "copy.mp4" in found
    assert f"Its content was scored on an earlier night as {sources[0].uri('clip.mp4')}" in found
    assert "No picture" not in found
    assert [told["alt"] for told in page.all("img")] == [
        "Frame of copy.mp4", "Face from copy.mp4", "Heatmap over the face from copy.mp4",
    ]  # fmt: skip
    assert "lowest 0.27, highest 0.99; 1 more face as a thin line" in found
    for item in sink.list("tracks/date=2026-03-02/"):
        sink.delete(item.key)
    for key in commit_keys(sink, [1]):
        sink.delete(key)
    gone = report(sink, sources, bundle, summary).section("suspicious").text
    assert f"No picture: the frames of {sources[0].uri('clip.mp4')}, scored on an earlier night" in gone


def test_nothing_suspicious_and_nothing_scored(sink: Storage, sources: tuple[Storage, ...], bundle: Bundle) -> None:
    items = items_of(sources)
    real = score_night(sink, sources, items, lambda item: REAL, bundle=bundle.digest)
    page = report(sink, sources, bundle, real)
    assert "None of 5 scored items is likely fake, 0 are uncertain." in page.text
    assert "All scored items are likely real." in page.section("suspicious").text
    assert page.all("img") == [], "nobody has to look at those faces"
    reasons = {item.key: Reason.NO_FACE for item in items}
    none = score_night(sink, sources, items, logits, run=2, reasons=reasons, bundle=bundle.digest)
    assert "None of 5 new items could be scored." in report(sink, sources, bundle, none).text


def test_drift_and_refused_buckets_are_alarms(sink: Storage, sources: tuple[Storage, ...], bundle: Bundle) -> None:
    one = next(item for item in items_of(sources) if item.key == "real.jpg")
    for run in range(1, 5):
        items = [replace(one, etag=f"{run}.{n}") for n in range(60)]
        value = [[4.0]] if run == 4 else [[-4.0]]
        summary = score_night(
            sink, sources, items, lambda item, value=value: value, run=run, night=f"2026-03-0{run}",
            bundle=bundle.digest, denied={"s3://far/": "access denied"} if run == 4 else {},
        )  # fmt: skip
    page = report(sink, sources, bundle, summary, pictures=False)
    alarms = [told["aria-label"] for told in page.all("section") if told.get("class") == "alarm"]
    assert alarms == ["Alarm: drift", "Alarm: buckets"]
    assert "scores are spread otherwise than usual" in page.text
    assert "1 bucket could not be looked through." in page.text
    assert "s3://far/ access denied" in page.section("coverage").text
    assert "This run beside the last 3" in page.section("drift").text
    assert page.section("drift").source.count("<svg") == 3
    broken = replace(summary, denied={}, failed={"s3://far/": "SlowDown"}, problem="2 items were not looked at")
    page = report(sink, sources, bundle, broken, pictures=False)
    alarms = [told["aria-label"] for told in page.all("section") if told.get("class") == "alarm"]
    assert alarms == ["Alarm: drift", "Alarm: buckets", "Alarm: unfinished"]
    assert "s3://far/ SlowDown" in page.section("coverage").text
    assert "2 items were not looked at" in page.text
