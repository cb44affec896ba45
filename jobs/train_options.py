"""The command line of `fakesift train`, and what it means."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from batch.model.fit.options import FitOptions
from batch.model.network import NetworkOptions
from batch.model.plan import DataOptions
from batch.model.split import By, SplitOptions
from jobs.console import shown
from jobs.slicing import check_slices

_SPLIT, _DATA, _NETWORK, _FIT = SplitOptions(), DataOptions(), NetworkOptions(), FitOptions()


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `fakesift train`."""

    places: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FACES... OUTPUT", help_behavior_hint="(required)")
    ] = ()
    """Outputs of `fakesift preprocess`, one or more; then a folder or s3://bucket/prefix: empty, or an earlier output
    of the same job, which is then continued."""

    config: Annotated[str | None, shown("FILE.yaml", "none")] = None
    """Options by name, with underscores, as best.yaml of `fakesift tune` has them; what is given here wins."""

    split: By = _SPLIT.by
    """What no split may cut: source (an original and all fakes made from it), part (whole parts of the corpus),
    identity (people), given (as the labels say)."""
    validation: float = _SPLIT.validation
    """Share of the faces to validate on."""
    test: float = _SPLIT.test
    """Share of the faces to test on, once, at the end."""
    seed: int = 0
    """Of every random choice: splits, draws, order, augmentation, new weights."""

    model: str = _NETWORK.model
    """xception, cnn (a small baseline trained from scratch), or another network of the registry."""
    weights: Annotated[str, tyro.conf.arg(metavar="auto|imagenet|none|FILE")] = _NETWORK.weights
    """Weights that the network starts from; auto takes imagenet where there are such weights, and downloads them."""
    features: Literal["last", "multi"] = _NETWORK.features
    """multi joins layers of several depths: far better on a frozen backbone (--epochs 0)."""
    dense_units: Annotated[
        tuple[int, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="N", help_behavior_hint="(default: none)")
    ] = _NETWORK.dense_units
    """A dense layer of N units before the sigmoid; once a layer."""
    dropout: float = _NETWORK.dropout
    """Share of values dropped before each dense layer and before the sigmoid."""
    precision: Literal["auto", "float32", "mixed"] = _NETWORK.precision
    """mixed: bfloat16 arithmetic on float32 weights; auto: where a GPU knows it."""
    norms: Literal["frozen", "trained"] = _NETWORK.norms
    """BatchNorm of a pretrained network: frozen as it came, or trained with what --unfreeze says, on the faces of all
    workers."""

    batch_size: int = _DATA.batch_size
    """Faces of one step, over all workers."""
    balance: Literal["downsample", "weights", "none"] = _DATA.balance
    """downsample: each epoch draws as many fakes as there are reals, of those that --max-faces lets in; weights:
    classes weigh the same."""
    max_faces: Annotated[int | None, tyro.conf.arg(metavar="N|None")] = _DATA.max_faces
    """Most faces that the run trains on, chosen once, half of each class where it can be; 16000 as in the reference
    recipe. None: all."""
    augment: Literal["reference", "robust", "none"] = _DATA.augment
    """reference: flips and light transforms; robust: what unseen platforms do to a face as well, JPEG included."""
    synthetic: Literal["none", "self-blended"] = _DATA.synthetic
    """self-blended: train on real faces alone, and on fakes made of them on the fly; where validation or test has no
    fakes of the data, such ones stand in."""
    cache: Literal["memory", "disk", "none"] = _DATA.cache
    """What a worker keeps of its shards between epochs."""
    cache_mb: int = _DATA.cache_mb
    """Most that --cache memory keeps a worker."""

    backend: Literal["tensorflow", "jax"] = _FIT.backend
    """Which backend of Keras trains."""
    epochs: int = _FIT.epochs
    """Most epochs in which the whole network learns (or its last blocks: --unfreeze)."""
    head_epochs: int = _FIT.head_epochs
    """Most epochs before, in which the head alone learns on a frozen pretrained network."""
    optimizer: Literal["sgd", "adam", "nadam", "adamw"] = _FIT.optimizer
    """Of both stages."""
    learning_rate: float = _FIT.learning_rate
    """Largest one while the whole network learns."""
    head_learning_rate: float = _FIT.head_learning_rate
    """Largest one while the head alone learns."""
    momentum: float = _FIT.momentum
    """Of sgd."""
    weight_decay: float = _FIT.weight_decay
    """Decoupled, on kernels alone."""
    label_smoothing: float = _FIT.label_smoothing
    """Share of a label moved to one half."""
    schedule: Literal["cosine", "plateau", "constant"] = _FIT.schedule
    """Of the learning rate, over each stage."""
    plateau_patience: int = _FIT.plateau_patience
    """Epochs without a lower validation loss before the learning rate of --schedule plateau falls."""
    plateau_factor: float = _FIT.plateau_factor
    """What it is then multiplied by."""
    warmup_epochs: float = _FIT.warmup_epochs
    """In which the learning rate rises from 0."""
    patience: Annotated[int | None, shown("N", "never")] = _FIT.patience
    """Stop a stage after so many epochs without a lower validation loss."""
    ema: Annotated[float | None, shown("DECAY", "none")] = _FIT.ema
    """Decay of a moving average of the weights, as 0.999, which is then what is kept; statistics of BatchNorm that is
    trained are those of the last steps."""
    clip_norm: Annotated[float | None, shown("NORM", "none")] = _FIT.clip_norm
    """Largest norm of the gradient over all workers."""
    unfreeze: Annotated[int | Literal["whole"], tyro.conf.arg(metavar="whole|N")] = _FIT.unfreeze
    """What learns after the head: all, or the last N blocks."""

    workers: int = 1
    """Processes that train together, each on its own faces; fixed for a run."""
    gpus_per_worker: float = 0
    """GPUs that each of them gets."""
    cpus_per_worker: Annotated[int | None, shown("N", "this machine's cores shared out; on a cluster 1")] = None
    """Cores that each of them gets."""
    max_failures: int = 3
    """Lost workers or nodes after which the run gives up; each time it goes on from its last checkpoint."""
    keep_checkpoints: int = 2
    """Last checkpoints that stay in OUTPUT; the best weights are in each of them."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch."""
    slices: Annotated[str | None, shown("FILE", "none")] = None
    """CSV or Parquet with a column uri and a column for each way to group clips, such as method or platform: the page
    then has figures of each group. A uri may be shortened to its end, such as a clip's key under INPUT."""
    prevalence: float = 0.01
    """Share of fakes in the world for which the report states the precision."""
    address: Annotated[str | None, shown("ADDRESS", "an embedded Ray")] = None
    """Ray cluster to join: auto or an address."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""
    no_pictures: bool = False
    """Keep no faces in the report, and write no sheet of augmented ones."""

    @property
    def faces(self) -> tuple[str, ...]:
        """Where the faces are."""
        return self.places[:-1]

    @property
    def output(self) -> str:
        """Where the bundle goes."""
        return self.places[-1]

    def split_options(self) -> SplitOptions:
        """Raises `ValueError` for values that cannot be."""
        return SplitOptions(by=self.split, validation=self.validation, test=self.test, seed=self.seed)

    def data_options(self) -> DataOptions:
        """Raises `ValueError` for values that cannot be."""
        return DataOptions(
            batch_size=self.batch_size,
            balance=self.balance,
            max_faces=self.max_faces,
            synthetic=self.synthetic,
            augment=self.augment,
            cache=self.cache,
            cache_mb=self.cache_mb,
            seed=self.seed,
        )

    def network_options(self) -> NetworkOptions:
        """Raises `ValueError` for values that cannot be."""
        return NetworkOptions(
            model=self.model,
            weights=self._weights(),
            features=self.features,
            dense_units=self.dense_units,
            dropout=self.dropout,
            precision=self.precision,
            norms=self.norms,
        )

    def _weights(self) -> str:
        """A file's path without the working directory, which workers do not share."""
        named = self.weights in ("auto", "imagenet", "none")
        return self.weights if named else str(Path(self.weights).expanduser().absolute())

    def fit_options(self) -> FitOptions:
        """Raises `ValueError` for values that cannot be."""
        return FitOptions(
            backend=self.backend,
            epochs=self.epochs,
            head_epochs=self.head_epochs,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            schedule=self.schedule,
            plateau_patience=self.plateau_patience,
            plateau_factor=self.plateau_factor,
            warmup_epochs=self.warmup_epochs,
            patience=self.patience,
            ema=self.ema,
            clip_norm=self.clip_norm,
            unfreeze=self.unfreeze,
            checkpoint_minutes=self.checkpoint_minutes,
            seed=self.seed,
        )

    def shaping(self) -> dict[str, Any]:
        """What may not change under one OUTPUT. The number of workers is of it: lanes are dealt to them."""
        data = {name: value for name, value in asdict(self.data_options()).items() if not name.startswith("cache")}
        fit = {name: value for name, value in asdict(self.fit_options()).items() if name != "checkpoint_minutes"}
        return {
            "split": asdict(self.split_options()),
            "network": asdict(self.network_options()),
            "data": data,
            "fit": fit,
            "workers": self.workers,
            "prevalence": self.prevalence,
            "pictures": not self.no_pictures,
        }

    def check(self) -> None:
        """Refuses what can be refused without looking at any data. Raises `ValueError`."""
        self.shaping()
        weights = self.network_options().source_of_weights
        if self.address is None and weights not in ("imagenet", "none") and not Path(weights).is_file():
            raise ValueError(f"weights: no file at {weights}, expected a file, imagenet, none or auto")
        if not self.epochs and not self.network_options().pretrained:
            raise ValueError(
                f"epochs: got 0 for {self.model} without weights, which has no head to train first; expected 1 or more"
            )
        if len(self.places) < 2:
            got = " ".join(self.places) or "nothing"
            raise ValueError(f"got {got}, expected FACES... OUTPUT: outputs of preprocess, one or more, then a place")
        if self.workers < 1 or self.workers > self.data_options().lanes:
            most = self.data_options().lanes
            raise ValueError(
                f"workers: got {self.workers}, expected 1 to {most} with batches of {self.batch_size} faces"
            )
        if not 0 <= self.gpus_per_worker < math.inf or (self.cpus_per_worker is not None and self.cpus_per_worker < 1):
            raise ValueError(
                f"resources: got {self.gpus_per_worker} GPUs and {self.cpus_per_worker} cores a worker, expected 0 or "
                "more and 1 or more"
            )
        self._check_gpus(self.gpus_per_worker)
        check_slices(self.slices)
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence: got {self.prevalence}, expected a share between 0 and 1")
        if self.max_failures < 0 or self.keep_checkpoints < 1:
            raise ValueError(
                f"got max failures {self.max_failures} and keep checkpoints {self.keep_checkpoints}, expected 0 or "
                "more and 1 or more"
            )

    def _check_gpus(self, gpus: float) -> None:
        """Refuses shares of a GPU, and places, that the backend cannot train on. `gpus`: of each worker."""
        if gpus != int(gpus) and (self.workers > 1 or self.backend == "jax"):
            raise ValueError(
                f"GPUs: got {gpus:g} for each of {self.workers} workers with {self.backend}, expected a whole number: "
                "only a single worker with tensorflow can take a share of one"
            )

    def check_machine(self, gpus: float) -> None:
        """Refuses workers that would run on this machine and cannot. `gpus`: of each. Raises `ValueError`."""
        if self.backend == "jax" and gpus and self.workers > 1 and self.address is None:
            raise ValueError(
                f"workers: got {self.workers} with jax on the GPUs of one machine, expected one worker with all of "
                f"them, {self.workers * gpus:g}"
            )
