"""A bundle and other faces in, what it is worth on them out: predictions, a page with intervals and slices.

fakesift evaluate s3://lab/model/bundle s3://lab/other-faces --output s3://lab/model-on-other --address auto
fakesift evaluate demo/model/bundle demo/faces --output demo/evaluated --allow-seen
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import tyro

from batch.faces.options import digest_of
from batch.model.fingerprint import FINGERPRINT, Fingerprint, Overlap, overlap
from batch.model.fit.engine import use_backend
from batch.model.groups import group_faces
from batch.model.index import load_index, unfinished
from batch.model.judgement import Judgement, predictions_table, worst_mistakes
from batch.model.near_duplicates import find_duplicates
from batch.model.parquet import zstd_parquet
from batch.model.records import FaceIndex, Scores
from batch.model.scan import PREDICTIONS
from batch.model.slices import Slices, of_rows
from batch.shards.runfile import RunFile, check_claim, claim_output, installed_versions, refuse_nested
from batch.shards.summary import SUMMARY
from batch.storage.base import Storage
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.conclude import crops_of, judged
from jobs.console import EXIT_CODES, Exit, begun, guarded, parse, say, shown
from jobs.identities import look_at_faces
from jobs.predict import predict
from jobs.session import check_room, check_seen_by_all, ray_session
from jobs.slicing import check_slices, open_slices, slices_digest
from jobs.train_progress import figures_line

if TYPE_CHECKING:
    from batch.model.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `fakesift evaluate`."""

    places: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE FACES...", help_behavior_hint="(required)")
    ] = ()
    """A bundle, then outputs of `fakesift preprocess`, one or more, whose crops were made as the bundle asks."""
    output: Annotated[str, shown("OUTPUT", "the figures are printed alone")] = ""
    """Folder or s3://bucket/prefix for predictions, page and summary: empty, or made by this command."""
    allow_seen: bool = False
    """Evaluate although the model has seen some of these faces, or of their sources; the page then says so."""
    slices: Annotated[str | None, shown("FILE", "none")] = None
    """CSV or Parquet with a column uri and a column for each way to group clips, such as method or platform: the page
    then has figures of each group. A uri may be shortened to its end, such as a clip's key under INPUT."""
    prevalence: float = 0.01
    """Share of fakes in the world for which the page states the precision."""
    backend: Literal["tensorflow", "jax"] = "tensorflow"
    """Which backend of Keras runs the network."""
    gpus_per_worker: float = 0
    """GPUs of each task; with 0 the network runs on cores."""
    address: Annotated[str | None, shown("ADDRESS", "an embedded Ray")] = None
    """Ray cluster to join: auto or an address."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""
    no_pictures: bool = False
    """Keep no faces in the page."""

    def check(self) -> None:
        """Refuses what can be refused without looking at any data. Raises `ValueError`."""
        if len(self.places) < 2:
            got = " ".join(self.places) or "nothing"
            raise ValueError(f"got {got}, expected BUNDLE FACES...: a bundle, then one or more outputs of preprocess")
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence: got {self.prevalence}, expected a share between 0 and 1")
        check_slices(self.slices)
        if not 0 <= self.gpus_per_worker < math.inf:
            raise ValueError(f"GPUs: got {self.gpus_per_worker} a worker, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What a look at the crops tells of the data."""

    seen: Overlap
    groups: pa.Array
    """Of each face of the index: clips that hang together, copies under other names included."""


def evaluate(options: EvaluateOptions) -> Exit:
    """Runs the job to its end. Raises `ValueError` or `AccessError` for what is wrong before any work starts."""
    options.check()
    use_backend(options.backend)
    from batch.model.bundle import load_bundle

    s3 = S3Options(endpoint=options.s3_endpoint)
    bundle = load_bundle(open_storage(options.places[0], s3))
    sinks = [open_storage(place, s3) for place in options.places[1:]]
    index = load_index(sinks)
    _check_crops(bundle, index)
    labelled = np.flatnonzero(index.labels >= 0)
    if not len(labelled):
        raise ValueError(f"{', '.join(sink.root for sink in sinks)}: no face has a label, expected some to judge by")
    slices = open_slices(options.slices, index, s3)
    for line in unfinished(sinks):
        say(line)
    if unknown := index.table.num_rows - len(labelled):
        say(f"{unknown} of {index.table.num_rows} faces have no label and are left out")
    run = _run(options, sinks, bundle, index, slices)
    output = _output(options, [*sinks, bundle.sink], run, s3)
    with ray_session(options.address, None) as ray:
        places = {f"faces {number}": sink for number, sink in enumerate(sinks, 1)}
        check_seen_by_all(ray, {**places, "bundle": bundle.sink}, None)
        check_room(ray, workers=1, cpus=1, gpus=options.gpus_per_worker, can_grow=options.address is not None)
        with begun():
            looked = _look(ray, bundle, index)
        if len(looked.seen.rows) and not options.allow_seen:
            raise ValueError(
                f"{looked.seen}; such figures say nothing of new data: expected other data, or --allow-seen"
            )
        if output is not None:
            claim_output(output, run)
        with begun():
            scores = predict(ray, bundle, index, labelled, backend=options.backend, gpus=options.gpus_per_worker)
    with begun():
        _tell(options, output, bundle, index, scores, looked, slices)
    return Exit.OK


