"""The page and the card of a model: what a person reads there for an evaluation of known content."""

import io
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from batch.model.bundle import Bundle, BundleFile
from batch.model.evaluation import Evaluation, EvaluationOptions, evaluate_predictions
from batch.model.judgement import Judgement, fit_judgement, recalibrated, worst_mistakes
from batch.model.metrics import Metric
from batch.model.records import EpochRecord
from batch.reports.card import model_card, write_card
from batch.reports.figures import figure_of
from batch.reports.train import write_train_report
from batch.storage.base import Storage
from batch.storage.open import open_storage
from tests.reports.outputs import Page, near
from tests.support.predicted import predictions
from tests.support.saved_bundle import manifest

HOSTILE = "<script>alert(1)</script>'\" onerror=x | `*_"
GREEN = (20, 160, 60)


@cache
def judged() -> Judgement:
    return fit_judgement(predictions(groups=60, seed=1, split="validation"))


def evaluated(rows: pa.Table, name: str = "test", **further) -> Evaluation:
    return evaluate_predictions(
        rows, name=name, aggregation=judged().aggregation, thresholds=judged().thresholds,
        options=EvaluationOptions(resamples=100, prevalence=0.02), **further,
    )  # fmt: skip


@cache
def table() -> pa.Table:
    return recalibrated(predictions(groups=120, seed=2), judged().calibration)


@cache
def large() -> Evaluation:
    return evaluated(table(), groups={HOSTILE: [HOSTILE] * table().num_rows})


@cache
def tiny() -> Evaluation:
    return evaluated(recalibrated(predictions(groups=7, frames=1, seed=3), judged().calibration))


HISTORY = [
    EpochRecord(
        stage="head" if epoch == 1 else "whole", epoch=epoch, step=epoch * 50, loss=0.7 / epoch, learning_rate=1e-3,
        images_per_second=512, seconds=60, validation={"loss": 0.8 / epoch, "auc": 0.5 + epoch / 10, "accuracy": 0.6},
    )
    for epoch in (1, 2, 3)
]  # fmt: skip


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


def bundle(sink: Storage) -> Bundle:
    """A bundle's description; its files are not needed to write about it."""
    files = {"model.keras": BundleFile(sha256="0" * 64, size_bytes=1)}
    return Bundle(sink=sink, prefix="", digest="b" * 16, manifest=manifest(judged()), files=files)


def report(sink: Storage, main: Evaluation | None = None, *, pictures: bool = True, **values) -> Page:
    mistakes = values.pop("mistakes", worst_mistakes(table(), per_class=3))
    crop = np.broadcast_to(np.array(GREEN, np.uint8), (64, 64, 3))
    values = {
        "title": f"A {HOSTILE}", "evaluations": (main or large(), tiny()), "options": {"fit": {"epochs": 3}},
        "history": HISTORY, "split_counts": {"train": {"real": 4321, "fake": 9}},
        "crops": {entry.face: crop for entry in mistakes}, **values,
    }  # fmt: skip
    uri = write_train_report(sink, bundle=bundle(sink), pictures=pictures, mistakes=mistakes, **values)
    assert uri == sink.uri("report.html")
    return Page(sink.read("report.html").decode())


def test_figures_stand_on_the_page_with_their_intervals(sink: Storage) -> None:
    page = report(sink)
    auc = large().videos.metrics["auc"]
    assert f"On test (480 videos) the model scores a fake higher than a real one in {auc.value:.1%}" in page.text
    shown = page.section("figures").text
    for name in ("AUC", "Log-loss", "Equal error rate", "Found at 1% FPR", "Calibration error"):
        assert name in shown
    assert f"{auc.value:.3f} {auc.low:.3f} to {auc.high:.3f}" in shown
    assert "b" * 16 in page.text


