"""The convolutional networks under the head: a registry, and their weights from a download or a file."""

from __future__ import annotations

import fcntl
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Scaling:
    """What becomes of RGB pixels from 0 to 255 before the backbone sees them."""

    scale: float | tuple[float, float, float]
    """They are multiplied by this, ..."""
    offset: float | tuple[float, float, float]
    """... this is added, of either a value or one a channel, ..."""
    bgr: bool = False
    """... and the channels are turned round."""


# As the networks of `keras.applications` were trained, by the names of its `preprocess_input`; those that scale their
# pixels by a layer of their own, such as EfficientNet, take `RAW`.
RAW = Scaling(1.0, 0.0)
TF = Scaling(1 / 127.5, -1.0)
TORCH = Scaling((1 / 58.395, 1 / 57.12, 1 / 57.375), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225))
CAFFE = Scaling(1.0, (-123.68, -116.779, -103.939), bgr=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A backbone and what its input and its `multi` features are."""

    build: Callable[[str | None, int], keras.Model]
    """From weights (`imagenet` or None) and the side in pixels to a model from pixels to feature maps."""
    scaling: Scaling
    taps: tuple[str, ...] = ()
    """Layers whose outputs `--features multi` pools and joins, from shallow to deep; without any it is refused."""
    smallest_side: int = 32
    """In pixels."""
    has_imagenet: bool = True
    """True if ImageNet weights can be downloaded for it."""


def build_base(name: str, source: str, side: int) -> keras.Model:
    """The network from scaled pixels to feature maps, with weights from `imagenet`, `none` or a file.

    Raises ValueError for a download that failed, no such file, and a file of another network.
    """
    if source == "imagenet":
        return _download(NETWORKS[name], name, side)
    base = NETWORKS[name].build(None, side)
    if source != "none":
        _load_weights(base, Path(source), name)
    return base


def _download(architecture: Architecture, name: str, side: int) -> keras.Model:
    """The backbone with ImageNet weights, fetched once into Keras' cache, by one process at a time."""
    try:
        with _alone():
            return architecture.build("imagenet", side)
    except Exception as error:
        # keras.utils.get_file: the bare class where it could not connect, ValueError for a file that is not what it
        # should be; what breaks off on the way comes as the network's own error.
        if not isinstance(error, OSError | HTTPException | ValueError) and type(error) is not Exception:
            raise
        raise ValueError(
            f"ImageNet weights of {name} could not be downloaded: {' '.join(str(error).split())}; "
            "expected a network connection, or --weights FILE (a .weights.h5 file), or --weights none"
        ) from error


@contextmanager
def _alone() -> Iterator[None]:
    """Waits for other processes that are in here: Keras writes into the cached file itself."""
    try:
        home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "fakesift.lock").open("a")
    except OSError:  # Keras then has a cache there, too
        lock = (Path(tempfile.gettempdir()) / f"fakesift-weights-{os.getuid()}.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load_weights(base: keras.Model, path: Path, name: str) -> None:
    """Fill the backbone from a `.weights.h5` file. Its variables must fit by name of layer and by shape."""
    if not path.is_file():
        raise ValueError(f"no weights file: received {path}, expected a file, 'imagenet' or 'none'")
    try:
        with warnings.catch_warnings():
            # Said of layers that a file has nothing for: half a network would be trained from noise, unseen.
            warnings.filterwarnings("error", message="Skipping nested container")
            base.load_weights(path)
    except (ValueError, KeyError, OSError, IndexError, UserWarning) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"weights do not fit: received {path}, expected a .weights.h5 file of {name} without its top layers "
            f"({base.count_params():,} values): {first_line}"
        ) from error
    broken = [variable.path for variable in base.weights if not np.isfinite(variable.numpy()).all()]
    if broken:
        raise ValueError(f"weights: {path} has values that are no finite numbers in {broken[0]}, expected finite ones")


def application(name: str) -> Callable[[str | None, int], keras.Model]:
    """A network of `keras.applications`, without its top."""

    def build(weights: str | None, side: int) -> keras.Model:
        """The network for pixels of shape (side, side, 3)."""
        import keras

        make = getattr(keras.applications, name)
        return cast("keras.Model", make(weights=weights, include_top=False, input_shape=(side, side, 3)))

    return build


def _cnn(weights: str | None, side: int) -> keras.Model:
    """Four blocks of convolution and pooling, 0.19 million weights; a first stride of 2 from 96 px on.

    BatchNorm: what tells a fake is how much of a texture there is, and a norm within each picture, such as GroupNorm,
    takes that away (`tests/benchmarks/accuracy.py --rows cnn` shows what it learns).
    """
    import keras

    pixels = keras.Input((side, side, 3))
    hidden = pixels
    for number, filters in enumerate((32, 64, 96, 128), start=1):
        stride = 2 if number == 1 and side >= 96 else 1
        hidden = keras.layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False, name=f"block{number}_conv"
        )(hidden)
        hidden = keras.layers.BatchNormalization(momentum=0.9, name=f"block{number}_norm")(hidden)
        hidden = keras.layers.Activation("relu", name=f"block{number}_relu")(hidden)
        if number < 4:
            hidden = keras.layers.MaxPooling2D(name=f"block{number}_pool")(hidden)
    return keras.Model(pixels, hidden)


NETWORKS: Mapping[str, Architecture] = MappingProxyType(
    {
        "xception": Architecture(
            build=application("Xception"),
            scaling=TF,
            # Of blocks 4 and 8 what their last convolution sees and what the next block sees, each after its ReLU: the
            # mean of a rectified map tells how much of a texture there is, that of a normalized one next to nothing
            # (accuracy of a logistic regression on them, 4,228 faces, half of them swapped: 0.94 against 0.89).
            taps=(
                "block4_sepconv2_act",
                "block5_sepconv1_act",
                "block8_sepconv3_act",
                "block9_sepconv1_act",
                "block14_sepconv2_act",
            ),
            smallest_side=71,
        ),
        "cnn": Architecture(
            build=_cnn,
            scaling=TF,
            taps=("block2_relu", "block3_relu", "block4_relu"),
            has_imagenet=False,
        ),
    }
)
"""Every network by its name. Another one of `keras.applications` is one more entry, such as
`"resnet50": Architecture(build=application("ResNet50"), scaling=CAFFE)`."""
