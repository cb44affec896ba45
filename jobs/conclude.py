"""A trained network with its scores in, a bundle with page and card out: calibrated, judged, and summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.model.calibration import NO_CALIBRATION
from batch.model.evaluation import Evaluation, EvaluationOptions, evaluate_predictions
from batch.model.fingerprint import FINGERPRINT
from batch.model.judgement import (
    Judgement,
    Mistake,
    fit_judgement,
    predictions_table,
    recalibrated,
    worst_mistakes,
)
from batch.model.landmarks import Landmarks, read_landmarks
from batch.model.manifest import Manifest
from batch.model.parquet import zstd_parquet
from batch.model.plan import DataOptions
from batch.model.reader import FaceReader
from batch.model.records import BLENDED, FaceIndex, Split
from batch.model.scan import PREDICTIONS
from batch.model.sheet import SHEET, augmented_sheet
from batch.model.slices import Slices, of_rows
from batch.shards.runfile import RunFile
from batch.storage.base import MissingObjectError, Storage
from jobs.console import begun, say
from jobs.fitting import Trained
from jobs.quiet import import_keras_on_cores
from jobs.splitting import Prepared, note_of_loose_fakes

if TYPE_CHECKING:
    from batch.model.bundle import Bundle

BUNDLE = "bundle/"
_AT_CHANCE = (
    "On validation every score would best be one half: there the network tells fakes from reals no better than chance, "
    "and its scores say next to nothing."
)
_NO_FAKES = (
    "The data has no fakes for {name}: these are self-blended ones, made of its real faces. Figures say how well such "
    "fakes are told, and nothing of any other kind."
)


@begun()
def conclude(
    output: Storage,
    index: FaceIndex,
    prepared: Prepared,
    trained: Trained,
    run: RunFile,
    data: DataOptions,
    slices: Slices,
    *,
    prevalence: float,
    pictures: bool,
) -> dict[str, Any]:
    """Writes predictions, bundle, page and card. Gives what `summary.json` says of them, which the caller puts last.

    Raises:
        RuntimeError: for a shard that was damaged since, weights that no bundle can have, or an OUTPUT that may not
            be written to any more.
    """
    split = prepared.split.table
    columns = {"groups": split["group"].combine_chunks(), "splits": split["split"].combine_chunks()}
    raw = {name: predictions_table(index, scores, NO_CALIBRATION, **columns) for name, scores in trained.scores.items()}
    judgement = fit_judgement(raw[Split.VALIDATION])
    tables = {name: recalibrated(table, judgement.calibration) for name, table in raw.items()}
    loose = note_of_loose_fakes(index, prepared.split, run.shaping["split"]["by"])
    if judgement.calibration.flattened:
        say(_AT_CHANCE)
    notes = [f"{loose}."] * bool(loose) + [_AT_CHANCE] * judgement.calibration.flattened
    evaluations = _evaluations(trained, tables, judgement, prevalence, slices, notes)
    output.put(PREDICTIONS, zstd_parquet(pa.concat_tables(tables.values())))
    bundle = _save(output, index, prepared, trained, run, judgement, evaluations)
    mistakes = worst_mistakes(tables[Split.TEST], threshold=judgement.thresholds.half)
    sheet = _sheet(output, index, prepared, data) if pictures else None
    # Here, since the charts' library takes a second to load.
    from batch.reports.card import write_card
    from batch.reports.train import write_train_report

    told = [evaluations[Split.TEST], evaluations[Split.VALIDATION]]
    counts = prepared.split.counts()
    write_train_report(
        output,
        title=f"A detector trained on {run.input}",
        bundle=bundle,
        evaluations=told,
        pictures=pictures,
        options={**run.shaping, "device": trained.device, "versions": dict(run.versions)},
        history=trained.history,
        split_counts=counts,
        mistakes=mistakes,
        crops=crops_of(index, mistakes, data.seed, read_landmarks(output, index)) if pictures else None,
        contact_sheet=sheet,
        key=f"{BUNDLE}report.html",
    )
    write_card(output, bundle=bundle, evaluations=told, split_counts=counts, key=f"{BUNDLE}MODEL_CARD.md")
    return {
        "bundle_digest": bundle.digest,
        "split_digest": prepared.split.digest,
        "splits": counts,
        "device": trained.device,
        "best_epoch": trained.history[trained.best].epoch,
        "epochs": len(trained.history),
        "metrics": {name: evaluation.headline() for name, evaluation in evaluations.items()},
    }


def _evaluations(
    trained: Trained,
    tables: Mapping[str, pa.Table],
    judgement: Judgement,
    prevalence: float,
    slices: Slices,
    notes: Sequence[str],
) -> dict[str, Evaluation]:
    """Of each split, by its name; with these notes, and one where its fakes were made."""
    found = {}
    for name, table in tables.items():
        scores = trained.scores[name]
        made = judged(table, name, judgement, prevalence, of_rows(slices, scores.rows))
        told = () if scores.made is None else (_NO_FAKES.format(name=name),)
        found[name] = replace(made, notes=(*made.notes, *notes, *told))
    return found


def judged(
    table: pa.Table, name: str, judgement: Judgement, prevalence: float, slices: Slices, unknown: int = 0
) -> Evaluation:
    """The evaluation of calibrated predictions; `slices` have a value for each of them.

    `unknown`: faces without a label that nothing was predicted for.
    """
    return evaluate_predictions(
        table,
        name=name,
        aggregation=judgement.aggregation,
        thresholds=judgement.thresholds,
        options=EvaluationOptions(prevalence=prevalence),
        groups=slices,
        unknown=unknown,
    )


def crops_of(
    index: FaceIndex, mistakes: tuple[Mistake, ...], seed: int = 0, landmarks: Landmarks | None = None
) -> Mapping[str, npt.NDArray[np.uint8]]:
    """Pictures of mistakes, by face; those that were made of real faces with this seed are made again."""
    if not mistakes:
        return {}
    wanted = {mistake.face for mistake in mistakes}
    found = [
        (row, name + kind)
        for row, name in enumerate(index.table["face"].to_pylist())
        for kind in ("", BLENDED)
        if name + kind in wanted
    ]
    rows, made = np.array([row for row, _ in found], np.int64), np.array([name.endswith(BLENDED) for _, name in found])
    with FaceReader(index, DataOptions(cache="none", seed=seed), landmarks=landmarks) as reader:
        images = reader.images(rows, made)
    return {name: image for (_, name), image in zip(found, images, strict=True)}


def _save(
    output: Storage,
    index: FaceIndex,
    prepared: Prepared,
    trained: Trained,
    run: RunFile,
    judgement: Judgement,
    evaluations: Mapping[str, Evaluation],
) -> Bundle:
    import_keras_on_cores()
    from batch.model.bundle import load_keras, save_bundle

    manifest = Manifest(
        name=run.shaping["network"]["model"],
        face_options=index.face_options,
        calibration=judgement.calibration,
        aggregation=judgement.aggregation,
        thresholds=judgement.thresholds,
        data_digest=index.digest,
        split_digest=prepared.split.digest,
        versions=run.versions,
        training=run.shaping,
        metrics={name: evaluation.headline() for name, evaluation in evaluations.items()},
    )
    extras = {FINGERPRINT: prepared.fingerprint}
    model = load_keras(trained.model, "the trained network")
    return save_bundle(output, model, manifest, prefix=BUNDLE, extras=extras)


def _sheet(output: Storage, index: FaceIndex, prepared: Prepared, data: DataOptions) -> bytes:
    """The one that training wrote; a new one where it was taken away."""
    try:
        return output.read(SHEET)
    except MissingObjectError:
        with FaceReader(index, data) as reader:
            sheet = augmented_sheet(reader, index, prepared.split.rows(Split.TRAIN), data)
        output.put(SHEET, sheet)
        return sheet