def test_what_cannot_be_told_is_a_dash_with_its_reason(sink: Storage) -> None:
    shown = report(sink, tiny()).section("figures").text
    assert "– needs 100 real videos, there are 7" in shown
    assert "One of the classes has 7 independent groups: intervals are wide" in shown
    one_class = table().filter(pa.compute.equal(table()["label"], 1))
    page = report(sink, evaluated(one_class))
    assert "How well the model ranks cannot be told from test (360 videos): only fake videos." in page.text
    assert "A curve needs real and fake faces; test has 0 real and 1,440 fake ones." in page.section("curves").text


def test_thresholds_and_confusion(sink: Storage) -> None:
    shown = report(sink).section("points").text
    half = large().points[0]
    assert f"is real {half.true_real} {half.false_fake} is fake {half.false_real} {half.true_fake}" in shown
    assert "where 2% of the videos are fakes" in shown


def test_worst_mistakes_are_shown_as_pictures(sink: Storage) -> None:
    mistakes = worst_mistakes(table(), per_class=3)
    shown = report(sink).section("mistakes")
    assert len(shown.pictures) == 6
    assert all(near(colour, GREEN) for _, colour in shown.pictures)
    assert f"{mistakes[0].probability:.2f}" in shown.text
    assert mistakes[0].video_uri.rsplit("/", 1)[1] in shown.text
    assert report(sink, mistakes=()).section("mistakes").text.count("None.") == 2


def test_no_pictures_leaves_every_face_out(sink: Storage) -> None:
    sheet = io.BytesIO()
    Image.new("RGB", (64, 64), GREEN).save(sheet, "PNG")
    assert len(report(sink, contact_sheet=sheet.getvalue()).pictures) == 7
    page = report(sink, pictures=False, contact_sheet=sheet.getvalue())
    assert page.all("img") == []
    assert "data:image/jpeg" not in page.source
    assert worst_mistakes(table(), per_class=3)[0].video_uri.rsplit("/", 1)[1] in page.section("mistakes").text


def test_the_course_of_training(sink: Storage) -> None:
    shown = report(sink).section("training")
    assert "3 epochs, 150 steps, 3 min 0 s" in shown.text
    assert "training: 0.7, 0.35, 0.233; validation: 0.8, 0.4, 0.267" in shown.text, "charts say their numbers"
    assert "4,321" in report(sink).section("data").text
    page = report(sink, history=(), split_counts=None)
    assert '<section id="training">' not in page.source
    assert "fakesift · evaluation" in page.text


def test_a_warning_is_an_alarm(sink: Storage) -> None:
    page = report(sink, warning="12 groups of this data were seen in training.")
    assert [div for div in page.all("div") if div.get("role") == "alert"]
    assert "12 groups of this data were seen in training." in page.text


def test_the_page_is_self_contained_and_escapes_strangers(sink: Storage) -> None:
    page = report(sink)
    assert Counter(tag for tag, _ in page.tags)["script"] == 0
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.section("slices").text
    addresses = [
        attributes[name] for _, attributes in page.tags for name in ("src", "href", "xlink:href") if name in attributes
    ]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert page.source.count("<svg") == 7
    assert re.findall("#[0-9a-f]{6}", drawn) == [], "a fixed colour would vanish in one of the themes"
    assert len(page.source) < 500_000


def test_equal_values_give_equal_pages(sink: Storage) -> None:
    assert report(sink).source == report(sink).source


def test_the_card_says_the_same(sink: Storage) -> None:
    assert write_card(sink, bundle=bundle(sink), evaluations=[large(), tiny()]) == sink.uri("MODEL_CARD.md")
    card = sink.read("MODEL_CARD.md").decode()
    auc = large().videos.metrics["auc"]
    assert f"| AUC | {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) |" in card
    assert "– (needs 100 real videos, there are 7)" in card
    for heading in ("What it is for", "How good it is", "Thresholds", "Where it differs", "Reading a score", "Limits"):
        assert f"\n## {heading}\n" in card
    for line in card.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_names_from_strangers_are_no_markup_in_the_card(sink: Storage) -> None:
    card = model_card(bundle(sink), [large()], warning=HOSTILE)
    assert "<script>" not in card.replace("\\<script\\>", "")
    rows = [line for line in card.splitlines() if "script" in line and line.startswith("|")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 9 for row in rows), "eight cells, whatever the name holds"


