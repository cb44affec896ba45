"""Networks: what they accept, what is trained in which stage, where their weights come from."""

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import keras
import numpy as np
import pytest

from batch.model import backbones
from batch.model.backbones import CAFFE, NETWORKS, RAW, TF, TORCH, Architecture, Scaling, application
from batch.model.network import NetworkOptions, Stage, build_network, logits_of, set_trainable

XCEPTION = Path(__file__).parents[3] / "shared" / "weights" / "xception_imagenet_notop.weights.h5"


def pixels(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_uint8_and_float_pixels_give_the_same_probability_and_its_logit() -> None:
    model = build_network(NetworkOptions(model="cnn", features="multi", dense_units=(8,), dropout=0.3), 64)
    found = model.predict_on_batch(pixels(64))
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found, model.predict_on_batch(pixels(64).astype(np.float32)), atol=1e-6)
    logits = logits_of(model).predict_on_batch(pixels(64))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), found, atol=1e-6)


def test_a_saved_network_loads_in_safe_mode_and_says_the_same(tmp_path: Path) -> None:
    model = build_network(NetworkOptions(model="cnn", dense_units=(8,)), 96)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict_on_batch(pixels(96)), model.predict_on_batch(pixels(96)))


def test_mixed_precision_keeps_weights_and_the_result_in_float32() -> None:
    before = keras.config.dtype_policy().name
    model = build_network(NetworkOptions(model="cnn", precision="mixed"), 32)
    convolution = next(layer for layer in model.get_layer("backbone").layers if "conv" in layer.name)
    assert convolution.compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.predict_on_batch(pixels(32)).dtype == np.float32
    assert keras.config.dtype_policy().name == before


def trained_blocks(model: keras.Model) -> set[str]:
    layers = model.get_layer("backbone").layers
    return {layer.name.split("_")[0] for layer in layers if layer.trainable_variables}


def test_stages_train_the_head_then_the_whole_or_its_last_blocks() -> None:
    options = NetworkOptions(model="cnn", weights="none")
    model = build_network(options, 32)
    set_trainable(model, "head", options, "whole")
    assert [variable.path for variable in model.trainable_variables] == ["logit/kernel", "logit/bias"]
    set_trainable(model, "whole", options, 2)
    assert trained_blocks(model) == {"block3", "block4"}
    set_trainable(model, "whole", options, "whole")
    assert trained_blocks(model) == {"block1", "block2", "block3", "block4"}
    with pytest.raises(ValueError, match="received 5, expected 'whole' or 1 to 4"):
        set_trainable(model, "whole", options, 5)


def with_norm(weights: str | None, side: int) -> keras.Model:
    image = keras.Input((side, side, 3))
    return keras.Model(image, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image)))


@pytest.fixture
def normed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A network of one convolution and BatchNorm in the registry, and its weights in a file."""
    entry = Architecture(build=with_norm, scaling=RAW, smallest_side=3, has_imagenet=False)
    monkeypatch.setattr(backbones, "NETWORKS", MappingProxyType({**NETWORKS, "normed": entry}))
    monkeypatch.setattr("batch.model.network.NETWORKS", backbones.NETWORKS)
    with_norm(None, 8).save_weights(tmp_path / "normed.weights.h5")
    return tmp_path / "normed.weights.h5"


@pytest.mark.parametrize(
    ("weights", "norms", "stage", "trained"),
    [
        ("file", "frozen", "whole", False),
        ("file", "trained", "whole", True),
        ("file", "trained", "head", False),
        ("none", "frozen", "whole", True),
    ],
)
def test_batch_norm_of_weights_learns_if_told_and_not_with_the_head(
    normed: Path, weights: str, norms: Literal["frozen", "trained"], stage: Stage, trained: bool
) -> None:
    options = NetworkOptions(model="normed", weights=str(normed) if weights == "file" else weights, norms=norms)
    model = build_network(options, 8)
    set_trainable(model, stage, options, "whole")
    norm = model.get_layer("backbone").layers[-1]
    before = norm.moving_mean.numpy().copy()
    model(pixels(8).astype(np.float32), training=True)
    assert (norm.moving_mean.numpy() != before).any() == trained
    assert bool(norm.trainable_variables) == trained


@pytest.mark.parametrize(
    ("name", "module", "scaling"),
    [("MobileNetV2", "mobilenet_v2", TF), ("DenseNet121", "densenet", TORCH), ("ResNet50", "resnet", CAFFE),
     ("EfficientNetV2B0", "efficientnet_v2", RAW)],
)  # fmt: skip
def test_another_network_of_keras_is_one_entry(
    name: str, module: str, scaling: Scaling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And sees what it was trained to see."""
    registry = MappingProxyType({**NETWORKS, "new": Architecture(build=application(name), scaling=scaling)})
    monkeypatch.setattr(backbones, "NETWORKS", registry)
    monkeypatch.setattr("batch.model.network.NETWORKS", registry)
    model = build_network(NetworkOptions(model="new", weights="none"), 32)
    seen = np.asarray(keras.Model(model.input, model.get_layer("pool0").output)(pixels(32).astype(np.float32)))
    prepared = getattr(keras.applications, module).preprocess_input(pixels(32).astype(np.float32))
    own = np.asarray(model.get_layer("backbone")(prepared)).mean(axis=(1, 2))
    np.testing.assert_allclose(seen, own, atol=1e-4 * np.abs(own).max())
    with pytest.raises(ValueError, match="no layers to join are named for new"):
        NetworkOptions(model="new", features="multi")


