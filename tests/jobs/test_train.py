"""Training and evaluation from the command line, on Ray Train, with real networks on small faces."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import boto3
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.faces.options import CropOptions, FaceOptions
from batch.model.backbones import build_base
from batch.model.bundle import load_bundle
from batch.model.index import load_index
from batch.model.records import Split
from batch.model.scan import score_faces
from batch.model.split import SplitTable
from batch.storage.local import LocalStorage
from batch.storage.s3 import S3Options, S3Storage
from jobs.train import train
from jobs.train_options import TrainOptions
from tests.support.face_outputs import Clip, real, write_output
from tests.support.job import ROOT, SABOTAGE, fakesift, files
from tests.support.learnable import clips, write_learnable
from tests.support.processes import family, kill_all, raylet_of, started, told_until
from tests.support.seaweed import S3Server

TRAIN = (
    *("--model", "cnn", "--epochs", 5, "--learning-rate", 0.003, "--batch-size", 8, "--augment", "reference"),
    *("--workers", 2, "--ema", 0.8, "--clip-norm", 1.0, "--split", "part"),
)
STEPS = 7
"""Of an epoch of 28 real and 28 fake faces."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnable") / "faces"
    write_learnable(LocalStorage(folder))
    return folder


@pytest.fixture(scope="module")
def calm(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("calm") / "model"
    methods = output.parent / "methods.csv"
    methods.write_text("uri,method\n" + "".join(f"fake{number:04d}.mp4,redder\n" for number in range(40)))
    done = fakesift("train", faces, output, *TRAIN, "--slices", methods)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def killed(faces: Path, tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> tuple[Path, str]:
    """A copy of an OUTPUT on S3 whose second worker was killed late in the second epoch, and what the run said."""
    folder = tmp_path_factory.mktemp("killed")
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    names = {name.lower(): value for name, value in keys.items()}
    client = boto3.session.Session(region_name="us-east-1").client("s3", endpoint_url=s3_server.endpoint, **names)
    client.create_bucket(Bucket="trained")
    marker = folder / "killed"
    done = fakesift(
        "train", faces, "s3://trained/model", *TRAIN, "--s3-endpoint", s3_server.endpoint,
        PYTHONPATH=SABOTAGE, FAKESIFT_KILL=f"1 {2 * STEPS} {marker}", **keys,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert marker.exists()
    assert "train        28 real, 28 fake" in done.stdout, done.stdout
    output = S3Storage("trained", "model", S3Options(endpoint=s3_server.endpoint))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        for key, data in files(output).items():
            LocalStorage(folder / "model").put(key, data)
    return folder / "model", done.stderr


def history(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "history.csv").read_text())))


@pytest.mark.slow
@pytest.mark.soak
def test_a_run_whose_worker_was_killed_tells_every_epoch(killed: tuple[Path, str]) -> None:
    output, said = killed
    assert [int(row["epoch"]) for row in history(output)] == [1, 2, 3, 4, 5]
    assert [int(row["step"]) for row in history(output)] == [STEPS * epoch for epoch in range(1, 6)]
    told = re.findall(r"^epoch (\d) \(network\)  loss", said, re.MULTILINE)
    # The first one twice where the worker died before Ray Train had heard of its checkpoint.
    assert list(dict.fromkeys(told)) == ["1", "2", "3", "4", "5"]
    assert "Traceback" not in said
    kept = sorted((output / "checkpoints").glob("checkpoint_*/state.json"))
    steps = [json.loads(path.read_text())["step"] for path in kept]
    # Ray Train itself never removes one that it had not heard of when the worker died: the first epoch's, here.
    assert steps == [4 * STEPS, 5 * STEPS]


