"""One trial, in a process of Ray Tune: the training function of `fakesift train`, on what trials share.

It keeps its own checkpoints and its own end under OUTPUT/trials/<id>, so that a trial that was killed, or whose driver
was, goes on from its last epoch, and one that ended never runs again, whatever Ray remembers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.model.network import device_name
from batch.model.plan import Rows, plan_epoch
from batch.model.records import EpochRecord, FaceIndex, Split
from batch.model.tuning.recipe import Recipe
from batch.model.tuning.records import Progress, Status, Trial, TrialResult
from batch.model.tuning.sharing import group_of
from batch.model.tuning.store import Start, TrialStore, packed
from batch.storage.base import Storage
from jobs.console import say
from jobs.fitting import Placement, Work, train_on_ray, use_threads
from jobs.predict import keras_environment
from jobs.tune_options import Resources

if TYPE_CHECKING:
    from batch.model.crops import DecodedFaces
    from batch.model.fit.frozen import Features
    from batch.model.fit.loop import FitResult, Hooks
    from batch.model.landmarks import Landmarks


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBlocks:
    """Arrays in Ray's object store, one after another, with what they are of."""

    ids: Rows
    """Rows of the index, or ids of `frozen.face_id`; ascending."""
    blocks: Sequence[Any]
    """References to arrays of shape (n, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """All that a trial must know beside its configuration."""

    sinks: Sequence[Storage]
    output: Storage
    index: FaceIndex
    train: Rows
    validation: Rows
    recipe: Recipe
    resources: Resources
    workers: int
    max_failures: int
    storage_path: str
    """OUTPUT as Ray Train takes it."""
    file_system: Any
    faces: SharedBlocks | None
    """Decoded crops."""
    features: Mapping[str, Mapping[int, SharedBlocks]]
    """By group (`sharing.group_of`) and epoch."""
    landmarks: Any
    """Reference to the table of `jobs.landmarks`; None where no trial makes fakes of its own."""


def run_trial(config: Mapping[str, Any], context: TrialContext) -> None:
    """Trains to the end; called again after a lost process. What no repetition can mend ends the trial as failed."""
    trial = Trial.from_json(config["trial"])
    running = Running(trial, context)
    if running.store.result() is not None:
        return
    running.begin()
    try:
        if context.workers > 1:
            _on_workers(running)
        else:
            _alone(running)
    except Exception as error:
        reason = final_reason(error)
        if not reason:
            raise
        running.fail(reason)


class Running:
    """A trial under way: its clock, its history, its files."""

    def __init__(self, trial: Trial, context: TrialContext) -> None:
        self.trial, self.context = trial, context
        self.recipe = context.recipe.changed(trial.configuration, trial.seed)
        self.store = TrialStore(context.output, trial.id)
        self._before = self.store.progress()
        self._history = list(self._before.history)
        self._started = time.monotonic()
        self._works = True

    def begin(self) -> None:
        """Counts the attempt."""
        self._before = replace(self._before, attempts=self._before.attempts + 1)
        self.store.tell(self._before)

    def wait(self) -> None:
        """Stops the clock until `works`: what workers wait for room is no cost of the trial."""
        self._works = False

    def works(self, seconds: float) -> None:
        """Starts the clock, if it stands, so long ago."""
        if not self._works:
            self._works, self._started = True, time.monotonic() - seconds

    def epoch(self, record: EpochRecord) -> None:
        """Keeps how far it is, and tells Tune, which may end the process within the call."""
        from ray import tune

        self._history = [earlier for earlier in self._history if earlier.epoch < record.epoch] + [record]
        seconds = self._before.seconds + time.monotonic() - self._started
        self.store.tell(replace(self._before, history=tuple(self._history), seconds=seconds))
        if not self._is_over():
            tune.report({"epoch": record.epoch, **record.validation})

    def end(self, *, history: tuple[EpochRecord, ...], best: int, weights: bytes, device: str, shared: str) -> None:
        """Keeps the end; the last epoch is told to Tune after it, whose scheduler could stop the trial for it."""
        from ray import tune

        done = self._result(Status.FINISHED, "", history)
        self.store.end(replace(done, best=best, device=device, shared=shared), weights)
        tune.report({"epoch": len(history), **history[-1].validation})

    def fail(self, reason: str) -> None:
        """Keeps the end of a trial that cannot finish."""
        self.store.end(self._result(Status.FAILED, reason, tuple(self._history)))

    def _is_over(self) -> bool:
        from batch.model.fit.schedules import current_stage

        return current_stage(self._history, self.recipe.fit, self.recipe.network.pretrained) is None

    def _result(self, status: Status, reason: str, history: tuple[EpochRecord, ...]) -> TrialResult:
        resources = self.context.resources
        return ended(
            self.trial,
            status,
            reason,
            replace(self._before, history=history, seconds=self._before.seconds + time.monotonic() - self._started),
            resources,
        )


def ended(trial: Trial, status: Status, reason: str, progress: Progress, resources: Resources) -> TrialResult:
    """The end of a trial that came so far."""
    from batch.model.fit.schedules import best_epoch

    return TrialResult(
        trial=trial,
        status=status,
        reason=reason,
        history=progress.history,
        best=best_epoch(progress.history),
        seconds=progress.seconds,
        attempts=progress.attempts,
        cpus=resources.cpus,
        gpus=resources.gpus,
    )


def _alone(running: Running) -> None:
    """In this process."""
    context, recipe = running.context, running.recipe
    _use_device(recipe, context.resources)
    features = _features(running)
    if features is not None:
        _on_features(running, features)
    else:
        _on_pixels(running)


def _on_features(running: Running, features: Mapping[int, Features]) -> None:
    """The head alone."""
    from batch.model.fit.frozen import FeatureFeed, build_head
    from batch.model.fit.loop import fit

    context, recipe = running.context, running.recipe
    side = context.index.face_options.crop.crop_size
    feed = FeatureFeed(side, context.index, context.train, context.validation, recipe.data, features.__getitem__)
    with running.store.restored("features") as folder:
        result = fit(
            recipe.network, feed, recipe.fit, hooks=_hooks(running, "features"), restore=folder, build=build_head
        )
    _end(running, result, "features")


def _on_pixels(running: Running) -> None:
    """The whole network, on decoded faces if they are shared."""
    from batch.model.augment import augmentation
    from batch.model.fit.feed import ReaderFeed
    from batch.model.fit.loop import fit
    from batch.model.reader import FaceReader

    context, data = running.context, running.recipe.data
    faces = _faces(running)
    threads = max(1, int(context.resources.cpus))
    landmarks = shared_landmarks(context.landmarks, context.index) if data.synthetic == "self-blended" else None
    with (
        FaceReader(context.index, data, threads=threads, source=faces, landmarks=landmarks) as reader,
        running.store.restored("pixels") as folder,
    ):
        feed = ReaderFeed(reader, context.index, context.train, context.validation, data)
        augment = augmentation(data.augment)
        hooks = _hooks(running, "pixels")
        result = fit(running.recipe.network, feed, running.recipe.fit, hooks=hooks, restore=folder, augment=augment)
    _end(running, result, "" if faces is None else "pixels")


def _end(running: Running, result: FitResult, shared: str) -> None:
    running.end(
        history=result.history, best=result.best, weights=packed(result.weights), device=device_name(), shared=shared
    )


def _hooks(running: Running, start: Start) -> Hooks:
    from batch.model.fit.loop import Hooks

    def on_checkpoint(folder: Path | None, record: EpochRecord | None) -> None:
        if folder is not None:
            running.store.save(start, folder)
        if record is not None:
            running.epoch(record)

    return Hooks(on_checkpoint=on_checkpoint)


def _on_workers(running: Running) -> None:
    """In processes of Ray Train, which keeps the checkpoints."""
    import ray

    context, recipe = running.context, running.recipe
    prefix = running.store.prefix.rstrip("/")
    work = Work(
        sinks=context.sinks, output=context.output, data_digest=context.index.digest, network=recipe.network,
        data=recipe.data, fit=recipe.fit, judged=(Split.VALIDATION,),
    )  # fmt: skip
    placement = Placement(
        workers=context.workers, cpus=max(1, int(context.resources.cpus // context.workers)),
        gpus=context.resources.gpus / context.workers, max_failures=context.max_failures, keep_checkpoints=1,
        storage_path=f"{context.storage_path.rstrip('/')}/{prefix}", file_system=context.file_system,
    )  # fmt: skip

    def tell(news: Any) -> None:
        if isinstance(news, str):
            say(news)
            return
        running.works(news.seconds if isinstance(news, EpochRecord) else 0.0)
        if isinstance(news, EpochRecord):
            running.epoch(news)

    running.wait()
    trained = train_on_ray(ray, work, placement, tell)
    running.end(history=trained.history, best=trained.best, weights=trained.model, device=trained.device, shared="")


def _use_device(recipe: Recipe, resources: Resources) -> None:
    """What must be set before keras is imported; the process may have run another trial before, to the same effect."""
    from batch.model.fit.engine import use_backend

    os.environ.update(keras_environment(recipe.fit.backend, resources.gpus, resources.cores))
    use_backend(recipe.fit.backend)
    use_threads(recipe.fit.backend)
    import keras

    # Of the trial before: its graphs would stay in this process's memory.
    keras.utils.clear_session()


def _features(running: Running) -> Mapping[int, Features] | None:
    """Of the trial's group; None where nobody computed them, or they were lost with a node."""
    import ray

    from batch.model.fit.frozen import Features

    shared = running.context.features.get(group_of(running.recipe) or "")
    if shared is None:
        return None
    try:
        return {epoch: Features(ids=each.ids, blocks=ray.get(list(each.blocks))) for epoch, each in shared.items()}
    except ray.exceptions.RayError:
        return None


