"""Scratch folders: gone with their process, also with one that was killed, and with no other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch.storage.scratch import ScratchFolder, sweep_scratch
from tests.support.job import ROOT

HOLDER = """
import sys
from batch.storage.scratch import ScratchFolder
folder = ScratchFolder()
(folder.path / "face.png").write_bytes(b"face")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> None:
    """As if it were a day old."""
    held = folder.parent / "held"
    os.utime(held, (held.stat().st_atime, held.stat().st_mtime - 86_400))


def test_it_goes_with_its_holder(temporary: Path) -> None:
    with ScratchFolder() as folder:
        assert not list(folder.iterdir())
        (folder / "face.png").write_bytes(b"face")
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not(temporary: Path) -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        aged(folder)
        assert sweep_scratch() == 0
        assert (folder / "face.png").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert folder.exists()
    with ScratchFolder():
        assert not folder.parent.exists()
    assert not list(temporary.iterdir())


def test_a_folder_that_is_just_made_is_left_alone(temporary: Path) -> None:
    made = temporary / "fakesift-scratch-new"
    made.mkdir()
    assert sweep_scratch() == 0
    (made / "held").touch()
    assert sweep_scratch() == 0
    aged(made / "files")
    assert sweep_scratch() == 1
