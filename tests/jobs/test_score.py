"""Nights of scoring through the command line, on real Ray and a real S3 server, while objects come, change and go."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import cv2
import duckdb
import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from batch.scoring.verify import verify_scores
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.runtime import chosen_runtime
from jobs.score import main
from tests.support.fault_proxy import FaultProxy, Rule, proxying
from tests.support.job import ROOT, fakesift
from tests.support.made_bundle import made_bundle
from tests.support.processes import family, kill_all, raylet_of, started
from tests.support.seaweed import S3Server

PATIENCE_S = 300


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two that differ in their weights."""
    folders = tuple(tmp_path_factory.mktemp("bundles") / name for name in ("one", "two"))
    for seed, folder in enumerate(folders):
        made_bundle(LocalStorage(folder), seed=seed)
    return folders[0], folders[1]


@pytest.fixture
def cluster(s3_bucket: str) -> Iterator[Any]:
    """A head without a CPU, as on the clusters that this project ships, and no other node. It finds the S3 server as
    the test does."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """In front of the S3 server."""
    with proxying(s3_server.endpoint) as made:
        yield made


@pytest.fixture
def other_buckets(s3_bucket: str) -> Iterator[tuple[str, str]]:
    """Two more."""
    client = boto3.session.Session(region_name="us-east-1").client("s3")
    names = f"{s3_bucket}-sealed", f"{s3_bucket}-closed"
    for name in names:
        client.create_bucket(Bucket=name)
    yield names
    for name in names:
        client.delete_bucket(Bucket=name)


@pytest.fixture
def media(drawn: DrawnCorpus, tmp_path: Path) -> Path:
    """Four clips, frames of them as pictures, a cut one and an empty one."""
    folder = tmp_path / "media"
    folder.mkdir()
    for number, key in enumerate(drawn.reals):
        shutil.copy(drawn.folder / key, folder / f"clip{number}.mp4")
        reader = cv2.VideoCapture(str(drawn.folder / key))
        cv2.imwrite(str(folder / f"frame{number}.jpg"), reader.read()[1])
        reader.release()
    (folder / "cut.jpg").write_bytes((folder / "frame0.jpg").read_bytes()[:3000])
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def rows(output: str | Path, table: str = "items") -> list[dict[str, Any]]:
    """All rows of a local output's table, with the night that their folder names."""
    found = duckdb.sql(f"select * from read_parquet('{output}/{table}/*/*.parquet', hive_partitioning = true)")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def once(found: list[dict[str, Any]]) -> None:
    """Nothing was scored twice."""
    looks = Counter((row["uri"], row["etag"], row["bundle"], row["options"], row["attempt"]) for row in found)
    assert set(looks.values()) == {1}