def _faces(running: Running) -> DecodedFaces | None:
    """None where nobody decoded all that the trial looks at, or they were lost with a node."""
    import ray

    from batch.model.crops import DecodedFaces

    context = running.context
    if context.faces is None:
        return None
    try:
        faces = DecodedFaces(context.faces.ids, ray.get(list(context.faces.blocks)))
    except ray.exceptions.RayError:
        return None
    pool = plan_epoch(context.index, context.train, running.recipe.data, 1).pool
    return faces if faces.holds(pool) and faces.holds(context.validation) else None


def shared_landmarks(reference: Any, index: FaceIndex) -> Landmarks | None:
    """Those of the table; None where there is no table, or it was lost with a node."""
    import ray

    from batch.model.landmarks import Landmarks

    if reference is None:
        return None
    landmarks = Landmarks(index)
    try:
        landmarks.add(ray.get(reference))
    except ray.exceptions.RayError:
        return None
    return landmarks


def final_reason(error: BaseException) -> str:
    """Why the trial cannot finish; empty for what may go away, such as a lost process (`LostWorkersError`)."""
    from batch.model.fit.loop import TrainingDivergedError

    text = " ".join(str(error).split())
    exhausted = type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in text
    if exhausted or isinstance(error, MemoryError):
        return f"out of memory: {text[:300] or type(error).__name__}"
    if isinstance(error, (ValueError, TrainingDivergedError)) or type(error) is RuntimeError:
        return text
    return ""