def test_tables_of_the_card_have_as_many_cells_as_heads(sink: Storage) -> None:
    card = model_card(bundle(sink), [large(), tiny()], split_counts={"train": {"real": 1}})
    for block in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_the_card_shows_slices_of_each_kind_and_what_was_learnt_from(sink: Storage) -> None:
    rows = table()
    many = evaluated(rows, groups={"actor": [f"a{place % 60:02d}" for place in range(rows.num_rows)]})
    learnt = {
        "network": {"model": "xception", "weights": "auto"},
        "fit": {"head_epochs": 2, "epochs": 8, "optimizer": "adam"},
        "data": {
            "augment": "robust", "synthetic": "none", "balance": "downsample", "max_faces": 16000, "batch_size": 32,
        },
    }  # fmt: skip
    made = bundle(sink)
    card = model_card(replace(made, manifest=replace(made.manifest, training=learnt)), [many])
    section = card.split("## Where it differs")[1].split("##")[0]
    kinds = Counter(line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| "))
    assert kinds["actor"] == 8
    assert {entry.kind for entry in many.slices} <= set(kinds), "no kind pushes another out"
    assert (
        f"{len(many.slices) - sum(min(8, count) for count in Counter(e.kind for e in many.slices).values())} smaller"
        in section
    )
    assert "weights imagenet. Epochs, at most: 2 of the head" in card
    assert "drawn from 16000 faces at most that were chosen once" in card
    learnt["data"] = {**learnt["data"], "synthetic": "self-blended"}
    card = model_card(replace(made, manifest=replace(made.manifest, training=learnt)), [many])
    assert "It learnt from no fake of the data." in card and ", 8000 of them at most" in card


def test_slices_show_videos_and_where_these_have_several_faces_the_faces_too(sink: Storage) -> None:
    shown = report(sink).section("slices").text
    part = next(entry for entry in large().slices if entry.name == "part_1")
    figures = [figure_of(level.accuracy, percent=True).value for level in (part.videos, part.faces)]
    assert figures[0] != figures[1]
    assert re.search(rf"part_1 40 40 120 {figures[0]}.* 160 480 {figures[1]}", shown)
    assert "A video counts in every slice" in shown
    single = report(sink, tiny()).section("slices").text
    assert "each video has one face" in single and "Groups Real Fake Accuracy 0% 50% 100% AUC" in single
    card = model_card(bundle(sink), [large()])
    row = next(line for line in card.splitlines() if line.startswith(r"| part | part\_1"))
    assert [cell.split()[0] for cell in row.split("|")[3:6]] == ["40", "120", figures[0]]
    assert row.split("|")[7].split()[0] == figures[1]


def test_numbers_are_never_rounded_to_certainty() -> None:
    written = [figure_of(Metric(value=value)).value for value in (1.0, 0.99996, 0.5, 0.00001, 0.0)]
    assert written == ["1.000", ">0.999", "0.500", "<0.001", "0.000"]
    percents = [figure_of(Metric(value=value), percent=True).value for value in (1.0, 0.99996, 0.5, 0.00001, 0.0)]
    assert percents == ["100%", ">99.9%", "50.0%", "<0.1%", "0%"]


def test_nothing_to_report_is_refused(sink: Storage) -> None:
    with pytest.raises(ValueError, match="no evaluation"):
        write_train_report(sink, title="t", bundle=bundle(sink), evaluations=(), pictures=True, options={})
    with pytest.raises(ValueError, match="no evaluation"):
        model_card(bundle(sink), ())
    none = replace(large(), slices=(), points=())
    assert "There are no videos with a label." in report(sink, none).section("points").text
