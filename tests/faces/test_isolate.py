"""A clip that kills, hangs or bloats the decoding process costs itself alone."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.records import Reason, VideoRef, VideoResult
from tests.support.poison import extract

ROOT = Path(__file__).parents[2]


def video(key: str) -> VideoRef:
    return VideoRef(key=key, size_bytes=1, etag="", part="", label=None, source_id=key)


@pytest.fixture
def isolated() -> Iterator[IsolatedExtractor]:
    extractor = IsolatedExtractor(extract, LimitOptions(clip_seconds=2, clip_memory_mb=512))
    yield extractor
    extractor.close()


def test_healthy_clips_share_one_process(isolated: IsolatedExtractor) -> None:
    pids = {isolated(video(f"{number}.mp4")).detail for number in range(5)}
    assert len(pids) == 1
    assert pids != {str(os.getpid())}


@pytest.mark.parametrize(
    ("key", "reason"),
    [("abort", Reason.DECODER_CRASHED), ("hang", Reason.TIMEOUT), ("memory", Reason.OUT_OF_MEMORY)],
)
def test_the_culprit_alone_is_a_fault(isolated: IsolatedExtractor, key: str, reason: Reason) -> None:
    found = [isolated(video(name)).reason for name in ("a", key, "b", key, "c")]
    assert found == [Reason.KEPT, reason, Reason.KEPT, reason, Reason.KEPT]


def test_a_bug_is_no_outcome(isolated: IsolatedExtractor) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        isolated(video("bug"))
    assert "poison.py" in caught.value.__notes__[0]  # where it happened
    assert isolated(video("a")).reason is Reason.KEPT


class Unloadable:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[int], NoReturn], tuple[int]]:
        return os._exit, (3,)

    def __call__(self, video: VideoRef) -> VideoResult:
        raise NotImplementedError


def test_a_child_that_does_not_start_is_no_clip_s_fault() -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        IsolatedExtractor(Unloadable(), LimitOptions())(video("a"))


def test_a_limit_longer_than_any_clock() -> None:
    patient = IsolatedExtractor(extract, LimitOptions(clip_seconds=1e12))
    assert patient(video("a")).reason is Reason.KEPT
    patient.close()


def test_the_child_does_not_outlive_a_killed_parent() -> None:
    code = (
        "import os, sys\n"
        "from batch.faces.isolate import IsolatedExtractor, LimitOptions\n"
        "from tests.support.poison import extract\n"
        "from tests.faces.test_isolate import video\n"
        "if __name__ == '__main__':\n"
        "    print(IsolatedExtractor(extract, LimitOptions())(video('a')).detail, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    child = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 20
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.stdout.strip(), done.stderr
    assert not child.exists()


def test_limits_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="clip seconds: got 0"):
        LimitOptions(clip_seconds=0)
    with pytest.raises(ValueError, match="clip memory: got 1 MB"):
        LimitOptions(clip_memory_mb=1)
