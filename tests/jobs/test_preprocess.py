"""The job through its command line, on a real embedded Ray, with drawn clips."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from batch.shards.commit import read_commits
from batch.shards.read import face_tables
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from tests.support.holding import holding
from tests.support.job import ROOT, fakesift, files, outcomes


@pytest.mark.slow
def test_every_video_is_accounted_for(drawn: DrawnCorpus, calm: Path) -> None:
    sink = open_storage(str(calm))
    summary = json.loads(sink.read("summary.json"))
    found = outcomes(sink)
    assert summary["listed"] == drawn.files == len(found)
    assert summary["listed"] == summary["kept"] + sum(summary["set_aside"].values()) + sum(summary["faults"].values())
    for planted in drawn.planted:
        assert found[planted.key] in planted.expected, planted
    ordinary = [found[key] for key in (*drawn.reals, *drawn.fakes)]
    assert ordinary.count("kept") >= 0.9 * len(ordinary)
    assert summary["corpus"]["missing_files"] == len(drawn.missing)
    assert (calm / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_faces_carry_their_source(calm: Path) -> None:
    sink = open_storage(str(calm))
    rows = [row for table in face_tables(sink, read_commits(sink)) for row in table.to_pylist()]
    reals = {row["source_id"] for row in rows if row["label"] == 0}
    fakes = {row["source_id"] for row in rows if row["label"] == 1}
    assert reals & fakes
    assert len({row["face_id"] for row in rows}) == len(rows)
    assert all(row["image"]["bytes"].startswith(b"\x89PNG") for row in rows)


@pytest.mark.slow
def test_shards_open_with_the_usual_readers(calm: Path) -> None:
    pattern = str(calm / "faces" / "*.parquet")
    count = json.loads((calm / "summary.json").read_text())["faces"]

    import duckdb

    assert duckdb.sql(f"select count(*), count(image.bytes) from '{pattern}'").fetchall() == [(count, count)]

    import pyarrow.dataset

    assert pyarrow.dataset.dataset(calm / "faces").count_rows() == count

    import datasets

    loaded = datasets.load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(calm.parent / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded[0]["image"].size == (224, 224)


@pytest.mark.slow
@pytest.mark.soak
def test_shards_open_with_ray_data(calm: Path) -> None:
    count = json.loads((calm / "summary.json").read_text())["faces"]
    code = (
        "import ray; ray.init(address='local', num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        f"data = ray.data.read_parquet({str(calm / 'faces')!r})\n"
        "print('rows', data.count(), len(data.take(1)[0]['image']['bytes']) > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert f"rows {count} True" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_rerun_does_nothing_and_other_options_are_refused(drawn_corpus: Path, calm: Path) -> None:
    before = files(open_storage(str(calm)))
    again = fakesift("preprocess", drawn_corpus, calm)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert files(open_storage(str(calm))) == before
    refused = fakesift("preprocess", drawn_corpus, calm, "--margin", 0.4)
    assert refused.returncode == 2
    assert "faces.crop.margin was 0.15, got 0.4" in refused.stderr
    assert fakesift("preprocess", drawn_corpus, calm, "--strict").returncode == 3
    assert files(open_storage(str(calm))) == before


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_run_ends_as_a_calm_one(drawn_corpus: Path, calm: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.cli", "preprocess", str(drawn_corpus), str(output), "--workers", "1"]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = output / "commits"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (commits.is_dir() and any(commits.iterdir())):
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    left = fakesift("status", output, "--json")
    assert 0 < json.loads(left.stdout)["listed"] < len(outcomes(open_storage(str(calm))))
    done = fakesift("preprocess", drawn_corpus, output, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert files(open_storage(str(output)), "faces/") == files(open_storage(str(calm)), "faces/")
    assert outcomes(open_storage(str(output))) == outcomes(open_storage(str(calm)))


@pytest.mark.slow
def test_from_and_to_s3(drawn_corpus: Path, calm: Path, s3_server: object, s3_bucket: str) -> None:
    options = S3Options(endpoint=s3_server.endpoint)  # type: ignore[attr-defined]
    source = open_storage(f"s3://{s3_bucket}/corpus", options)
    for path in sorted(drawn_corpus.rglob("*")):
        if path.is_file():
            source.put(str(path.relative_to(drawn_corpus)), path.read_bytes())
    output = f"s3://{s3_bucket}/faces"
    done = fakesift("preprocess", source.root, output, "--workers", 2, AWS_ENDPOINT_URL=s3_server.endpoint)  # type: ignore[attr-defined]
    assert done.returncode == 0, done.stderr
    assert outcomes(open_storage(output, options)) == outcomes(open_storage(str(calm)))
    summary = json.loads(open_storage(output, options).read("summary.json"))
    assert summary["bytes_read"] < summary["bytes_listed"]
    secret = s3_server.secret_key  # type: ignore[attr-defined]
    assert secret not in done.stdout + done.stderr
    assert holding(files(open_storage(output, options)), secret) == []


@pytest.mark.slow
def test_a_corpus_that_changed_redoes_what_it_touches(drawn_corpus: Path, calm: Path, tmp_path: Path) -> None:
    output, aside = tmp_path / "out", tmp_path / "aside"
    shutil.copytree(calm, output)
    before = {commit.unit for commit in read_commits(open_storage(str(output)))}
    kept = sorted(key for key, outcome in outcomes(open_storage(str(output))).items() if outcome == "kept")
    gone, changed = kept[0], kept[-2]
    aside.mkdir()
    for key in (gone, changed):
        (drawn_corpus / key).rename(aside / Path(key).name)
    try:
        shutil.copy(drawn_corpus / kept[-1], drawn_corpus / changed)
        done = fakesift("preprocess", drawn_corpus, output)
    finally:
        for key in (gone, changed):
            (aside / Path(key).name).replace(drawn_corpus / key)
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["corpus"]["vanished"], summary["corpus"]["changed"]) == (1, 1)
    after = {commit.unit for commit in read_commits(open_storage(str(output)))}
    assert before & after
    assert gone not in outcomes(open_storage(str(output)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{corpus}", "{corpus}/out"], "lies inside the input"),
        (["{tmp}/absent", "{tmp}/out"], "no mp4, mov"),
        (["{corpus}", "{corpus}"], "lies inside the input"),
        (["{corpus}", "{tmp}/taken"], "not empty and not ours"),
        (["{corpus}", "{tmp}/out", "--crop-size", "3"], "crop size: got 3"),
        (["{corpus}", "{tmp}/out", "--frames", "0"], "frames: got 0"),
        (["{corpus}", "{tmp}/out", "--sample", "much"], "sample: got 'much'"),
        (["{corpus}", "{tmp}/out", "--max-faults", "few"], "max faults: got 'few'"),
        (["{corpus}", "{tmp}/out", "--labels", "guess"], "labels: got 'guess'"),
        (["{corpus}", "{tmp}/out", "--detector", "magic"], "detector"),
        (["ftp://host/x", "{tmp}/out"], "expected a folder or s3://"),
    ],
)
def test_wrong_usage_is_one_line_before_any_task(tmp_path: Path, arguments: list[str], told: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.mp4").write_bytes(b"clip")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "photo.jpg").write_bytes(b"")
    done = fakesift("preprocess", *[text.format(corpus=corpus, tmp=tmp_path) for text in arguments])
    assert done.returncode == 2
    assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "commits").exists()


def test_status_of_a_place_that_is_not_ours(tmp_path: Path) -> None:
    done = fakesift("status", tmp_path)
    assert done.returncode == 2
    assert "not an output of" in done.stderr


@pytest.mark.slow
def test_a_takedown_holds_for_the_next_run(drawn_corpus: Path, calm: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(calm, output)
    before = outcomes(open_storage(str(output)))
    rows = [
        row
        for t in face_tables(open_storage(str(output)), read_commits(open_storage(str(output))))
        for row in t.to_pylist()
    ]
    source = rows[0]["source_id"]
    assert fakesift("purge", output, "--source", source).returncode == 0
    left = outcomes(open_storage(str(output)))
    assert left.keys() < before.keys()
    assert fakesift("verify", output).returncode == 0
    again = fakesift("preprocess", drawn_corpus, output, "--workers", 2)
    assert again.returncode == 0, again.stderr
    assert outcomes(open_storage(str(output))) == left
    assert json.loads((output / "summary.json").read_text())["corpus"]["purged"] == len(before) - len(left)
    assert fakesift("verify", output).returncode == 0
