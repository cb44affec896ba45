"""A trained network in, a model bundle out, and back: all that is needed to score a face as training would.

A bundle is a few files under a prefix of a folder or bucket:

    model.keras     the network, float32, built-in Keras layers alone; loaded with `safe_mode`
    golden.npz      pictures without people and the logits that the network gave for them
    ...             files of the caller, such as the fingerprints of the training groups
    bundle.json     how to crop, calibrate, aggregate and judge, and the SHA-256 of every file; written last
    MODEL_CARD.md, report.html   for people; made from the bundle, and not part of its digest

The digest of a bundle covers the files' digests and everything in `bundle.json`: equal digests give equal scores.
Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from batch.faces.options import FaceOptions, digest_of
from batch.model.aggregate import Aggregation
from batch.model.calibration import Calibration
from batch.model.golden import FLOAT32_TOLERANCE, Golden, Precision, Runtime, drift, golden_images
from batch.model.manifest import BundleFile, Manifest
from batch.model.thresholds import Thresholds
from batch.storage.base import MissingObjectError, Storage

if TYPE_CHECKING:
    import keras

    from batch.model.predictor import BatchPredictor

FORMAT = "bundle/1"
MODEL, MANIFEST, GOLDEN, CARD, REPORT = "model.keras", "bundle.json", "golden.npz", "MODEL_CARD.md", "report.html"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HALF_TOLERANCE_FLOOR, _HALF_HEADROOM = 0.05, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose files were all there and whole when it was opened. Can be sent to workers: holds no weights."""

    sink: Storage
    prefix: str
    digest: str
    """16 hex digits: names the bundle in every score."""
    manifest: Manifest
    files: Mapping[str, BundleFile]

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.sink.uri(self.prefix).rstrip("/")

    @property
    def face_options(self) -> FaceOptions:
        """How crops for it are made."""
        return self.manifest.face_options

    @property
    def calibration(self) -> Calibration:
        """From logits to probabilities."""
        return self.manifest.calibration

    @property
    def aggregation(self) -> Aggregation:
        """From frames to tracks to items."""
        return self.manifest.aggregation

    @property
    def thresholds(self) -> Thresholds:
        """Operating points and bands of an item's score."""
        return self.manifest.thresholds

    def read(self, name: str) -> bytes:
        """A file of the bundle.

        Raises:
            ValueError: if it is missing or its SHA-256 is not the one in `bundle.json`.
            KeyError: for a name that the bundle does not have.
        """
        return _checked(self.sink, self.prefix, name, self.files[name])

    def golden(self) -> Golden:
        """Golden inputs and logits. Raises `ValueError` as `read` does."""
        return Golden.from_bytes(self.read(GOLDEN), self.sink.uri(self.prefix + GOLDEN))

    def load_model(self) -> keras.Model:
        """The network, in float32, ready to predict. Raises `ValueError` for one that is damaged or holds code."""
        return load_keras(self.read(MODEL), self.sink.uri(self.prefix + MODEL))

    def check_precision(self, precision: str) -> None:
        """Raises `ValueError` for one that the network was not measured in."""
        if precision not in self.manifest.tolerance:
            known = ", ".join(self.manifest.tolerance)
            raise ValueError(f"precision: got {precision!r}, expected one that {self.uri} was measured in: {known}")

    def predictor(
        self,
        *,
        batch_size: int = 32,
        precision: Precision = "float32",
        runtime: Runtime = "keras",
        threads: int | None = None,
    ) -> BatchPredictor:
        """Loads the network once and gives the function from crops to logits, after checking the golden inputs.

        `threads` are those of OpenVINO; Keras' backends read theirs from the environment.

        Raises:
            ValueError: if their logits drift by more than the tolerance of the precision, a file is damaged, or the
                runtime cannot compute this network or in this precision.
        """
        self.check_precision(precision)
        made: BatchPredictor
        if runtime == "openvino":
            from batch.model.openvino import OpenVinoPredictor

            made = OpenVinoPredictor(self.load_model(), batch_size=batch_size, precision=precision, threads=threads)
        else:
            from batch.model.predictor import Predictor

            made = Predictor(self.load_model(), batch_size=batch_size, precision=precision)
        made.check(self.golden(), self.manifest.tolerance[precision], self.uri)
        return made


