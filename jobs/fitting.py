"""Faces and their split in, a trained network out: `batch.model.fit` in the workers of Ray Train.

Checkpoints lie under OUTPUT/checkpoints, in Ray Train's own layout. A lost worker or node restarts the workers from the
last one; a driver that died goes on from it when the same command runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batch.model.fit.options import FitOptions
from batch.model.index import load_index
from batch.model.network import NetworkOptions, device_name
from batch.model.plan import DataOptions, Rows
from batch.model.records import EpochRecord, Scores, Split
from batch.model.split import SPLITS, SplitTable
from batch.storage.base import Storage
from jobs.board import Told, open_board
from jobs.checkpoints import CHECKPOINTS, Checkpoints, Restored
from jobs.predict import keras_environment

JUDGED = (Split.VALIDATION, Split.TEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that a training process must know."""

    sinks: Sequence[Storage]
    """Outputs of preprocessing."""
    output: Storage
    data_digest: str
    network: NetworkOptions
    data: DataOptions
    fit: FitOptions
    judged: tuple[Split, ...] = JUDGED
    """Splits that the best epoch's network scores at the end."""
    sheet: bool = False
    """Whether a sheet of augmented faces is written to OUTPUT, with the first step: in time to stop a run that is
    shown the wrong ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where it runs."""

    workers: int
    cpus: int
    """Of each worker."""
    gpus: float
    """Of each worker."""
    max_failures: int
    keep_checkpoints: int
    storage_path: str
    """Folder, or `bucket/prefix` with a file system."""
    file_system: Any
    """pyarrow's S3 file system, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the first worker gives back."""

    model: bytes
    """The best epoch's network as a `.keras` file, in float32."""
    history: tuple[EpochRecord, ...]
    best: int
    """Place of the best epoch in the history."""
    scores: dict[str, Scores]
    """By split: those of `Work.judged`."""
    device: str
    """As TensorFlow or JAX calls it."""


class LostWorkersError(RuntimeError):
    """Workers were lost, or failed, more often than a run allows: started again, it may yet get further."""


