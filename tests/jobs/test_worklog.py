"""What workers log of units and videos."""

import logging

import pytest

from batch.records import Reason, VideoRef, VideoResult
from jobs.worklog import unit_log


def video(key: str) -> VideoRef:
    return VideoRef(key=key, size_bytes=1, etag="e", part="", label=None, source_id=key)


def look(asked: VideoRef) -> VideoResult:
    reason = Reason.UNREADABLE if asked.key.startswith("bad") else Reason.NO_FACE
    return VideoResult(video=asked, reason=reason, detail="of https://me:word@host/x?X-Amz-Signature=abc&y=1")


def test_a_fault_carries_unit_and_uri_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fakesift")
    with unit_log("u1.r2", videos=2) as log:
        watched = log.watched(look, lambda each: f"s3://b/{each.key}")
        assert [watched(video(key)).reason for key in ("bad.mp4", "empty.mp4")] == [Reason.UNREADABLE, Reason.NO_FACE]
        log.done("unit committed", unreadable=1)
    started, fault, committed = caplog.records
    assert [record.getMessage() for record in caplog.records] == ["unit started", "video fault", "unit committed"]
    assert {record.unit for record in caplog.records} == {"u1.r2"}  # type: ignore[attr-defined]
    assert started.attempt == 0  # type: ignore[attr-defined]
    assert (fault.uri, fault.reason) == ("s3://b/bad.mp4", "unreadable")  # type: ignore[attr-defined]
    assert fault.detail == "of https://***host/x?X-Amz-Signature=***&y=1"  # type: ignore[attr-defined]
    assert committed.unreadable == 1  # type: ignore[attr-defined]


def test_a_unit_that_fails_says_why_and_goes_on_failing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="disk"), unit_log("u2"):
        raise RuntimeError("no disk")
    (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (failed.getMessage(), failed.error) == ("unit failed", "RuntimeError: no disk")  # type: ignore[attr-defined]