@pytest.mark.slow
def test_it_learns_and_leaves_a_bundle_that_accounts_for_itself(faces: Path, calm: Path) -> None:
    summary = json.loads((calm / "summary.json").read_text())
    assert summary["metrics"]["test"]["videos"]["auc"][0] > 0.95
    bundle = json.loads((calm / "bundle/bundle.json").read_text())
    assert bundle["digest"] == summary["bundle_digest"]
    split = SplitTable.from_parquet((calm / "splits.parquet").read_bytes())
    assert bundle["split_digest"] == summary["split_digest"] == split.digest
    assert bundle["data_digest"]
    assert {"keras", "tensorflow"} <= set(bundle["versions"])
    table = pq.read_table(calm / "predictions.parquet")
    assert set(table["split"].to_pylist()) == {"validation", "test"}
    assert table.num_rows == sum(sum(summary["splits"][name].values()) for name in ("validation", "test"))
    index = load_index([LocalStorage(faces)])
    rows = np.concatenate([split.rows(name) for name in (Split.VALIDATION, Split.TEST)])
    scores = score_faces(index, rows, load_bundle(LocalStorage(calm / "bundle")).predictor())
    own = dict(zip(index.table["face"].take(pa.array(scores.rows)).to_pylist(), scores.logits.tolist(), strict=True))
    np.testing.assert_allclose(table["logit"].to_numpy(), [own[face] for face in table["face"].to_pylist()], atol=1e-4)
    for name in ("bundle/report.html", "bundle/MODEL_CARD.md", "augmented.png", "splits.parquet"):
        assert (calm / name).stat().st_size > 1000
    page = (calm / "bundle/report.html").read_text()
    assert "clip quality" in page and "method" in page and "redder" in page
    assert len(list((calm / "tensorboard").iterdir())) == 1
    told = fakesift("status", calm)
    assert told.returncode == 0 and "best epoch" in told.stdout and told.stdout.count("validation auc") == 5
    again = fakesift("train", faces, calm, *TRAIN, "--slices", calm.parent / "methods.csv")
    assert again.returncode == 0 and "nothing to do" in again.stderr


