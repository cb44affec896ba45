"""Face shards in, a model bundle with its report out: splits without leaks, Ray Train, calibration, evaluation.

fakesift train s3://lab/faces s3://lab/model --address auto --workers 8 --gpus-per-worker 1
fakesift train demo/faces demo/model --model cnn --epochs 4        # a laptop
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batch.model.fit.engine import use_backend
from batch.model.plan import DataOptions, lacks_fakes
from batch.model.records import FaceIndex, Split
from batch.model.sizing import epoch_faces
from batch.model.split import SplitTable
from batch.shards.summary import SUMMARY
from batch.storage.base import Storage
from batch.storage.s3 import S3Options
from jobs.conclude import conclude
from jobs.console import EXIT_CODES, Exit, begun, guarded, parse, say
from jobs.fitting import JUDGED, Placement, Trained, Work, train_on_ray, works_apart
from jobs.landmarks import keep_landmarks
from jobs.networks import Tried, check_networks, check_networks_on_nodes
from jobs.open_faces import open_faces
from jobs.quiet import import_keras_on_cores
from jobs.session import check_room, check_seen_by_all, ray_session
from jobs.splitting import Prepared, prepare
from jobs.train_config import with_config
from jobs.train_options import TrainOptions
from jobs.train_progress import figures_line, train_progress


def train(options: TrainOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before any work starts."""
    options.check()
    options.check_machine(options.gpus_per_worker)
    faces = open_faces(options, "train")
    output = faces.output
    if output.exists(SUMMARY):
        say(f"nothing to do: {output.root} holds a finished run")
        return _tell(output)
    sinks, index, run = faces.sinks, faces.index, faces.run
    side_px = index.face_options.crop.crop_size
    networks = [Tried(options.network_options(), options.unfreeze)]
    use_backend(options.backend)
    import_keras_on_cores()
    if options.address is None:
        check_networks(networks, side_px, options.backend)
    faces.claim()
    with ray_session(options.address, None if options.address else _cores(options)) as ray:
        check_seen_by_all(ray, faces.places, output)
        if options.address is not None:
            check_networks_on_nodes(ray, networks, side_px, options.backend)
        cpus, gpus = options.cpus_per_worker or 1, options.gpus_per_worker
        check_room(
            ray, workers=options.workers, cpus=cpus, gpus=gpus, can_grow=options.address is not None,
            apart=works_apart(options.backend, options.workers, gpus),
        )  # fmt: skip
        if there := 0 if gpus else ray.cluster_resources().get("GPU", 0):
            say(f"training on cores: there are {there:g} GPUs, and --gpus-per-worker asks for none")
        with begun():
            prepared = _prepare(ray, options, index, output)
            trained = _fit(ray, options, sinks, output, index)
    data, pictures = options.data_options(), not options.no_pictures
    summary = conclude(
        output, index, prepared, trained, run, data, faces.slices, prevalence=options.prevalence, pictures=pictures
    )
    with begun():
        output.put(SUMMARY, json.dumps(summary, indent=1).encode())
        return _tell(output)


def _prepare(ray: Any, options: TrainOptions, index: FaceIndex, output: Storage) -> Prepared:
    """The split, and the landmarks of the faces that fakes are made of."""
    if options.synthetic == "none":
        prepared = prepare(ray, options.split_options(), index, output)
        print_counts(prepared.split)
        _print_epoch(prepared.split, options.data_options())
        return prepared
    prepared = prepare(ray, options.split_options(), index, output, needs_fakes=False)
    print_counts(prepared.split)
    data = options.data_options()
    _print_epoch(prepared.split, data)
    blended = [name for name in JUDGED if lacks_fakes(index, prepared.split.rows(name), data)]
    if blended:
        say(f"{' and '.join(blended)} without fakes: judged by self-blended ones, made of the real faces")
    rows = [prepared.split.rows(name) for name in (Split.TRAIN, *blended)]
    keep_landmarks(ray, index, np.concatenate(rows), output)
    return prepared


def _cores(options: TrainOptions) -> int:
    return max(os.cpu_count() or 1, options.workers * (options.cpus_per_worker or 1))


def _fit(ray: Any, options: TrainOptions, sinks: Sequence[Storage], output: Storage, index: FaceIndex) -> Trained:
    """Trains, and shows how far it is."""
    shared_out = 1 if options.address else max(1, (os.cpu_count() or 1) // options.workers)
    path, file_system = ray_place(output, options.s3_endpoint)
    work = Work(
        sinks=sinks,
        output=output,
        data_digest=index.digest,
        network=options.network_options(),
        data=options.data_options(),
        fit=options.fit_options(),
        sheet=not options.no_pictures,
    )
    placement = Placement(
        workers=options.workers,
        cpus=options.cpus_per_worker or shared_out,
        gpus=options.gpus_per_worker,
        max_failures=options.max_failures,
        keep_checkpoints=options.keep_checkpoints,
        storage_path=path,
        file_system=file_system,
    )
    heads = options.head_epochs if work.network.pretrained else 0
    with train_progress({"head": heads, "whole": options.epochs}, output) as shown:
        trained = train_on_ray(ray, work, placement, shown.tell)
        shown.settle(trained.history)
    return trained


def ray_place(output: Storage, endpoint: str | None) -> tuple[str, Any]:
    """OUTPUT as Ray Train takes it: a path, and for S3 a file system."""
    if output.is_local:
        return output.root, None
    from batch.storage.s3_arrow import S3ArrowFileSystem

    return output.root.removeprefix("s3://"), S3ArrowFileSystem(S3Options(endpoint=endpoint))


def print_counts(split: SplitTable) -> None:
    """Faces by split and class."""
    for name, counts in split.counts().items():
        if any(counts.values()):
            shown = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
            print(f"{name:<12} {shown}")


def _print_epoch(split: SplitTable, data: DataOptions) -> None:
    """How many faces it takes."""
    train = split.counts()[Split.TRAIN]
    faces = epoch_faces(train["real"], train["fake"], data)
    made = ", half of them self-blended" if data.synthetic != "none" else ""
    kept, all_faces = data.max_faces, train["real"] + train["fake"]
    drawn = f", of {kept} chosen once (--max-faces)" if kept is not None and kept < all_faces else ""
    print(f"{'an epoch':<12} {faces} faces{made}{drawn}")


def _tell(output: Storage) -> Exit:
    """Prints what a finished run found."""
    summary: Mapping[str, Any] = json.loads(output.read(SUMMARY))
    for name, levels in summary["metrics"].items():
        print(figures_line(name, levels["videos"]))
    print(f"{'bundle':<12} {output.uri('bundle/')}   {summary['bundle_digest']}")
    print(f"{'page':<12} {output.uri('bundle/report.html')}")
    return Exit.OK


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    try:
        default = with_config(TrainOptions, argv)
    except ValueError as error:
        say(f"fakesift train: {error}")
        return Exit.USAGE
    options = parse(TrainOptions, "train", __doc__, argv, EXIT_CODES, default)
    try:
        return guarded(lambda: train(options), "train")
    except KeyboardInterrupt:
        say("interrupted; the last checkpoint stays; go on with the same command")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
