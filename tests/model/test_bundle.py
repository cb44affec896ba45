"""A model bundle: what comes back is what went in, and what is damaged, foreign or drifting is refused by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from batch.faces.options import digest_of
from batch.model.bundle import GOLDEN, MANIFEST, MODEL, load_bundle, save_bundle
from batch.model.golden import Golden, golden_images
from batch.model.predictor import Predictor
from batch.storage.base import Storage, StorageError
from batch.storage.local import LocalStorage
from batch.storage.open import open_storage
from tests.support.saved_bundle import SIDE, crops, manifest, network, saved


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests copy: to save one takes a second."""
    folder = tmp_path_factory.mktemp("bundle") / "made"
    saved(open_storage(str(folder)))
    return folder


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    """An empty store."""
    return open_storage(str(tmp_path / "out"))


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Storage:
    """A store with a bundle of its own."""
    shutil.copytree(made, tmp_path / "there")
    return open_storage(str(tmp_path / "there"))


def test_what_is_loaded_is_what_was_saved(sink: Storage) -> None:
    written = saved(sink, "models/one/")
    read = load_bundle(sink, "models/one/")
    assert read == written
    assert len(read.digest) == 16
    assert read.uri == sink.uri("models/one")
    assert read.face_options == manifest().face_options
    assert read.read("train_groups.json") == b'["a"]'
    assert read.manifest.metrics["test"]["videos"]["auc"] == [0.9, 0.8, 0.95]
    assert read.manifest.tolerance["float32"] == 1e-4
    got = read.predictor()(crops(5))
    expected = Predictor(network())(crops(5))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_digest_names_all_that_shapes_a_score(sink: Storage) -> None:
    first = saved(sink)
    other = replace(manifest(), thresholds=replace(first.thresholds, fake_from=0.95))
    assert save_bundle(sink, network(), other, prefix="b/").digest != first.digest
    # The files for people are made afterwards, from the bundle.
    sink.put("MODEL_CARD.md", b"# A card")
    assert load_bundle(sink).digest == first.digest


@pytest.mark.parametrize("name", [MODEL, GOLDEN, "train_groups.json"])
def test_a_damaged_file_is_named_with_both_digests(there: Storage, name: str) -> None:
    bundle = load_bundle(there)
    whole = there.read(name)
    there.put(name, whole[:-1] + bytes([whole[-1] ^ 1]))
    found = hashlib.sha256(there.read(name)).hexdigest()
    with pytest.raises(ValueError, match=f"{name}: damaged: .*{found}.*{bundle.files[name].sha256}"):
        load_bundle(there)


def test_a_missing_file_is_named(there: Storage) -> None:
    there.delete(GOLDEN)
    with pytest.raises(ValueError, match=f"{GOLDEN}: missing from the bundle"):
        load_bundle(there)


def test_a_file_that_was_damaged_after_opening_is_not_used(there: Storage) -> None:
    bundle = load_bundle(there)
    there.put(MODEL, b"not the network")
    with pytest.raises(ValueError, match=f"{MODEL}: damaged"):
        bundle.predictor()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["thresholds"].update(fake_from=0.99), "damaged or edited: its digest is"),
        (lambda raw: raw.update(format="bundle/9"), "got format 'bundle/9', expected 'bundle/1'"),
    ],
)
def test_an_edited_manifest_is_refused(there: Storage, change, message: str) -> None:
    raw = json.loads(there.read(MANIFEST))
    change(raw)
    there.put(MANIFEST, json.dumps(raw).encode())
    with pytest.raises(ValueError, match=message):
        load_bundle(there)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["files"].pop(GOLDEN), "names no golden.npz"),
        (lambda raw: raw.update(class_order=["fake", "real"]), "class order"),
        (lambda raw: raw["face_options"]["crop"].update(shape="round"), "shape"),
        (lambda raw: raw["files"].update({"../x": raw["files"][MODEL]}), "names a file '../x'"),
    ],
)
def test_a_manifest_that_was_signed_but_is_foreign_is_refused(there: Storage, change, message: str) -> None:
    raw = json.loads(there.read(MANIFEST))
    change(raw)
    there.put(MANIFEST, json.dumps(signed(raw)).encode())
    with pytest.raises(ValueError, match=message):
        load_bundle(there)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_object_is_refused(sink: Storage, content: bytes) -> None:
    sink.put(MANIFEST, content)
    with pytest.raises(ValueError, match=MANIFEST):
        load_bundle(sink)


def test_a_folder_without_a_bundle_says_so(sink: Storage) -> None:
    with pytest.raises(ValueError, match=r"not a model bundle: it has no bundle\.json"):
        load_bundle(sink, "nothing/")


class StopsAtManifest(LocalStorage):
    """A folder on a disk that is full when the manifest comes."""

    def put(self, key: str, data: bytes) -> None:
        if key.endswith(MANIFEST):
            raise StorageError("no space left")
        super().put(key, data)


def test_half_a_bundle_is_none(tmp_path: Path) -> None:
    saved(LocalStorage(tmp_path))
    with pytest.raises(StorageError):
        saved(StopsAtManifest(tmp_path))
    with pytest.raises(ValueError, match="not a model bundle"):
        load_bundle(LocalStorage(tmp_path))


def test_golden_scores_that_drift_stop_the_load(there: Storage) -> None:
    bundle = load_bundle(there)
    golden = bundle.golden()
    shifted = Golden(images=golden.images, logits=golden.logits + np.float32(0.01)).to_bytes()
    raw = json.loads(there.read(MANIFEST))
    raw["files"][GOLDEN] = {"sha256": hashlib.sha256(shifted).hexdigest(), "size_bytes": len(shifted)}
    there.put(GOLDEN, shifted)
    there.put(MANIFEST, json.dumps(signed(raw)).encode())
    with pytest.raises(ValueError, match=r"scores drift .* golden logits differ by 0\.0\d+, expected 0\.0001 at most"):
        load_bundle(there).predictor()


