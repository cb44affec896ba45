"""What is wrong usage before work begins is a failure once it has begun, and what is a bug stays one."""

import pytest

from batch.storage.base import AccessError, DamagedError, MissingObjectError, StorageError, under_way
from jobs.console import Exit, guarded


def code(error: Exception, *, begun: bool) -> int:
    def run() -> Exit:
        if begun:
            with under_way():
                raise error
        raise error

    return guarded(run, "test")


@pytest.mark.parametrize("error", [AccessError("s3://b: ExpiredToken"), DamagedError("s3://b/commits/u.json: damaged")])
def test_wrong_usage_is_a_failure_later_on(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(error, begun=False) == 2
    assert code(error, begun=True) == 1
    assert capsys.readouterr().err == f"fakesift test: {error}\nfakesift test: stopped: {error}\n"


@pytest.mark.parametrize("error", [StorageError("s3://b: SlowDown"), MissingObjectError("a"), RuntimeError("b")])
def test_failures_are_what_they_were(error: Exception) -> None:
    assert code(error, begun=False) == code(error, begun=True) == 1


def test_a_bug_is_no_wrong_usage() -> None:
    with pytest.raises(AssertionError, match="not enough values") as caught:
        code(ValueError("not enough values to unpack"), begun=True)
    assert isinstance(caught.value.__cause__, ValueError)
