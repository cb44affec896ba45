"""Who may import whom: jobs import batch, batch imports neither, cluster knows jobs by their command line."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("batch", "jobs", "cluster") for path in (ROOT / room).rglob("*.py"))
FORBIDDEN = {
    "batch": {"ray", "tyro", "argparse", "typer", "click", "jobs", "cluster"},
    "jobs": {"cluster"},
    "cluster": {"batch", "jobs"},
}
KNOWS_BOTH = ROOT / "jobs" / "cli.py"


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_in_their_rooms(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    forbidden = set() if path == KNOWS_BOTH else FORBIDDEN[room]
    assert not imported(path) & forbidden


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} is too long"


def test_nothing_else_lies_at_the_top() -> None:
    expected = {
        *("batch", "jobs", "cluster", "tests", "pyproject.toml", "README.md", "Makefile", "requirements.lock"),
        *("CHANGELOG.md", "LICENSE"),
    }
    made = {"demo", "build", "fakesift.egg-info"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - made == expected


def test_lock_names_no_registry_and_one_dlib() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "\ndlib-bin==" in lock
    assert "\ndlib==" not in lock
    assert all("sha256:" in block for block in lock.split("\n\n") if "==" in block)