def save_bundle(
    sink: Storage,
    model: keras.Model,
    manifest: Manifest,
    *,
    prefix: str = "",
    extras: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Writes a bundle, replacing one that is there; `bundle.json` last, so that half a bundle is none.

    The network is written in float32 whatever it was trained in, loaded again as a user would, and asked for the
    golden inputs in float32 and in bfloat16. What the second differs by becomes its tolerance, four times over.

    Args:
        sink: any store.
        model: a network with a layer `logit`, of built-in Keras layers alone.
        manifest: as far as training knows it; `tolerance` is filled in.
        prefix: the bundle's folder under the root, with a slash at its end, or nothing.
        extras: files of the caller by name, digested like the others.

    Raises:
        ValueError: for a name or prefix that cannot be, a crop size unlike the network's, weights that are not
            finite, or a network that does not load in safe mode.
    """
    from batch.model.predictor import side_of

    side, crop = side_of(model), manifest.face_options.crop.crop_size
    if side != crop:
        raise ValueError(f"bundle: got a network for crops of {side} px and crop options of {crop} px")
    for name in extras or {}:
        if not _NAME.fullmatch(name) or name in {MODEL, MANIFEST, GOLDEN, CARD, REPORT}:
            raise ValueError(f"bundle: got an extra file named {name!r}, expected letters, digits, dots and dashes")
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"bundle: got prefix {prefix!r}, expected a slash at its end")
    weights = keras_bytes(model)
    golden, tolerance = _measure(load_keras(weights, sink.uri(prefix + MODEL)))
    contents = {MODEL: weights, GOLDEN: golden.to_bytes(), **(extras or {})}
    files = {name: BundleFile(sha256=_sha256(data), size_bytes=len(data)) for name, data in sorted(contents.items())}
    whole = replace(manifest, tolerance=tolerance)
    body = {"format": FORMAT, "files": {name: asdict(file) for name, file in files.items()}, **whole.to_json()}
    digest = digest_of(body)
    sink.delete(prefix + MANIFEST)
    for name, data in contents.items():
        sink.put(prefix + name, data)
    sink.put(prefix + MANIFEST, json.dumps({"digest": digest, **body}, indent=1, allow_nan=False).encode())
    return Bundle(sink=sink, prefix=prefix, digest=digest, manifest=whole, files=files)


def load_bundle(sink: Storage, prefix: str = "") -> Bundle:
    """Opens a bundle and checks every file of it against its SHA-256 (80 MB are read for an Xception).

    Raises:
        ValueError: if there is no bundle, one of another version, or a file that is missing or damaged, which is
            named with the digest found and the one expected.
    """
    where = sink.uri(prefix + MANIFEST)
    try:
        raw = json.loads(sink.read(prefix + MANIFEST))
    except MissingObjectError:
        raise ValueError(f"{sink.uri(prefix)}: not a model bundle: it has no {MANIFEST}") from None
    except ValueError as error:
        raise ValueError(f"{where}: damaged: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ValueError(f"{where}: got format {found!r}, expected {FORMAT!r}")
    expected = raw.pop("digest", None)
    if digest_of(raw) != expected:
        raise ValueError(f"{where}: damaged or edited: its digest is {digest_of(raw)}, expected {expected}")
    try:
        body = {name: value for name, value in raw.items() if name not in {"format", "files"}}
        files = {name: BundleFile(**value) for name, value in raw["files"].items()}
        manifest = Manifest.from_json(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: got values that this version does not know: {error}") from error
    for name in (MODEL, GOLDEN):
        if name not in files:
            raise ValueError(f"{where}: names no {name}")
    for name, file in files.items():
        _checked(sink, prefix, name, file)
    return Bundle(sink=sink, prefix=prefix, digest=str(expected), manifest=manifest, files=files)


def _checked(sink: Storage, prefix: str, name: str, file: BundleFile) -> bytes:
    uri = sink.uri(prefix + name)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{sink.uri(prefix + MANIFEST)}: names a file {name!r}, expected letters, digits, dots, dashes"
        )
    try:
        data = sink.read(prefix + name)
    except MissingObjectError:
        raise ValueError(f"{uri}: missing from the bundle, expected {file.size_bytes} bytes") from None
    found = _sha256(data)
    if found != file.sha256:
        raise ValueError(
            f"{uri}: damaged: found {len(data)} bytes with SHA-256 {found}, "
            f"expected {file.size_bytes} with {file.sha256}"
        )
    return data


def _measure(model: keras.Model) -> tuple[Golden, dict[str, float]]:
    """Golden inputs with the network's own logits, and the tolerance of each precision."""
    from batch.model.predictor import Predictor

    images = golden_images(int(model.input_shape[1]))
    logits = Predictor(model, batch_size=len(images))(images)
    golden = Golden(images=images, logits=logits)
    if drift(logits, logits) != 0:
        raise ValueError(f"bundle: the network gives logits {logits.tolist()} for golden inputs, expected finite ones")
    half = drift(Predictor(model, batch_size=len(images), precision="bfloat16")(images), logits)
    return golden, {
        "float32": FLOAT32_TOLERANCE,
        "bfloat16": round(max(_HALF_TOLERANCE_FLOOR, _HALF_HEADROOM * half), 4),
    }


def keras_bytes(model: keras.Model) -> bytes:
    """The network as a `.keras` file, in float32 whatever it computes in."""
    from batch.model.predictor import in_precision

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        in_precision(model, "float32").save(path)
        return path.read_bytes()


def load_keras(data: bytes, where: str) -> keras.Model:
    """Reads a `.keras` file that may hold no code."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(data)
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise ValueError(f"{where}: not a Keras model that loads in safe mode: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