def test_golden_inputs_show_drawn_faces_and_no_two_are_alike() -> None:
    images = golden_images(64)
    assert images.shape == (8, 64, 64, 3)
    assert len({image.tobytes() for image in images}) == 8
    assert (images.std(axis=(1, 2, 3)) > 20).all()


def test_a_network_with_code_in_it_is_refused(sink: Storage) -> None:
    pixels = keras.Input((SIDE, SIDE, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda x: x * 2)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(1, name="logit")(hidden))
    with pytest.raises(ValueError, match="safe mode"):
        save_bundle(sink, model, manifest())
    assert not sink.exists(MANIFEST)


def test_a_pickle_in_the_golden_file_is_not_opened(sink: Storage) -> None:
    np.savez(Path(sink.root).parent / "evil.npz", images=np.array([{"a": 1}], object), logits=np.zeros(1))
    with pytest.raises(ValueError, match="damaged"):
        Golden.from_bytes((Path(sink.root).parent / "evil.npz").read_bytes(), "golden.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": network(48)}, "network for crops of 48 px and crop options of 32 px"),
        ({"extras": {"../up": b""}}, r"extra file named '\.\./up'"),
        ({"extras": {MANIFEST: b""}}, "extra file named"),
        ({"prefix": "no-slash"}, "expected a slash at its end"),
    ],
)
def test_what_cannot_be_a_bundle_is_refused_before_anything_is_written(sink: Storage, change, message: str) -> None:
    arguments = {"model": network(), "manifest": manifest(), **change}
    with pytest.raises(ValueError, match=message):
        save_bundle(sink, **arguments)
    assert list(sink.list()) == []


def test_weights_that_are_not_finite_are_refused(sink: Storage) -> None:
    model = network()
    model.get_layer("logit").bias.assign([np.nan])
    with pytest.raises(ValueError, match="expected finite ones"):
        save_bundle(sink, model, manifest())


def test_a_network_trained_in_half_precision_is_kept_in_float32(sink: Storage) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    bundle = save_bundle(sink, model, manifest())
    loaded = bundle.load_model()
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    half = bundle.predictor(precision="bfloat16")
    assert half.network.layers[2].compute_dtype == "bfloat16"
    assert 0 < np.abs(half(crops(8)) - bundle.predictor()(crops(8))).max() < bundle.manifest.tolerance["bfloat16"]


def test_a_precision_that_was_never_measured_is_refused(there: Storage) -> None:
    with pytest.raises(ValueError, match=r"precision: got 'float16', expected one that .* float32, bfloat16"):
        load_bundle(there).predictor(precision="float16")


def test_batches_have_one_shape_and_padding_changes_nothing() -> None:
    predict = Predictor(network(), batch_size=4)
    images = crops(11)
    together = predict(images)
    alone = np.concatenate([predict(images[place : place + 1]) for place in range(11)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.shape == (11,)
    assert together.dtype == np.float32
    assert predict(images[:0]).shape == (0,)
    if keras.backend.backend() == "tensorflow":
        assert predict.network.predict_function.experimental_get_tracing_count() == 1


def test_a_predictor_takes_crops_of_its_side_alone() -> None:
    predict = Predictor(network())
    with pytest.raises(ValueError, match=r"got float32 \(1, 32, 32, 3\), expected uint8"):
        predict(crops(1).astype(np.float32))
    with pytest.raises(ValueError, match=r"expected uint8 \(n, 32, 32, 3\)"):
        predict(crops(1, 48))
    with pytest.raises(ValueError, match="expected one named logit"):
        Predictor(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]))


_LOAD = """
import sys, numpy as np
from batch.model.bundle import load_bundle
from batch.storage.open import open_storage
np.save(sys.argv[2], load_bundle(open_storage(sys.argv[1])).predictor()(np.load(sys.argv[3])))
"""


@pytest.mark.slow
def test_both_backends_give_the_same_scores_for_one_bundle(there: Storage, tmp_path: Path) -> None:
    np.save(tmp_path / "crops.npy", crops(40))
    other = {"tensorflow": "jax", "jax": "tensorflow"}[keras.backend.backend()]
    environment = {**os.environ, "KERAS_BACKEND": other, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-c", _LOAD, there.root, tmp_path / "logits.npy", tmp_path / "crops.npy"],
        env=environment, check=True, cwd=Path(__file__).parents[2], timeout=500,
    )  # fmt: skip
    mine, theirs = load_bundle(there).predictor()(crops(40)), np.load(tmp_path / "logits.npy")
    assert mine.std() > 1e-3, "crops that the network cannot tell apart would prove nothing"
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.slow
def test_a_bundle_lies_in_a_bucket_as_in_a_folder(s3_bucket: str) -> None:
    sink = open_storage(f"s3://{s3_bucket}/models")
    saved(sink, "night/")
    assert load_bundle(sink, "night/").predictor()(crops(3)).shape == (3,)
    sink.put("night/golden.npz", b"")
    with pytest.raises(ValueError, match=f"s3://{s3_bucket}/models/night/golden.npz: damaged: found 0 bytes"):
        load_bundle(sink, "night/")


def signed(raw: dict) -> dict:
    """The manifest with the digest that fits it."""
    body = {name: value for name, value in raw.items() if name != "digest"}
    return {"digest": digest_of(body), **body}