def test_a_network_that_turns_the_channels_round_loads_in_safe_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = Architecture(build=with_norm, scaling=CAFFE, smallest_side=3, has_imagenet=False)
    monkeypatch.setattr("batch.model.backbones.NETWORKS", {"turned": entry})
    monkeypatch.setattr("batch.model.network.NETWORKS", {"turned": entry})
    model = build_network(NetworkOptions(model="turned"), 8)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict_on_batch(pixels(8)), model.predict_on_batch(pixels(8)))


def test_another_network_is_one_entry(normed: Path) -> None:
    kernel = build_network(NetworkOptions(model="normed", weights=str(normed)), 8).get_layer("backbone").weights[0]
    again = build_network(NetworkOptions(model="normed", weights=str(normed)), 8).get_layer("backbone").weights[0]
    np.testing.assert_array_equal(kernel.numpy(), again.numpy())


def test_weights_of_another_network_are_refused_by_name(normed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"received {normed}, expected a .weights.h5 file of cnn"):
        build_network(NetworkOptions(model="cnn", weights=str(normed)), 32)
    (tmp_path / "broken.weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"broken.weights.h5, expected"):
        build_network(NetworkOptions(model="cnn", weights=str(tmp_path / "broken.weights.h5")), 32)
    spoilt = with_norm(None, 8)
    spoilt.layers[1].kernel.assign(spoilt.layers[1].kernel * np.nan)
    spoilt.save_weights(tmp_path / "spoilt.weights.h5")
    with pytest.raises(ValueError, match=r"spoilt.weights.h5 has values that are no finite numbers in .*kernel"):
        build_network(NetworkOptions(model="normed", weights=str(tmp_path / "spoilt.weights.h5")), 8)
    with pytest.raises(ValueError, match="no weights file: received /nowhere"):
        build_network(NetworkOptions(model="cnn", weights="/nowhere"), 32)


def test_a_failed_download_names_the_choices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache, and a proxy at which nobody listens.
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"could not be downloaded.*--weights FILE.*--weights none"):
        build_network(NetworkOptions(model="xception", weights="imagenet"), 71)


class Broken(BaseHTTPRequestHandler):
    """Breaks off in the middle of a file, or gives one of another content."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "64")
        self.end_headers()
        self.wfile.write(b"x" * 64 if self.path == "/other" else b"x" * 16)
        if self.path == "/reset":
            # An RST instead of a FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.flush()
            self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("path", ["/short", "/reset", "/other"])
def test_a_download_that_breaks_off_names_the_choices_too(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def build(weights: str | None, side: int) -> keras.Model:
            origin = f"http://127.0.0.1:{server.server_port}{path}"
            keras.utils.get_file(f"w{path[1:]}", origin, file_hash="0" * 64, cache_dir=str(tmp_path))
            raise AssertionError("a wrong file was taken")

        entry = Architecture(build=build, scaling=RAW, smallest_side=8)
        monkeypatch.setattr("batch.model.backbones.NETWORKS", {"fetched": entry})
        monkeypatch.setattr("batch.model.network.NETWORKS", {"fetched": entry})
        try:
            with pytest.raises(
                ValueError, match=r"ImageNet weights of fetched could not be downloaded.*--weights FILE"
            ):
                build_network(NetworkOptions(model="fetched"), 8)
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": "resnet"}, "received 'resnet', expected one of cnn, xception"),
        ({"model": "cnn", "weights": "imagenet"}, "cnn has no ImageNet weights"),
        ({"features": "first"}, "received 'first'"),
        ({"norms": "synchronized"}, "received 'synchronized', expected 'frozen' or 'trained'"),
        ({"dense_units": (0,)}, r"received \(0,\)"),
        ({"dropout": 1.0}, "received 1.0, expected 0 to below 1"),
        ({"precision": "half"}, "received 'half'"),
    ],
)
def test_bad_options_are_refused(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        NetworkOptions(**given)


def test_crops_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(ValueError, match="received 64 px, xception expects 71"):
        build_network(NetworkOptions(weights="none"), 64)


@pytest.mark.slow
@pytest.mark.skipif(not XCEPTION.is_file(), reason="../shared/weights is absent")
def test_xception_takes_its_weights_from_a_file() -> None:
    options = NetworkOptions(weights=str(XCEPTION), features="multi")
    model = build_network(options, 71)
    assert model.get_layer("logit").kernel.shape == (4 * 728 + 2048, 1)
    set_trainable(model, "whole", options, 2)
    assert trained_blocks(model) == {"block13", "block14", "conv2d"}
    # The file holds float16: no freshly drawn kernel has such values.
    kernel = model.get_layer("backbone").get_layer("block8_sepconv3").pointwise_kernel.numpy()
    np.testing.assert_array_equal(kernel, kernel.astype(np.float16).astype(np.float32))
