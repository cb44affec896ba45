"""What is new: the listing minus the ledger."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from batch.faces.options import FaceOptions
from batch.records import Reason, StoredObject
from batch.scoring.digests import DigestSet, digest16, fingerprint, sampled
from batch.scoring.index import LedgerIndex, Sought
from batch.scoring.ledger import committed_rows, ledger_tables, open_runs, read_ledger_files, write_ledger
from batch.scoring.listing import FilterOptions, parse_time, refuse_overlaps
from batch.scoring.newest import newest_first
from batch.scoring.plan import Planner, PlanOptions
from batch.scoring.records import Item, ScoringOptions, Why
from batch.storage.base import AccessError
from batch.storage.local import LocalStorage
from tests.benchmarks.score import MadeUpListing, ledger_of
from tests.support.scored import claim, record

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))


@pytest.fixture
def bucket(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "bucket")
    for name in "abcd":
        made.put(f"{name}.jpg", name.encode() * 10)
    return made


@pytest.fixture
def sink(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def planner(
    sink: LocalStorage,
    *inputs: LocalStorage,
    night: date = MONDAY,
    bundle: str = "b",
    scoring: ScoringOptions = OPTIONS,
    **more: object,
) -> Planner:
    files = read_ledger_files(sink)
    tables: Iterator[object] = iter([*ledger_tables(sink, files), *committed_rows(sink, open_runs(sink, files))])
    index = LedgerIndex(tables, Sought.of(bundle, scoring, night))  # type: ignore[arg-type]
    return Planner(inputs, index, PlanOptions(**more))  # type: ignore[arg-type]


def keys(items: Iterator[Item]) -> dict[str, Why]:
    return {item.key: item.why for item in items}


def test_all_is_new_at_first_and_nothing_the_next_time(sink: LocalStorage, bucket: LocalStorage) -> None:
    first = list(planner(sink, bucket).items())
    assert [item.key for item in first] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert {item.why for item in first} == {Why.NEW}
    record(sink, bucket, first, run=1, options=OPTIONS)
    assert not list(planner(sink, bucket).items())
    write_ledger(sink, 1, [1])
    assert not open_runs(sink, read_ledger_files(sink))
    assert not list(planner(sink, bucket).items())


def test_a_changed_object_and_another_bundle_are_looked_at_again(sink: LocalStorage, bucket: LocalStorage) -> None:
    record(sink, bucket, planner(sink, bucket).items(), run=1, options=OPTIONS)
    bucket.put("b.jpg", b"other content")
    bucket.put("e.jpg", b"new content")
    assert keys(planner(sink, bucket).items()) == {"b.jpg": Why.CHANGED, "e.jpg": Why.NEW}
    other = keys(planner(sink, bucket, bundle="c").items())
    assert other == dict.fromkeys(["a.jpg", "c.jpg", "d.jpg"], Why.RESCORED) | {"b.jpg": Why.CHANGED, "e.jpg": Why.NEW}


def test_what_was_scored_in_another_precision_is_scored_again(sink: LocalStorage, bucket: LocalStorage) -> None:
    half = replace(OPTIONS, precision="bfloat16")
    record(sink, bucket, planner(sink, bucket).items(), run=1, options=OPTIONS, precision="float32", runtime="openvino")
    rows = [row for table in committed_rows(sink, [1]) for row in table.to_pylist()]
    assert {row["options"] for row in rows} == {OPTIONS.digest()}
    again = list(planner(sink, bucket, scoring=half).items())
    assert keys(iter(again)) == dict.fromkeys(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], Why.RESCORED)
    record(sink, bucket, again, run=2, options=half, precision="bfloat16", runtime="openvino")
    assert not list(planner(sink, bucket, scoring=half).items())
    assert not list(planner(sink, bucket).items())


@pytest.mark.parametrize("reason", [Reason.STORAGE_ERROR, Reason.TIMEOUT])
def test_what_another_night_may_mend_is_tried_on_three_more(
    sink: LocalStorage, bucket: LocalStorage, reason: Reason
) -> None:
    pending = list(planner(sink, bucket).items())
    record(sink, bucket, pending, run=1, options=OPTIONS, night=MONDAY, reasons={"c.jpg": reason})
    assert not list(planner(sink, bucket, night=MONDAY).items())
    for run in (2, 3, 4):
        night = date(2026, 3, 1 + run)
        write_ledger(sink, run - 1, [run - 1])
        again = list(planner(sink, bucket, night=night).items())
        assert [(item.key, item.why, item.attempt) for item in again] == [("c.jpg", Why.RETRIED, run)]
        record(sink, bucket, again, run=run, options=OPTIONS, night=night, reasons={"c.jpg": reason})
    assert not list(planner(sink, bucket, night=date(2026, 3, 20)).items())


def test_a_fault_of_the_file_waits_for_its_etag(sink: LocalStorage, bucket: LocalStorage) -> None:
    pending = list(planner(sink, bucket).items())
    record(sink, bucket, pending, run=1, options=OPTIONS, reasons={"c.jpg": Reason.TRUNCATED})
    assert not list(planner(sink, bucket, night=TUESDAY).items())
    bucket.put("c.jpg", b"the whole file")
    assert keys(planner(sink, bucket, night=TUESDAY).items()) == {"c.jpg": Why.CHANGED}


def test_equal_content_is_scored_once(sink: LocalStorage, bucket: LocalStorage) -> None:
    bucket.put("x/again.jpg", b"a" * 10)
    first = planner(sink, bucket)
    pending = list(first.items())
    assert "x/again.jpg" not in keys(iter(pending))
    assert [item.key for item in first.twins] == ["x/again.jpg"]
    record(sink, bucket, pending, run=1, options=OPTIONS)
    bucket.put("y.jpg", b"b" * 10)
    second = planner(sink, bucket)
    assert not list(second.items())
    assert sorted(item.key for item in second.twins) == ["x/again.jpg", "y.jpg"]
    assert len(list(planner(sink, bucket, bundle="c").items())) == 4  # another bundle scores each content once


def test_vanished_objects_are_counted_for_the_inputs_at_hand(
    sink: LocalStorage, bucket: LocalStorage, tmp_path: Path
) -> None:
    other = LocalStorage(tmp_path / "other")
    other.put("z.png", b"z")
    record(sink, bucket, planner(sink, bucket).items(), run=1, options=OPTIONS)
    record(sink, other, planner(sink, other).items(), run=2, options=OPTIONS)
    bucket.delete("a.jpg")
    later = planner(sink, bucket)
    assert not list(later.items())
    assert later.vanished() == 1
    other.delete("z.png")
    both = planner(sink, bucket, other)
    assert not list(both.items())
    assert both.vanished() == 2
    filtered = planner(sink, bucket, filters=FilterOptions(exclude=("b*",)))
    assert not list(filtered.items())
    assert (filtered.filtered, filtered.vanished()) == (1, 1)


def test_an_input_that_refuses_does_not_stop_the_others(sink: LocalStorage, bucket: LocalStorage) -> None:
    class Refusing(LocalStorage):
        def list(self, prefix: str = "") -> Iterator[object]:  # type: ignore[override]
            raise AccessError(f"{self.root}: AccessDenied")
            yield

    walked = planner(sink, Refusing("/closed"), bucket)
    assert len(list(walked.items())) == 4
    assert walked.denied == {"/closed": "/closed: AccessDenied"}
    assert walked.vanished() == 0


def test_filters(sink: LocalStorage, bucket: LocalStorage) -> None:
    bucket.put("notes.txt", b"")
    bucket.put("deep/e.MP4", b"clip")

    def taken(**options: object) -> list[str]:
        return list(keys(planner(sink, bucket, filters=FilterOptions(**options)).items()))  # type: ignore[arg-type]

    assert taken() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "deep/e.MP4"]
    assert taken(include=("*.MP4",)) == ["deep/e.MP4"]
    assert taken(include=("a*", "b*"), exclude=("b.*",)) == ["a.jpg"]
    assert taken(since=parse_time("2100-01-01", "since")) == []
    assert len(taken(until=parse_time("2100-01-01", "until"))) == 5
    with pytest.raises(ValueError, match="not before"):
        FilterOptions(since=parse_time("2026-01-02", "since"), until=parse_time("2026-01-01", "until"))
    with pytest.raises(ValueError, match="since: got 'soon'"):
        parse_time("soon", "since")


def test_a_limit_takes_the_newest(sink: LocalStorage, bucket: LocalStorage, tmp_path: Path) -> None:
    import os

    for age, name in enumerate("cadb"):
        os.utime(tmp_path / "bucket" / f"{name}.jpg", (1e9 - age, 1e9 - age))
    walked = planner(sink, bucket, limit=2)
    assert [item.key for item in walked.items()] == ["c.jpg", "a.jpg"]
    assert walked.pending.total() == 4
    assert walked.beyond_limit == 2


def test_newest_first_keeps_the_order_of_equals() -> None:
    item = Item(input=0, key="", size_bytes=1, etag="e", modified_s=0)
    items = [replace(item, key=str(n), modified_s=float(n % 3)) for n in range(3000)]
    assert list(newest_first(items)) == sorted(items, key=lambda item: -item.modified_s)


def test_inputs_may_not_overlap(tmp_path: Path) -> None:
    inner, outer = LocalStorage(tmp_path / "a" / "b"), LocalStorage(tmp_path / "a")
    refuse_overlaps([inner, LocalStorage(tmp_path / "ab")])
    for pair in ([inner, outer], [outer, inner], [outer, outer]):
        with pytest.raises(ValueError, match="inside of it"):
            refuse_overlaps(pair)


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    large = bytes(range(256)) * 4000
    contents = [b"", b"a", b"b", large, b"x" + large[1:], large[:-1] + b"x", large[:512_000] + b"x" + large[512_001:]]
    marks = []
    for number, content in enumerate(contents):
        store.put(f"{number}", content)
        store.put(f"{number}-again", content)
        found = [item for item in store.list(f"{number}") if item.key.split("-")[0] == str(number)]
        one, two = (fingerprint(store, item.key, item.size_bytes, item.etag) for item in found)
        assert one == two
        marks.append(one)
    assert len(set(marks)) >= len(contents) - 1  # one changed byte between the places that are looked at may pass
    assert sampled(store, "absent", 10, "e") is None


def test_a_large_ledger_takes_some_bytes_an_object_and_its_listing_streams() -> None:
    class Counted(MadeUpListing):
        listed = 0

        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            for item in super().list(prefix):
                self.listed += 1
                yield item

    bucket = Counted(20_000)
    index = LedgerIndex(ledger_of(bucket.objects, "b", OPTIONS.digest()), Sought.of("b", OPTIONS, TUESDAY))
    assert len(index) == 19_800
    assert index.state_bytes < 120 * len(index)
    found = Planner([bucket], index, PlanOptions()).items()
    first = next(found)
    assert (first.why, bucket.listed < 10_000) == (Why.CHANGED, True), "one in a hundred is read ahead for, of them 64"
    assert (sum(1 for _ in found), bucket.listed) == (219, 20_000)


def test_a_set_of_digests_holds_what_was_put_in() -> None:
    held = DigestSet()
    members = [digest16(str(number)) for number in range(70_000)]
    assert all(held.add(member) for member in members)
    assert not any(held.add(member) for member in members[::1000])
    assert len(held) == 70_000
    assert held.state_bytes <= 16 * 70_000


def test_a_run_that_was_killed_is_taken_in_by_the_next(sink: LocalStorage, bucket: LocalStorage) -> None:
    pending = list(planner(sink, bucket).items())
    record(sink, bucket, pending[:2], run=1, options=OPTIONS)
    claim(sink, 2)
    rest = list(planner(sink, bucket).items())
    assert [item.key for item in rest] == ["c.jpg", "d.jpg"]
    record(sink, bucket, rest, run=2, options=OPTIONS)
    assert open_runs(sink, []) == [1, 2]
    write_ledger(sink, 2, [1, 2])
    assert sum(table.num_rows for table in ledger_tables(sink, read_ledger_files(sink))) == 4
    assert not list(planner(sink, bucket).items())