@pytest.mark.slow
def test_what_was_refused_is_mended_in_the_same_output_until_there_is_a_split(faces: Path, tmp_path: Path) -> None:
    """With the default split, weights from a file, and the last blocks alone trained."""
    first = build_base("cnn", "none", 64)
    first.save_weights(tmp_path / "cnn.weights.h5")
    pixels = keras.Input((64, 64, 3))
    keras.Model(pixels, keras.layers.Conv2D(8, 3)(pixels)).save_weights(tmp_path / "other.weights.h5")
    output = tmp_path / "model"
    asked = ("train", faces, output, "--model", "cnn", "--batch-size", 8, "--epochs", 1, "--head-epochs", 1)
    refused = fakesift(*asked, "--weights", tmp_path / "other.weights.h5")
    assert refused.returncode == 2
    assert f"received {tmp_path}/other.weights.h5, expected a .weights.h5 file of cnn" in refused.stderr
    assert "looking for near-duplicates" not in refused.stderr
    # Pictures of noise are one person to a network of photographs.
    refused = fakesift(*asked, "--split", "identity")
    assert refused.returncode == 1
    assert re.search(r"split by identity: group \w+ has \d+% of the faces.*split by source or by part", refused.stderr)
    done = fakesift(*asked, "--weights", tmp_path / "cnn.weights.h5", "--unfreeze", 2)
    assert done.returncode == 0, done.stderr
    assert [row["stage"] for row in history(output)] == ["head", "whole"]
    assert json.loads((output / "run.json").read_text())["shaping"]["fit"]["unfreeze"] == 2
    trained = keras.models.load_model(output / "bundle/model.keras").get_layer("backbone")
    for number in (1, 2, 3, 4):
        name = f"block{number}_conv"
        same = np.array_equal(trained.get_layer(name).kernel, first.get_layer(name).kernel)
        assert same == (number <= 2)
    bound = fakesift(*asked, "--weights", "none")
    assert bound.returncode == 2
    assert "fit.unfreeze was 2, got 'whole'" in bound.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_curve(faces: Path, calm: Path, tmp_path: Path) -> None:
    """Also where the disk lost a part of the last checkpoint, and Ray Train's list was cut off."""
    output = tmp_path / "model"
    command = [sys.executable, "-m", "jobs.cli", "train", str(faces), str(output), *map(str, TRAIN)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as job:
        assert job.stderr is not None
        for line in job.stderr:
            if line.startswith("epoch 3 "):
                kill_all(family(job.pid))  # its Ray would write on for a moment
                break
    kept = output / "checkpoints"
    steps = {json.loads(path.read_text())["step"]: path.parent for path in kept.glob("*/state.json")}
    assert len(steps) >= 2
    last = steps[max(steps)]
    (last / "network.npz").write_bytes((last / "network.npz").read_bytes()[:-100])
    ray_list = kept / "checkpoint_manager_snapshot.json"
    ray_list.write_bytes(ray_list.read_bytes()[:50])
    assert (output / "augmented.png").stat().st_size > 1000  # in time to stop a run that is shown the wrong faces
    done = fakesift("train", faces, output, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "the list of checkpoints is damaged" in done.stderr
    assert f"{last.name}; going on from the furthest one before" in done.stderr
    assert "epoch 1 " not in done.stderr
    assert_same_curve(output, calm)


@pytest.mark.slow
@pytest.mark.soak
def test_a_node_that_died_is_made_good_by_another(faces: Path, calm: Path, tmp_path: Path) -> None:
    """Two nodes, a worker each; one dies with its worker and all else late in training, and a new one comes."""
    from ray.cluster_utils import Cluster

    output = tmp_path / "model"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    job = None
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        job = started("train", faces, output, *TRAIN, "--address", cluster.address)
        said = told_until(job, "epoch 2 ")
        kill_all(family(raylet_of(nodes[1])))
        cluster.worker_nodes.remove(nodes[1])
        cluster.add_node(num_cpus=1)
        told, rest = job.communicate(timeout=400)
        assert job.returncode == 0, told + said + rest
    finally:
        if job is not None:
            job.kill()
            job.wait()
        cluster.shutdown()
    assert "Traceback" not in rest
    assert_same_curve(output, calm)


def assert_same_curve(output: Path, calm: Path) -> None:
    columns = ("loss", "validation_loss", "validation_auc")
    resumed, whole = ([[float(row[name]) for name in columns] for row in history(each)] for each in (output, calm))
    np.testing.assert_allclose(resumed, whole, atol=1e-3)


@pytest.mark.slow
def test_evaluate_refuses_what_was_seen_and_both_backends_agree(faces: Path, calm: Path, tmp_path: Path) -> None:
    """By their pictures alone: names are others."""
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    write_learnable(LocalStorage(fresh), sources=8, first=500)
    renamed = {"real": "mine", "fake": "made"}
    copies = [
        replace(clip, key=f"c/{renamed[clip.key[4:8]]}{clip.key[8:]}", source=f"mine{clip.source[4:]}")
        for clip in clips(sources=2)
    ]
    write_output(LocalStorage(old), copies)
    unknown = [Clip(key=f"u/{number}x.mp4", label=None, source=f"{number}x.mp4") for number in range(6)]
    write_output(LocalStorage(tmp_path / "unknown"), unknown)
    methods = tmp_path / "methods.csv"
    methods.write_text("uri,method\n" + "".join(f"fake{500 + number:04d}.mp4,redder\n" for number in range(6)))
    asked = ("evaluate", calm / "bundle", fresh, old, tmp_path / "unknown", "--output")
    seen = fakesift(*asked, tmp_path / "refused", "--gpus-per-worker", 1)
    assert seen.returncode == 2
    assert "workers ask for 1 CPU and 1 GPU at once" in seen.stderr
    seen = fakesift(*asked, tmp_path / "refused")
    assert seen.returncode == 2
    told = r"[24] faces belong to what the model was trained on \(0 by the name of their source or clip, [24] by their"
    assert re.search(told, seen.stderr), seen.stderr
    assert "6 of 26 faces have no label and are left out" in seen.stderr
    assert "--allow-seen" in seen.stderr
    assert not (tmp_path / "refused").exists()
    found = []
    for backend in ("tensorflow", "jax"):
        output = tmp_path / backend
        done = fakesift(*asked, output, "--allow-seen", "--slices", methods, "--backend", backend)
        assert done.returncode == 0, done.stderr
        assert "10 real and 10 fake videos" in done.stdout
        assert "The model has seen some of this data" in done.stdout
        found.append(pq.read_table(output / "predictions.parquet"))
    page = (output / "report.html").read_text()
    for told in (
        "The model has seen some of this data", "clip quality", "bits a pixel", "method", "redder",
        "6 faces without a label are left out.",
    ):  # fmt: skip
        assert told in page
    summary = json.loads((output / "summary.json").read_text())
    assert summary["seen_faces"] == summary["seen_by_picture"] in (2, 4)
    assert summary["unlabelled_faces"] == 6
    assert found[0]["face"].equals(found[1]["face"])
    np.testing.assert_allclose(found[0]["logit"].to_numpy(), found[1]["logit"].to_numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.soak
def test_a_worker_of_jax_that_was_killed_is_made_good(faces: Path, tmp_path: Path) -> None:
    """The curve is that of a run that nothing disturbed."""
    marker = tmp_path / "killed"
    for name, kill in (("calm", None), ("killed", f"1 {STEPS + 3} {marker}")):
        sabotage = {"PYTHONPATH": SABOTAGE, "FAKESIFT_KILL": kill} if kill else {}
        options = ("--backend", "jax", "--epochs", 3)
        done = fakesift("train", faces, tmp_path / name, *TRAIN, *options, **sabotage)
        assert done.returncode == 0, done.stderr
    assert marker.exists()
    assert_same_curve(tmp_path / "killed", tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.soak
def test_a_loss_that_is_no_number_ends_the_job_with_one_line(faces: Path, tmp_path: Path) -> None:
    options = (*TRAIN[:-6], "--split", "part", "--optimizer", "sgd", "--learning-rate", 1e38)
    done = fakesift("train", faces, tmp_path / "model", *options)
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("fakesift train:")]
    assert re.search(r"(loss is (nan|inf)|weights are not finite)", line), done.stderr
    assert "a smaller learning rate, or clip_norm, may help, in a new OUTPUT" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model/bundle").exists()


@pytest.mark.slow
@pytest.mark.soak
def test_jax_trains_with_two_workers_and_without_any_fake(tmp_path: Path) -> None:
    reals, output = tmp_path / "reals", tmp_path / "jax"
    write_output(LocalStorage(reals), [clip for clip in clips() if clip.label == 0], a_unit=8)
    done = fakesift(
        "train", reals, output, "--model", "cnn", "--batch-size", 16, "--augment", "none", "--workers", 2,
        "--backend", "jax", "--epochs", 2, "--synthetic", "self-blended", "--split", "given",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "validation and test without fakes" in done.stderr
    assert "validation   8 real\n" in done.stdout
    assert "8 real and 8 fake videos" in done.stdout
    assert all(row["validation_auc"] for row in history(output))
    assert len(history(output)) == 2
    assert pq.read_table(output / "landmarks.parquet").num_rows == 40
    table = pq.read_table(output / "predictions.parquet", columns=["face", "label"])
    made = [face.endswith("#self-blended") for face in table["face"].to_pylist()]
    assert table["label"].to_pylist() == list(map(int, made))
    for name in ("report.html", "MODEL_CARD.md"):
        assert "self-blended ones, made of its real faces" in (output / "bundle" / name).read_text()


def refused(*places: Path, **options: object) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        train(TrainOptions(places=tuple(map(str, places)), model="cnn", **options))  # type: ignore[arg-type]
    return str(error.value)


def test_bad_input_is_named_before_anything_is_written(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    reals, small = tmp_path / "reals", tmp_path / "small"
    write_output(LocalStorage(reals), [real(f"p/{number}.mp4") for number in range(9)])
    options = FaceOptions(crop=CropOptions(crop_size=32))
    write_output(LocalStorage(small), [real("p/1.mp4")], options=options, root="/other")
    assert "no fake face in train" in refused(reals, output)
    assert "crop_size 64 and 32" in refused(faces, small, output)
    assert "not an output of `fakesift preprocess`" in refused(tmp_path / "nowhere", output)
    assert "FACES... OUTPUT" in refused(faces)
    assert "workers: got 17" in refused(faces, output, workers=17)
    assert "lies inside" in refused(faces, faces / "model")
    assert "epochs: got 0 for cnn without weights" in refused(faces, output, epochs=0)
    assert "GPUs: got 0.5 for each of 2 workers" in refused(faces, output, workers=2, gpus_per_worker=0.5)
    assert "GPUs: got 0.5 for each of 1 workers with jax" in refused(faces, output, backend="jax", gpus_per_worker=0.5)
    apart = refused(faces, output, backend="jax", workers=2, gpus_per_worker=1)
    assert "expected one worker with all of them, 2" in apart
    assert "GPUs and 1 cores a worker" in refused(faces, output, cpus_per_worker=1, gpus_per_worker=math.inf)
    assert "bad unfreeze: received 9, expected 'whole' or 1 to" in refused(faces, output, unfreeze=9)
    assert "unknown model: received 'vgg'" in str(_error(lambda: TrainOptions(model="vgg").shaping()))
    assert not output.exists()


def test_a_folder_with_something_else_is_no_output(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("private")
    assert "not empty and not ours" in refused(faces, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def _error(call: object) -> BaseException:
    with pytest.raises(ValueError, match=r".") as error:
        call()  # type: ignore[operator]
    return error.value
