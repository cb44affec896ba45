"""Equal content under other names: what is known of it, in which buckets, and when it is not believed."""

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from batch.faces.options import FaceOptions
from batch.records import Reason, StoredObject
from batch.scoring.digests import fingerprint, place_secret, sampled
from batch.scoring.index import LedgerIndex, Sought
from batch.scoring.ledger import committed_rows, ledger_tables, open_runs, read_ledger_files
from batch.scoring.plan import Planner, PlanOptions
from batch.scoring.records import ScoringOptions, Why
from batch.scoring.twins import TwinWriter
from batch.storage.base import DamagedError, Storage
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from tests.support.scored import claim, recipe, record

OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))
LARGE = os.urandom(1 << 20)
MD5 = "0123456789abcdef" * 2


@pytest.fixture
def bucket(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "bucket")


@pytest.fixture
def sink(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def planner(sink: Storage, *inputs: Storage, bundle: str = "b") -> Planner:
    files = read_ledger_files(sink)
    tables = [*ledger_tables(sink, files), *committed_rows(sink, open_runs(sink, files))]
    return Planner(inputs, LedgerIndex(tables, Sought.of(bundle, OPTIONS, date(2026, 3, 2))), PlanOptions())


class Checksummed(LocalStorage):
    """As a remote store whose every object has one MD5, which is what a forger makes; counts reads."""

    is_local = False  # type: ignore[assignment]
    reads = 0

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for each in super().list(prefix):
            yield StoredObject(key=each.key, size_bytes=each.size_bytes, etag=MD5, modified_s=each.modified_s)

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        self.reads += 1
        return super().read_range(key, start, length)


@pytest.mark.parametrize("reason", [Reason.UNREADABLE, Reason.DECODER_CRASHED, Reason.OUT_OF_MEMORY])
def test_a_clip_that_was_called_a_picture_is_looked_at_under_its_own_name(
    sink: LocalStorage, bucket: LocalStorage, reason: Reason
) -> None:
    bucket.put("x.jpg", LARGE)
    record(sink, bucket, planner(sink, bucket).items(), run=1, options=OPTIONS, reasons={"x.jpg": reason})
    bucket.put("x.mp4", LARGE)
    bucket.put("y.jpg", LARGE)
    walked = planner(sink, bucket)
    assert {item.key: item.why for item in walked.items()} == {"x.mp4": Why.NEW, "y.jpg": Why.NEW}
    assert not walked.twins
    one, other = (fingerprint(bucket, key, len(LARGE), stored(bucket, key)) for key in ("x.jpg", "x.mp4"))
    assert one != other


def test_what_has_no_face_is_known_under_another_name(sink: LocalStorage, bucket: LocalStorage) -> None:
    bucket.put("x.jpg", LARGE)
    record(sink, bucket, planner(sink, bucket).items(), run=1, options=OPTIONS, reasons={"x.jpg": Reason.NO_FACE})
    bucket.put("y.png", LARGE)
    walked = planner(sink, bucket)
    assert not list(walked.items())
    assert [item.key for item in walked.twins] == ["y.png"]


def test_a_checksum_alone_is_not_believed(tmp_path: Path) -> None:
    store = Checksummed(tmp_path)
    middle = len(LARGE) // 2
    contents = {"a": LARGE, "copy/a": LARGE, "b": b"x" + LARGE[1:], "c": LARGE[:middle] + b"x" * 9000 + LARGE[middle:]}
    for name, data in contents.items():
        store.put(f"{name}.mp4", data[: len(LARGE)])
    marks = {each.key: fingerprint(store, each.key, each.size_bytes, each.etag) for each in store.list()}
    assert marks["a.mp4"] == marks["copy/a.mp4"]
    assert len(set(marks.values())) == 3
    assert store.reads <= 3 * len(contents)
    assert fingerprint(store, "absent.mp4", 10, MD5) is None
    assert fingerprint(store, "a.mp4", len(LARGE), MD5[::-1]) != marks["a.mp4"]
    assert sampled(store, "a.mp4", len(LARGE), MD5) == sampled(store, "copy/a.mp4", len(LARGE), MD5)


def test_nobody_knows_where_contents_are_looked_into(sink: LocalStorage, bucket: LocalStorage) -> None:
    """A file that equals a harmless one wherever somebody without the secret looks, and nowhere else."""
    secret = place_secret(sink)
    assert (place_secret(sink), len(secret)) == (secret, 32), "kept"
    cut = LocalStorage(sink.uri("cut"))
    cut.put("places.key", secret[:16])
    with pytest.raises(DamagedError, match=r"places\.key: 16 bytes, expected 32"):
        place_secret(cut)
    size = 4_000_000
    harmless = np.random.default_rng(0).bytes(size)
    forged = bytearray(b"x" * size)
    bucket.put("harmless.mp4", harmless)
    seen = Recorded(bucket.root)
    known = fingerprint(seen, "harmless.mp4", size, stored(bucket, "harmless.mp4"))
    for start, length in seen.spans:
        forged[start : start + length] = harmless[start : start + length]
    bucket.put("forged.mp4", bytes(forged))
    assert fingerprint(bucket, "forged.mp4", size, stored(bucket, "forged.mp4")) == known
    one, other = (
        fingerprint(bucket, name, size, stored(bucket, name), secret) for name in ("harmless.mp4", "forged.mp4")
    )
    assert one != other


class Recorded(LocalStorage):
    """A store that notes what is read of it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.spans: list[tuple[int, int]] = []

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        self.spans.append((start, length))
        return super().read_range(key, start, length, etag=etag)


@pytest.mark.slow
def test_an_object_that_was_moved_is_known(sink: LocalStorage, s3_bucket: str) -> None:
    clips = open_storage(f"s3://{s3_bucket}/clips")
    clips.put("in/a.mp4", LARGE)
    clips.put("in/b.mp4", LARGE[::-1])
    record(sink, clips, planner(sink, clips).items(), run=1, options=OPTIONS)
    for name in ("a", "b"):
        clips.put(f"done/{name}.mp4", clips.read(f"in/{name}.mp4"))
        clips.delete(f"in/{name}.mp4")
    walked = planner(sink, clips)
    assert not list(walked.items())
    assert walked.vanished() == 2
    claim(sink, 2)
    writer = TwinWriter(sink, recipe(clips, 2, OPTIONS))
    [report] = writer.write(walked.twins, [], [1, 2])
    assert (report.commit.same, report.commit.reasons, writer.later, writer.apart) == (2, {}, 0, 0)
    rows = [row for table in committed_rows(sink, [2]) for row in table.to_pylist()]
    assert {row["uri"]: row["same_as"] for row in rows} == {
        clips.uri(f"done/{name}.mp4"): clips.uri(f"in/{name}.mp4") for name in ("a", "b")
    }
    assert not list(planner(sink, clips).items())


def test_kept_crops_are_found_by_content(sink: LocalStorage, bucket: LocalStorage) -> None:
    bucket.put("m.jpg", LARGE)
    bucket.put("n.jpg", LARGE[::-1])
    faults = {"n.jpg": Reason.OUT_OF_MEMORY}
    first = planner(sink, bucket).items()
    [report] = record(sink, bucket, first, run=1, options=OPTIONS, reasons=faults, keep_crops=True)
    bucket.put("a.jpg", LARGE)  # listed before the object whose crops were kept
    bucket.put("b.jpg", LARGE[::-1])
    bucket.delete("m.jpg")
    walked = planner(sink, bucket, bundle="other")
    kept = {item.key: item.kept for item in walked.items()}
    assert kept == {"a.jpg": f"000001/{report.commit.unit}", "b.jpg": None}, "a fault is no outcome of the content"
    assert [item.key for item in walked.twins] == ["n.jpg"]


def stored(store: Storage, key: str) -> str:
    [found] = store.list(key)
    return found.etag
