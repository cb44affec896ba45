"""OpenVINO computes what Keras does, and says so where it cannot."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from batch.model.bundle import Bundle, save_bundle
from batch.model.golden import Golden, drift, golden_images
from batch.model.network import NetworkOptions, build_network
from batch.model.predictor import Predictor
from batch.storage.local import LocalStorage
from tests.support.made_bundle import settled
from tests.support.saved_bundle import crops, manifest, network

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow gives OpenVINO networks")


def made(folder: Path, model: str, side: int) -> Bundle:
    """Random weights whose golden logits are some units apart."""
    keras.utils.set_random_seed(0)
    made = settled(build_network(NetworkOptions(model=model, weights="none", features="multi"), side))
    head = made.get_layer("logit")
    kernel, bias = head.get_weights()
    logits = Predictor(made, batch_size=8)(golden_images(side))
    head.set_weights([kernel / logits.std(), bias - logits.mean() / logits.std()])
    return save_bundle(LocalStorage(folder), made, manifest(side=side))


@pytest.mark.parametrize(("model", "side"), [("cnn", 64), pytest.param("xception", 96, marks=pytest.mark.slow)])
def test_it_gives_the_logits_of_keras(tmp_path: Path, model: str, side: int) -> None:
    bundle = made(tmp_path, model, side)
    pictures = np.concatenate([golden_images(side)[::-1], crops(13, side)])  # a batch of 16, then 5 for two threads
    expected = bundle.predictor(batch_size=16)(pictures)
    assert expected[:8].std() > 0.5, "logits that do not differ would prove nothing"
    predict = bundle.predictor(batch_size=16, runtime="openvino", threads=2)
    assert drift(predict(pictures), expected) < 1e-4
    assert drift(predict(pictures[:1]), expected[:1]) < 1e-4
    assert predict(pictures[:0]).shape == (0,)
    if HAS_BFLOAT16:
        half = bundle.predictor(batch_size=16, runtime="openvino", precision="bfloat16", threads=3)(pictures)
        assert 1e-4 < drift(half[:8], expected[:8]) <= bundle.manifest.tolerance["bfloat16"]


@pytest.mark.parametrize(("threads", "batch"), [(1, 4), (2, 4), (3, 6), (6, 6)])
def test_every_thread_has_crops_of_its_own(threads: int, batch: int) -> None:
    from batch.model.openvino import OpenVinoPredictor

    model = network()
    pictures = crops(2 * batch + 1, model.input_shape[1])
    predict = OpenVinoPredictor(model, batch_size=4, threads=threads)
    assert predict.batch_size == batch
    assert drift(predict(pictures), Predictor(model, batch_size=4)(pictures)) < 1e-4


def test_golden_logits_that_drift_stop_the_load(tmp_path: Path) -> None:
    bundle = save_bundle(LocalStorage(tmp_path), network(), manifest())
    assert bundle.predictor(runtime="openvino").engine.startswith("OpenVINO 20")
    shifted = Shifted(**{name: getattr(bundle, name) for name in bundle.__dataclass_fields__})
    told = r"golden logits differ by 0\.01, expected 0\.0001 at most in float32 \(OpenVINO 20"
    with pytest.raises(ValueError, match=told):
        shifted.predictor(runtime="openvino")


class Shifted(Bundle):
    """A bundle with golden logits of another library."""

    def golden(self) -> Golden:
        golden = super().golden()
        return replace(golden, logits=golden.logits + np.float32(0.01))


def test_a_precision_that_the_processor_lacks_is_refused() -> None:
    from batch.model.openvino import check_capability

    check_capability("bfloat16", ["FP32", "BF16"])
    with pytest.raises(ValueError, match="precision bfloat16: got a processor that computes in FP32, INT8, expected"):
        check_capability("bfloat16", ["INT8", "FP32"])


def test_what_cannot_be_compiled_is_refused() -> None:
    from batch.model.openvino import OpenVinoPredictor

    with pytest.raises(ValueError, match="batch size: got 0"):
        OpenVinoPredictor(network(), batch_size=0)
    with pytest.raises(ValueError, match="expected one named logit"):
        OpenVinoPredictor(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]))
