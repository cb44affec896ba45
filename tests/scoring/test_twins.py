"""Items with the content of others: whose row they get, which of them are looked at, and where they wait."""

from dataclasses import replace
from pathlib import Path

import pytest

from batch.faces.options import FaceOptions
from batch.records import Reason
from batch.scoring.ledger import committed_rows, open_runs, read_ledger_files, write_ledger
from batch.scoring.records import Item, ScoringOptions
from batch.scoring.twins import TwinWriter
from batch.scoring.waiting import Waiting
from batch.storage.local import LocalStorage
from tests.support.scored import claim, recipe, record

OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))


def item(key: str, **changes: object) -> Item:
    made = Item(input=0, key=key, size_bytes=10, etag="e", modified_s=0, fingerprint=key.encode().ljust(16))
    return replace(made, **changes)  # type: ignore[arg-type]


def waiting(*items: Item) -> Waiting:
    made = Waiting()
    for each in items:
        made.add(each)
    return made


@pytest.fixture
def bucket(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "bucket")


@pytest.fixture
def sink(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def rows(sink: LocalStorage, run: int) -> dict[str, dict[str, object]]:
    return {row["uri"]: row for table in committed_rows(sink, [run]) for row in table.to_pylist()}


def test_twins_get_the_row_of_what_was_scored(sink: LocalStorage, bucket: LocalStorage) -> None:
    items = [item(f"{name}.jpg") for name in "abcde"]
    reasons = {"b.jpg": Reason.NO_FACE, "c.jpg": Reason.TIMEOUT, "d.jpg": Reason.DECODER_CRASHED}
    record(sink, bucket, items[:4], run=1, options=OPTIONS, reasons=reasons)
    claim(sink, 2)
    writer = TwinWriter(sink, recipe(bucket, 2, OPTIONS))
    [report] = writer.write(waiting(*(replace(each, key=f"x/{each.key}", etag="f") for each in items)), [], [1, 2])
    found = rows(sink, 2)
    assert report.commit.same == len(found) == 2
    assert writer.later == 2, "one's original took too long, the other's was not looked at"
    assert [each.key for each in writer.again()] == ["x/d.jpg"], "a fault need not be shared"
    assert writer.apart == 1
    copied = found[bucket.uri("x/a.jpg")]
    assert (copied["probability"], copied["same_as"], copied["reason"]) == (0.5, bucket.uri("a.jpg"), None)
    assert found[bucket.uri("x/b.jpg")]["reason"] == "no_face"
    claim(sink, 3)
    later = waiting(replace(items[0], key="y.jpg"))
    assert len(list(TwinWriter(sink, recipe(bucket, 3, OPTIONS)).write(later, [], [2, 3]))) == 1
    [row] = rows(sink, 3).values()
    assert row["same_as"] == bucket.uri("a.jpg"), "not the twin"


@pytest.mark.parametrize("closed", [True, False])
def test_what_was_scored_counts_whatever_faults_others_met(
    sink: LocalStorage, bucket: LocalStorage, closed: bool
) -> None:
    same = [item(f"{number}.jpg", fingerprint=b"f" * 16) for number in range(4)]
    faults = {"0.jpg": Reason.TIMEOUT, "2.jpg": Reason.UNREADABLE, "3.jpg": Reason.STORAGE_ERROR}
    for number, each in enumerate(same):
        record(sink, bucket, [each], run=number + 1, options=OPTIONS, reasons=faults)
    if closed:
        write_ledger(sink, 4, [1, 2, 3, 4])
    claim(sink, 5)
    files = read_ledger_files(sink)
    writer = TwinWriter(sink, recipe(bucket, 5, OPTIONS))
    list(writer.write(waiting(replace(same[0], key="x.jpg")), files, open_runs(sink, files)))
    [row] = rows(sink, 5).values()
    assert (row["same_as"], row["reason"]) == (bucket.uri("1.jpg"), None)
    assert (writer.later, writer.apart) == (0, 0)


def test_twins_beyond_the_budget_are_left(sink: LocalStorage, bucket: LocalStorage) -> None:
    original = item("a.jpg")
    record(sink, bucket, [original], run=1, options=OPTIONS)
    claim(sink, 2)
    copies = waiting(*(replace(original, key=f"x/{number:04}.jpg") for number in range(2500)))
    answers = iter([True, True, True, True, False])  # at first, after the commit of run 1, before each unit
    writer = TwinWriter(sink, recipe(bucket, 2, OPTIONS), lambda: next(answers))
    reports = list(writer.write(copies, [], [1, 2]))
    assert [report.commit.listed for report in reports] == [1000, 1000]
    found = rows(sink, 2)
    assert len(found) == 2000
    assert {row["same_as"] for row in found.values()} == {bucket.uri("a.jpg")}
    late = TwinWriter(sink, recipe(bucket, 2, OPTIONS), lambda: False)
    assert (list(late.write(copies, [], [1, 2])), late.later, list(late.again())) == ([], 0, [])


def test_twins_wait_in_a_file_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Waiting()
    assert (list(made), len(made), made.marks().tolist()) == ([], 0, [])
    assert not list(tmp_path.iterdir()), "most nights have none"
    with pytest.raises(ValueError, match="without a fingerprint"):
        made.add(item("a.jpg", fingerprint=None))
    taken = [item(f"{number}.jpg", fingerprint=b"%015d\0" % (number // 2)) for number in range(3000)]
    for each in reversed(taken):
        made.add(each)
    assert list(made) == taken[::-1]
    assert len(made.marks()) == 1500
    assert list(tmp_path.rglob("twins.sqlite"))
    del made
    assert not list(tmp_path.iterdir())