def train_on_ray(ray: Any, work: Work, placement: Placement, tell: Callable[[Told], None]) -> Trained:
    """Trains to the end. `tell` is called in this process with steps and epochs as they come.

    Raises:
        RuntimeError: where training failed for good, with the cause in one line.
    """
    import ray.train

    # Which classes these are depends on the version of Ray Train: its stubs know the old one alone.
    settings: Any = ray.train
    checkpoints = Checkpoints(storage_path=placement.storage_path, file_system=placement.file_system)
    checkpoints.drop_broken_list()
    with open_board(ray, tell) as board:
        environment = keras_environment(work.fit.backend, placement.gpus, placement.cpus)
        trainer = _trainer(work.fit.backend)(
            _train,
            train_loop_config={"work": work, "checkpoints": checkpoints, "board": board.actor},
            scaling_config=settings.ScalingConfig(**scaling(work.fit.backend, placement)),
            run_config=settings.RunConfig(
                name=CHECKPOINTS,
                storage_path=placement.storage_path,
                storage_filesystem=placement.file_system,
                checkpoint_config=settings.CheckpointConfig(num_to_keep=placement.keep_checkpoints),
                failure_config=settings.FailureConfig(max_failures=placement.max_failures),
                worker_runtime_env={"env_vars": environment},
            ),
            **_backend_config(work.fit.backend),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            why = board.why_failed()
            raise (RuntimeError(why) if why else LostWorkersError(_cause(error))) from error
        trained: Trained | None = result.return_value
        if trained is None:
            raise RuntimeError(board.why_failed() or "training ended without a model")
    checkpoints.sweep([kept.path for kept, _ in result.best_checkpoints])
    return trained


def works_apart(backend: str, workers: int, gpus: float) -> bool:
    """Whether each worker must have a node to itself: see `scaling`."""
    return backend == "jax" and gpus > 0 and workers > 1


def scaling(backend: str, placement: Placement) -> dict[str, Any]:
    """How many workers, what each gets, and where, as Ray Train's `ScalingConfig` takes it.

    Ray 2.60's JaxTrainer counts a worker's GPUs as whole numbers from 0 on, whichever Ray gave it: so on GPUs each of
    its workers has a node to itself.
    """
    gpus = int(placement.gpus) if placement.gpus == int(placement.gpus) else placement.gpus
    apart = works_apart(backend, placement.workers, gpus)
    return {
        "num_workers": placement.workers,
        "use_gpu": gpus > 0,
        "resources_per_worker": {"CPU": placement.cpus, **({"GPU": gpus} if gpus else {})},
        "placement_strategy": "STRICT_SPREAD" if apart else "PACK",
    }


def _trainer(backend: str) -> Any:
    if backend == "jax":
        from ray.train.v2.jax import JaxTrainer

        return JaxTrainer
    from ray.train.tensorflow import TensorflowTrainer

    return TensorflowTrainer


def _backend_config(backend: str) -> dict[str, Any]:
    if backend != "jax":
        return {}
    from ray.train.v2.jax import JaxConfig

    # On CPUs too: JAX_PLATFORMS says which device; without a device named here the processes would not be joined.
    return {"jax_config": JaxConfig(use_gpu=True)}


def _cause(error: BaseException) -> str:
    """What went wrong on the workers, without Ray's traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    if failures:
        rank, failure = sorted(failures.items())[0]
        cause = getattr(failure, "cause", None) or failure
        return f"training failed on worker {rank}: {_last_line(cause)}"
    return f"training failed: {_last_line(error)}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _train(config: dict[str, Any]) -> Trained | None:
    """On each worker: Ray Train calls it again after a failure, and once more for a run that had ended.

    What no restart can mend is pinned to the board, so that the restarted workers end at once.
    """
    import ray

    board = config["board"]
    if ray.get(board.failed.remote()):
        return None
    from batch.model.fit.loop import TrainingDivergedError

    try:
        return _fit(config["work"], config["checkpoints"], board)
    except (ValueError, TrainingDivergedError) as error:
        ray.get(board.fail.remote(str(error)))
        raise


def _fit(work: Work, checkpoints: Checkpoints, board: Any) -> Trained | None:
    import ray.train

    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    threads = use_threads(work.fit.backend)
    from batch.model.augment import augmentation
    from batch.model.bundle import keras_bytes
    from batch.model.fit.feed import ReaderFeed
    from batch.model.fit.loop import Hooks, fit
    from batch.model.landmarks import read_landmarks
    from batch.model.reader import FaceReader
    from batch.model.sheet import SHEET, augmented_sheet

    index = load_index(work.sinks)
    if index.digest != work.data_digest:
        raise ValueError(f"faces: the data changed while training: digest {index.digest}, expected {work.data_digest}")
    split = SplitTable.from_parquet(work.output.read(SPLITS))
    landmarks = read_landmarks(work.output, index) if work.data.synthetic == "self-blended" else None
    with (
        FaceReader(index, work.data, rank, workers, threads=threads, landmarks=landmarks) as reader,
        checkpoints.restored() as start,
    ):
        if start.damaged:
            board.put.remote(_passed_over(start))
        feed = ReaderFeed(reader, index, split.rows(Split.TRAIN), split.rows(Split.VALIDATION), work.data)
        augment = augmentation(work.data.augment)

        def write_sheet() -> None:
            if work.sheet and not rank and not work.output.exists(SHEET):
                work.output.put(SHEET, augmented_sheet(reader, index, split.rows(Split.TRAIN), work.data))

        hooks = _hooks(board, rank, Hooks, write_sheet)
        result = fit(work.network, feed, work.fit, hooks=hooks, restore=start.folder, augment=augment)
        scores = _scored(result, feed, [split.rows(name) for name in work.judged])
    if rank:
        return None
    return Trained(
        model=keras_bytes(result.model()),
        history=result.history,
        best=result.best,
        scores=dict(zip(map(str, work.judged), scores, strict=True)),
        device=device_name(),
    )


def _passed_over(start: Restored) -> str:
    """What to tell of checkpoints that are not whole."""
    instead = "going on from the furthest one before" if start.folder else "none is whole: training begins anew"
    return f"not whole, as a worker that died or a disk leaves them: {', '.join(start.damaged)}; {instead}"


def _scored(result: Any, feed: Any, several: Sequence[Rows]) -> list[Scores]:
    """Of splits' faces (collective). Of those that the feed makes fakes of, label 1 tells the fake from its face."""
    found = result.saved_scores(*map(feed.scan, several))
    return [
        replace(each.scores, made=each.labels == 1) if feed.lacks_fakes(rows) else each.scores
        for each, rows in zip(found, several, strict=True)
    ]


def use_threads(backend: str) -> int | None:
    """Cores as they were given: two workers on one machine would otherwise each take all.

    Gives how many decoders may run beside; None for as many as there are cores, which a GPU needs.
    """
    import ray

    context: Any = ray.get_runtime_context()
    given = context.get_assigned_resources()
    cores = max(1, int(given.get("CPU", 1)))
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(cores)
    return None if given.get("GPU") else cores


def _hooks(board: Any, rank: int, hooks: Any, begun: Callable[[], None]) -> Any:
    """Steps and epochs go to the driver's board from the first worker; checkpoints to Ray Train from all.

    `begun` is called with the first step.
    """
    import ray.train

    steps = 0

    def on_step(report: Told) -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            begun()
        tell(report)

    def tell(told: Told) -> None:
        if not rank:
            board.put.remote(told)

    def on_checkpoint(folder: Path | None, record: EpochRecord | None) -> None:
        checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(folder)
        metrics = {} if record is None else {"epoch": record.epoch, "loss": record.loss, **record.validation}
        ray.train.report(metrics, checkpoint=checkpoint)

    return hooks(on_step=on_step, on_epoch=tell, on_checkpoint=on_checkpoint)