def _check_crops(bundle: Bundle, index: FaceIndex) -> None:
    """One face path: a model is never shown crops of another kind."""
    wanted, got = asdict(bundle.face_options), asdict(index.face_options)
    # Which frames and how many faces of them are kept does not change a crop.
    for name in ("frames", "faces"):
        wanted.pop(name), got.pop(name)
    if wanted != got:
        unlike = [f"{name} {got[name]}, the bundle's {wanted[name]}" for name in wanted if wanted[name] != got[name]]
        raise ValueError(f"faces were cropped with other options than {bundle.uri} asks for: {'; '.join(unlike)}")


def _run(
    options: EvaluateOptions, sinks: Sequence[Storage], bundle: Bundle, index: FaceIndex, slices: Slices
) -> RunFile:
    shaping: dict[str, Any] = {
        "bundle": bundle.digest,
        "data_digest": index.digest,
        "prevalence": options.prevalence,
        "pictures": not options.no_pictures,
        **slices_digest(options.slices, slices),
    }
    source = " ".join(sink.root for sink in sinks)
    return RunFile(kind="evaluate", input=source, shaping=shaping, versions=installed_versions())


def _output(options: EvaluateOptions, inputs: Sequence[Storage], run: RunFile, s3: S3Options) -> Storage | None:
    """OUTPUT, looked at and not claimed yet: nothing is left in it where the data are refused."""
    if not options.output:
        return None
    output = open_storage(options.output, s3)
    for each in inputs:
        refuse_nested(each, output)
    check_claim(output, run)
    return output


def _look(ray: Any, bundle: Bundle, index: FaceIndex) -> _Looked:
    """Compares all crops with those that the model was trained on, and with each other."""
    if FINGERPRINT not in bundle.files:
        raise ValueError(
            f"{bundle.uri}: no {FINGERPRINT}, expected one, by which data that it was trained on are known"
        )
    fingerprint = Fingerprint.from_parquet(bundle.read(FINGERPRINT))
    say(f"comparing {index.table.num_rows} faces with those that the model was trained on")
    looks = look_at_faces(ray, index)
    duplicates = find_duplicates(index, looks)
    return _Looked(
        seen=overlap(fingerprint, index, looks, duplicates),
        groups=group_faces(index, pairs=duplicates).of_faces(),
    )


def _tell(
    options: EvaluateOptions,
    output: Storage | None,
    bundle: Bundle,
    index: FaceIndex,
    scores: Scores,
    looked: _Looked,
    slices: Slices,
) -> None:
    """Judges, prints, and writes where there is a place to."""
    seen = looked.seen
    table = predictions_table(index, scores, bundle.calibration, groups=looked.groups)
    judgement = Judgement(calibration=bundle.calibration, aggregation=bundle.aggregation, thresholds=bundle.thresholds)
    unknown = index.table.num_rows - len(scores.rows)
    evaluation = judged(table, "evaluated", judgement, options.prevalence, of_rows(slices, scores.rows), unknown)
    print(figures_line("evaluated", evaluation.headline()["videos"]))
    has = "has" if seen.is_sure else "may have"
    warning = f"The model {has} seen some of this data: {seen}." if len(seen.rows) else ""
    if warning:
        print(warning)
    if output is None:
        return
    from batch.reports.train import write_train_report

    mistakes = worst_mistakes(table, threshold=bundle.thresholds.half)
    pictures = not options.no_pictures
    write_train_report(
        output,
        title=f"{bundle.manifest.name} {bundle.digest} on other faces",
        bundle=bundle,
        evaluations=[evaluation],
        pictures=pictures,
        options={
            "bundle": bundle.uri,
            "split it was trained on": bundle.manifest.split_digest,
            "faces": ", ".join(options.places[1:]),
            "versions": installed_versions(),
        },
        mistakes=mistakes,
        crops=crops_of(index, mistakes) if pictures else None,
        warning=warning,
    )
    output.put(PREDICTIONS, zstd_parquet(table))
    summary = {
        "bundle_digest": bundle.digest,
        "split_digest": bundle.manifest.split_digest,
        "predictions_digest": digest_of([float(value) for value in scores.logits]),
        "seen_faces": len(seen.rows),
        "seen_by_name": seen.by_name,
        "seen_by_picture": seen.by_picture,
        "unlabelled_faces": unknown,
        "metrics": {"evaluated": evaluation.headline()},
    }
    output.put(SUMMARY, json.dumps(summary, indent=1).encode())
    print(f"{'page':<12} {output.uri('report.html')}")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(EvaluateOptions, "evaluate", __doc__, argv, EXIT_CODES)
    return guarded(lambda: evaluate(options), "evaluate")


if __name__ == "__main__":
    raise SystemExit(main())
