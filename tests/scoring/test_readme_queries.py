"""The README's own example queries, run on an output of several nights."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from batch.faces.options import FaceOptions
from batch.records import Reason
from batch.scoring.records import Item, ScoringOptions
from batch.storage.local import LocalStorage
from tests.support.scored import record

README = Path(__file__).parents[2] / "README.md"
OPTIONS = ScoringOptions(faces=FaceOptions(frames=16, faces="all"))


def item(key: str) -> Item:
    return Item(input=0, key=key, size_bytes=10, etag="e", modified_s=0, fingerprint=key.encode().ljust(16))


@pytest.fixture
def queries(tmp_path: Path) -> list[str]:
    """Python statements: an import, where the tables lie, what of them is the last, and three that show something."""
    bucket, sink = LocalStorage(tmp_path / "bucket"), LocalStorage(tmp_path / "demo" / "scores")
    reasons = {"c.jpg": Reason.NO_FACE, "d.mp4": Reason.TRUNCATED}
    first, second = [item("a.jpg"), item("c.jpg"), item("d.mp4")], [item("b.jpg"), item("e.mp4")]
    record(sink, bucket, first, run=1, options=OPTIONS, reasons=reasons, logit=3.0)
    record(sink, bucket, second, run=2, options=OPTIONS, logit=6.0, night=date(2026, 3, 3))
    record(sink, bucket, [item("e.mp4")], run=3, options=OPTIONS, logit=-6.0, night=date(2026, 3, 3), bundle="later")
    [block] = re.findall(r"```\n(import duckdb\nitems = .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert "'demo/scores/items/" in block
    return str(block).replace("demo/scores", sink.root).strip().splitlines()


def test_they_print_what_was_scored(queries: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given, shown = queries[:3], queries[3:]
    assert len(shown) == 3
    names: dict[str, Any] = {}
    exec("\n".join(given), names)
    suspicious, nights, reasons = (eval(query.removesuffix(".show()"), names).fetchall() for query in shown)
    bucket = str(tmp_path / "bucket")
    assert [uri for uri, _, _ in suspicious] == [f"{bucket}/b.jpg", f"{bucket}/a.jpg"], "e.mp4 is one no more"
    assert sorted(nights) == [(date(2026, 3, 2), bucket, 3, pytest.approx(2 / 3)), (date(2026, 3, 3), bucket, 3, 0)]
    assert sorted(reasons) == [("no_face", 1), ("truncated", 1)]
    exec("\n".join(queries), names)
    told = capsys.readouterr().out
    assert "likely fake" in told
    assert "truncated" in told