@pytest.mark.slow
def test_three_nights_on_s3(
    cluster: Any,
    bundles: tuple[Path, Path],
    media: Path,
    s3_server: S3Server,
    s3_bucket: str,
    proxy: FaultProxy,
    other_buckets: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # as the job itself sets it
    options = S3Options(endpoint=s3_server.endpoint)
    clips, pictures = (open_storage(f"s3://{s3_bucket}/{name}", options) for name in ("clips", "pictures"))
    output = open_storage(f"s3://{s3_bucket}/scores", options)
    sealed, closed = (open_storage(f"s3://{name}", options) for name in other_buckets)
    sealed.put("one.jpg", (media / "frame1.jpg").read_bytes() + b"\1")
    closed.put("two.jpg", (media / "frame2.jpg").read_bytes() + b"\2")
    for path in sorted(media.iterdir()):
        (clips if path.suffix == ".mp4" else pictures).put(path.name, path.read_bytes())
    places = [bundles[0], clips.root, pictures.root, sealed.root]
    common = ["--frames", 3, "--address", cluster.address, "--s3-endpoint", proxy.endpoint]

    # One model and the page's pictures here, two models and no pictures on the next night: each loads TensorFlow anew.
    night = ["--night", "2026-03-01", "--runtime", "keras", "--score-actors", 1]
    # Both may be listed. Of one bucket nothing may be read, of the other one object.
    proxy.rules = [Rule(fault="denied", path=r"-sealed/one\.jpg|/pictures/frame3\.jpg")]
    job = started("score", *places, output.root, *common, *night)
    wait_for(lambda: output.exists("runs/000001.json"), job)
    cluster.add_node(num_cpus=1)  # as an autoscaler does when it is asked for work
    _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, err
    waits, refused = [line for line in err.splitlines() if " items, " not in line]  # no greetings
    assert waits.startswith("waiting for a CPU: no node")
    assert refused.startswith(f"input {sealed.root}: {sealed.uri('one.jpg')}: AccessDenied")
    assert re.search(r"^10/11 items, .*\b[67] scored", err, re.MULTILINE)
    assert counted(cluster) >= {"scored", "empty_file", "storage_error", "truncated"}
    told = json.loads(output.read("summary.json"))
    assert (told["runtime"], told["precision"]) == ("keras", "float32")
    assert told["pending"] == 11
    assert told["total"]["items"] == told["total"]["why"]["new"] == 10
    assert told["inputs"][clips.root]["faults"] == {"empty_file": 1}
    assert told["inputs"][pictures.root]["faults"] == {"storage_error": 1, "truncated": 1}
    assert told["total"]["scored"] >= 6
    assert (told["left"], list(told["denied"]), told["exit_code"]) == ({"denied": 1}, [sealed.root], 1)

    clips.put("new/copy.mp4", clips.read("clip0.mp4"))
    for number in range(2):  # a fault is not passed on: each of the two is looked at
        clips.put(f"new/empty{number}.mp4", b"")
    clips.put("new/other.mp4", clips.read("clip1.mp4") + b"\0\0\0\x08free")
    clips.put("clip2.mp4", clips.read("clip2.mp4")[:5000])
    clips.put("moved/clip3.mp4", clips.read("clip3.mp4"))
    clips.delete("clip3.mp4")
    pictures.put("cut.jpg", (media / "frame0.jpg").read_bytes() + b"\0")
    for number in range(12):
        pictures.put(f"more/{number}.jpg", (media / f"frame{number % 4}.jpg").read_bytes() + bytes([number]) * 3)
    proxy.rules = [Rule(fault="denied", path=r"-closed\b.*list-type")]
    cluster.add_node(num_cpus=1)
    arguments = ["score", *places, closed.root, output.root, *common, "--night", "2026-03-02", "--no-pictures"]
    job = started(*arguments)
    wait_for(lambda: any(True for _ in output.list("commits/000002/")), job)
    node = next(iter(cluster.worker_nodes))
    kill_all(family(raylet_of(node)))
    cluster.worker_nodes.remove(node)
    _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, err
    assert f"input {closed.root}: {closed.uri('')}: AccessDenied" in err
    told = json.loads(output.read("summary.json"))
    assert told["total"]["why"] == {"new": 18, "changed": 2, "retried": 1}
    assert (told["total"]["items"], told["total"]["same"], told["vanished"]) == (21, 2, 1)
    assert list(told["denied"]) == [closed.root]
    assert told["runtime"] == ("keras" if find_spec("openvino") is None else "openvino")

    local = tmp_path / "scores"
    for item in output.list():
        LocalStorage(local).put(item.key, output.read(item.key))
    found = rows(local)
    once(found)
    by_key = {row["key"]: row for row in found if str(row["date"])[:10] == "2026-03-02"}
    assert len(found) == 31
    assert by_key["frame3.jpg"]["kind"] != "fault"
    assert by_key["new/copy.mp4"]["same_as"] == clips.uri("clip0.mp4")
    assert by_key["moved/clip3.mp4"]["same_as"] == clips.uri("clip3.mp4")
    assert {by_key[f"new/empty{number}.mp4"]["same_as"] for number in range(2)} == {None}
    assert by_key["clip2.mp4"]["reason"] == "truncated"
    assert by_key["cut.jpg"]["kind"] != "fault"
    assert {row["runtime"] for row in found if row["kind"] == "scored"} == {"keras", told["runtime"]}
    assert by_key["new/copy.mp4"]["runtime"] == "keras", "its original's"
    assert {row["precision"] for row in found if row["kind"] != "scored"} == {None}
    tracks = rows(local, "tracks")
    assert len(tracks) == sum(row["tracks"] for row in found if row["same_as"] is None)
    assert all(1 <= len(track["frames"]) <= 3 for track in tracks)
    assert verify_scores(LocalStorage(local)).findings == ()
    ledger = duckdb.sql(f"select count(*), count(distinct version_digest) from '{local}/ledger/*.parquet'").fetchall()
    assert ledger == [(31, 30)], "one was looked at twice"
    assert by_key["one.jpg"]["kind"] == "scored", "nothing was lost"
    page = (local / "report.html").read_text()
    fakes = {row["uri"] for row in by_key.values() if row["band"] == "likely fake"}
    assert {each["uri"] for each in told["likely_fake"]} <= fakes
    shown = [row for row in by_key.values() if row["band"] != "likely real" and row["same_as"] is None]
    assert {row["key"] for row in shown if row["key"].split("/")[-1] not in page} == set()

    before = {item.key: item.etag for item in output.list()}
    again = fakesift("score", *places, output.root, *common, "--night", "2026-03-03")
    assert again.returncode == 0, again.stderr
    assert "nothing to do: of 27 objects none is new; 1 vanished" in again.stderr
    changed = {item.key for item in output.list() if before[item.key] != item.etag}
    assert changed == {"summary.json", "history/000002.json"}, "they say that a run came"


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_run_goes_on_and_another_bundle_reads_kept_crops(
    bundles: tuple[Path, Path], media: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["score", bundles[0], media, output, "--frames", 3, "--keep-crops"]
    for number in range(60):  # enough units that the run is not over when it is killed
        picture = (media / f"frame{number % 4}.jpg").read_bytes()
        (media / f"more{number:02}.jpg").write_bytes(picture + bytes([number]) * 3)
    job = started(*arguments, "--extract-workers", 1)
    commits = output / "commits" / "000001"
    wait_for(lambda: commits.is_dir() and any(commits.glob("*.json")), job)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    done = fakesift(*arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads((output / "summary.json").read_text())
    assert told["runs"] == [1, 2]
    assert told["total"]["items"] == 70 > told["pending"]
    found = rows(output)
    once(found)
    assert {row["uri"] for row in found} == {str(path) for path in media.iterdir()}

    for path in media.glob("more*.jpg"):
        # Nothing but its etag is needed any more: what is read now is what was kept.
        times = path.stat()
        path.write_bytes((path.name.encode() * times.st_size)[: times.st_size])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = fakesift("score", bundles[1], *arguments[2:4], *arguments[4:])
    assert second.returncode == 0, second.stderr
    told = json.loads((output / "summary.json").read_text())
    assert told["total"]["why"] == {"rescored": 70}
    assert "decode" not in told["seconds"]
    again = [row for row in rows(output) if row["run"] == 3]
    outcome = {row["uri"]: (row["kind"], row["reason"], row["faces"]) for row in found}
    assert {row["uri"]: (row["kind"], row["reason"], row["faces"]) for row in again} == outcome
    scores = {row["uri"]: row["probability"] for row in found}
    assert any(row["probability"] != scores[row["uri"]] for row in again if row["kind"] == "scored")
    assert verify_scores(LocalStorage(output)).findings == ()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{bundle}", "{out}"], "expected BUNDLE, one INPUT or more, and OUTPUT"),
        (["{tmp}/none", "{media}", "{out}"], "not a model bundle"),
        (["{damaged}", "{media}", "{out}"], "damaged"),
        (["{bundle}", "{media}", "{media}", "{out}"], "inside of it"),
        (["{bundle}", "{media}", "{media}/out"], "lies inside the input"),
        (["{bundle}", "{media}", "{bundle}"], "not empty and not ours"),
        (["{bundle}", "{tmp}/absent", "{out}"], "no video and no image there"),
        (["{bundle}", "{media}", "{out}", "--frames", "0"], "frames: got 0"),
        (["{bundle}", "{media}", "{out}", "--night", "soon"], "night: got 'soon'"),
        (["{bundle}", "{media}", "{out}", "--limit", "0"], "limit: got 0"),
        (["{bundle}", "{media}", "{out}", "--score-gpus", "0"], "score gpus: got 0"),
        (["{bundle}", "{media}", "{out}", "--budget-minutes", "-1"], "budget minutes: got -1"),
        (["{bundle}", "{media}", "{out}", "--no-pictures", "--keep-crops"], "no pictures: got it with --keep-crops"),
        (["{bundle}", "{media}", "{out}", "--runtime", "openvino"], "got openvino, which is not installed here"),
    ],
)
def test_wrong_usage_is_one_line_before_any_task(
    tmp_path: Path,
    bundles: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    names = {"bundle": bundles[0], "media": tmp_path / "media", "out": tmp_path / "out", "tmp": tmp_path}
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.jpg").write_bytes(b"picture")
    shutil.copytree(bundles[0], tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.keras").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert main([text.format(**names, damaged=tmp_path / "damaged") for text in arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("wanted", "gpus", "backend", "chosen"),
    [
        *[("auto", 0, "tensorflow", "openvino"), ("auto", 1, "tensorflow", "keras"), ("auto", 0, "jax", "keras")],
        *[("keras", 0, "tensorflow", "keras"), ("openvino", 1, "jax", "openvino")],
    ],
)
def test_openvino_is_for_machines_without_gpus(
    wanted: Any, gpus: int, backend: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert chosen_runtime(wanted, gpus) == chosen
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert wanted != "auto" or chosen_runtime(wanted, gpus) == "keras"


def test_greetings_are_kept_back_and_errors_are_not(tmp_path: Path) -> None:
    (tmp_path / "keras.py").write_text(
        "import os\n"
        "os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n')\n"
        "os.write(2, b'I0000 00:00:1795404977.423180   19023 port.cc:153] oneDNN custom operations are on.\\n')\n"
        "os.write(2, b'E0000 00:00:1795404977.423180   19023 cuda.cc:1] no driver\\n')\n"
        "raise ImportError('no backend')\n"
    )
    code = "from jobs.quiet import import_keras; import_keras()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr.startswith("E0000 00:00:1795404977.423180   19023 cuda.cc:1] no driver\nTraceback")
    assert "no backend" in done.stderr


def counted(cluster: Any) -> set[str]:
    """Outcomes of items that scoring counted, as the nodes export them."""
    text = ""
    for node in cluster.list_all_nodes():
        with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_export_port}/metrics") as answer:
            text += answer.read().decode()
    found = re.findall(r"^ray_fakesift_videos_total{(.*)}", text, re.MULTILINE)
    return {name for tags in found if 'job_name="score"' in tags for name in re.findall(r'\boutcome="(\w+)"', tags)}


def wait_for(met: Any, job: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
