"""Hidden files of local writers: a killed one's are found and removed, a living one's never are."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch.storage.leftovers import dead_files, remove_all_hidden
from batch.storage.local import LocalStorage
from batch.storage.temporary import LONGEST_WRITE_S, TEMPORARY

ROOT = Path(__file__).parents[2]
WRITER = (
    "import sys; from pathlib import Path; from batch.storage.temporary import temporary_file\n"
    "with temporary_file(Path(sys.argv[1]), b'a face'):\n"
    "    print('writing', flush=True); sys.stdin.read()"
)


def writer(folder: Path) -> "subprocess.Popen[str]":
    """A process that has written a temporary file and not yet renamed it."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def hidden(root: Path) -> list[Path]:
    return sorted(root.rglob(f"{TEMPORARY}*"))


def test_a_killed_writer_s_file_is_found_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    sink = LocalStorage(tmp_path)
    sink.put("faces/a.parquet", b"kept")
    with writer(tmp_path / "faces") as process:
        assert dead_files(sink, remove=True) == []
        [path] = hidden(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"a face"
    assert dead_files(sink) == [str(path)]
    assert dead_files(sink, remove=True) == [str(path)]
    assert dead_files(sink) == hidden(tmp_path) == []
    assert [item.key for item in sink.list()] == ["faces/a.parquet"]


def test_a_writer_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.communicate("")
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(("age_s", "dead"), [(LONGEST_WRITE_S - 60, False), (LONGEST_WRITE_S + 60, True)])
@pytest.mark.parametrize("name", [f"{TEMPORARY}0123-4567", ".fakesift-probe-1"])
def test_of_another_machine_s_files_the_old_ones_are_dead(tmp_path: Path, name: str, age_s: float, dead: bool) -> None:
    path = tmp_path / "deep" / name
    path.parent.mkdir()
    path.write_bytes(b"a face")
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    assert dead_files(LocalStorage(tmp_path), remove=True) == ([str(path)] if dead else [])
    assert path.exists() != dead


def test_a_takedown_leaves_no_hidden_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "faces").symlink_to(tmp_path / "elsewhere")
    (root / "faces" / "circle").symlink_to(root)
    for name in (f"faces/{TEMPORARY}0123-4567", ".fakesift-probe-1", "kept"):
        (root / name).write_bytes(b"1")
    assert remove_all_hidden(LocalStorage(root)) == 2
    assert [path.name for path in (root, root / "faces") for path in path.iterdir() if path.is_file()] == ["kept"]


def test_writers_do_not_notice_who_sweeps_beside_them(tmp_path: Path) -> None:
    """A file that was made and is not locked yet may be swept: its writer takes another."""
    sink = LocalStorage(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(sink.put_if_absent, f"commits/{number}", b"%d" % number) for number in range(300)]
        while not all(future.done() for future in writing):
            dead_files(sink, remove=True)
        assert all(future.result() for future in writing)
    assert sorted(int(sink.read(item.key)) for item in sink.list()) == list(range(300))
    assert hidden(tmp_path) == []
