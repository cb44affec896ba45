"""Accuracy, AUC and log-loss on face swaps that nobody has seen, and on real clips: the models of the README beside.

    python tests/benchmarks/accuracy.py                                   # 2 cores: an hour and a half
    python tests/benchmarks/accuracy.py --rows cnn frozen-last frozen     # of that, half an hour
    python tests/benchmarks/accuracy.py --faces 600 --rows cnn --epochs 2  # a first look
    KERAS_BACKEND=jax python tests/benchmarks/accuracy.py --backend jax --faces 6000 --learn 0   # with a GPU

`swaps.py` makes the data from the photographs of `../shared/utkface`; the project's own index, near-duplicates, split
by source, reader, `fit` and evaluation do the rest. Rows: `cnn`, from scratch; `frozen-last` and `frozen`, the head
alone on Xception's features (last, and of several depths); `whole`, fine-tuned; `self-blended`, fine-tuned on fakes
made of the real photographs, no fake seen, and `cnn-blended` the small network likewise. Each of them also scores the
real clips of `../shared/corpus`, and `clips` learns on those alone, everybody who shares a clip with the tested person
left out.

The epoch of the lowest validation loss counts, or the last one where no fake may be seen. The log-loss is of the
network's own probabilities, before calibration. Intervals are 95%, by a bootstrap over pairs of people (of clips: over
groups that share nobody).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.model.aggregate import Aggregation  # noqa: E402
from batch.model.calibration import NO_CALIBRATION  # noqa: E402
from batch.model.evaluation import Evaluation, Level, evaluate_predictions  # noqa: E402
from batch.model.fit.engine import use_backend  # noqa: E402
from batch.model.fit.options import FitOptions  # noqa: E402
from batch.model.index import load_index  # noqa: E402
from batch.model.judgement import predictions_table  # noqa: E402
from batch.model.near_duplicates import find_duplicates, gather_looks, look_at_shards  # noqa: E402
from batch.model.network import NetworkOptions, device_name  # noqa: E402
from batch.model.plan import DataOptions, Rows  # noqa: E402
from batch.model.reader import FaceReader  # noqa: E402
from batch.model.records import EpochRecord, FaceIndex, Scores, Split  # noqa: E402
from batch.model.split import SplitOptions, SplitTable, make_split  # noqa: E402
from batch.model.thresholds import Thresholds  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.benchmarks.frozen_head import Floats, FrozenNetwork  # noqa: E402
from tests.benchmarks.real_clips import people_groups, write_clips  # noqa: E402
from tests.benchmarks.swaps import write_swaps  # noqa: E402

WEIGHTS = ROOT.parent / "shared" / "weights" / "xception_imagenet_notop.weights.h5"
REFERENCE = "The reference's 49.6% (CNN) and 82.7% (Xception) accuracy: other data, not comparable."

Scorer = Callable[[FaceIndex, Rows], Scores]
"""From faces of an index to their logits."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model and what it is held to."""

    side: int
    network: NetworkOptions
    data: DataOptions
    fit: FitOptions
    target: str
    """The issue's: accuracy, AUC."""
    facts: str
    """What a first try reached: accuracy / AUC / log-loss on swaps; video AUC on FaceForensics++."""
    slow: bool = False
    """Learns from `--learn` faces alone."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Swaps of one size, and their split."""

    index: FaceIndex
    split: SplitTable


_XCEPTION = NetworkOptions(model="xception", weights=str(WEIGHTS))
_PLAIN = DataOptions(augment="none")
_HEAD = FitOptions(head_epochs=60, epochs=0, head_learning_rate=3e-3)
_SCALED_HEAD = replace(_HEAD, head_learning_rate=1e-3)
_TUNED = replace(_XCEPTION, features="multi", precision="mixed", norms="trained")
_WHOLE = FitOptions(head_epochs=0, epochs=12, learning_rate=2e-4, warmup_epochs=0.5)
# The learning rate of FaceForensics++ (Roessler et al. 2019) for Xception, which trained its BatchNorm, too.
_BLENDED = FitOptions(head_epochs=0, epochs=14, learning_rate=2e-4, warmup_epochs=0.5, clip_norm=1.0)
ROWS = {
    "cnn": Row(
        side=128, network=NetworkOptions(model="cnn"), data=DataOptions(augment="reference"),
        fit=FitOptions(epochs=40, learning_rate=1e-3), target="0.80", facts="0.82 / 0.89 / 0.43",
    ),
    "frozen-last": Row(
        side=224, network=_XCEPTION, data=_PLAIN, fit=_HEAD, target="", facts="0.82 / 0.91 / 0.40; clips 0.5",
    ),
    "frozen": Row(
        side=224, network=replace(_XCEPTION, features="multi"), data=_PLAIN, fit=_SCALED_HEAD,
        target="0.93", facts="0.94 / 0.98 / 0.17; clips 0.5",
    ),
    "whole": Row(
        side=224, network=_TUNED, data=DataOptions(augment="robust"), fit=_WHOLE,
        target="0.985, AUC 0.999", facts="0.990 / 1.000 / 0.027; clips 0.59", slow=True,
    ),
    "self-blended": Row(
        side=160, network=replace(_XCEPTION, precision="mixed", norms="trained"),
        data=DataOptions(synthetic="self-blended"), fit=_BLENDED,
        target="0.90", facts="0.903 / 0.964 / 0.237; clips 0.75", slow=True,
    ),
    "cnn-blended": Row(
        side=128, network=NetworkOptions(model="cnn"),
        data=DataOptions(synthetic="self-blended", augment="reference"),
        fit=FitOptions(epochs=40, learning_rate=1e-3), target="", facts="",
    ),
}  # fmt: skip
CLIPS_ROW = "clips"


def make_data(folder: Path, faces: int, sides: list[int], seed: int, *, refined: bool) -> dict[int, Data]:
    """Swaps in each of the sizes, on disk under `folder`, indexed and split."""
    sinks = {side: LocalStorage(str(folder / str(side))) for side in sides}
    write_swaps(sinks, faces, seed, refined=refined)
    made = {}
    for side, sink in sinks.items():
        index = load_index([sink])
        duplicates = find_duplicates(index, gather_looks(index, look_at_shards(index)))
        split = make_split(index, SplitOptions(by="source", seed=seed), duplicates=duplicates)
        made[side] = Data(index=index, split=split)
    return made


def trained_whole(row: Row, data: Data) -> Scorer:
    """By `fit`; gives what scores."""
    from batch.model.augment import augmentation
    from batch.model.fit.feed import ReaderFeed
    from batch.model.fit.loop import Hooks, fit

    held_out = None if row.data.synthetic != "none" else data.split.rows(Split.VALIDATION)
    augment = augmentation(row.data.augment)
    with FaceReader(data.index, row.data) as reader:
        feed = ReaderFeed(reader, data.index, data.split.rows(Split.TRAIN), held_out, row.data)
        result = fit(row.network, feed, row.fit, hooks=Hooks(on_epoch=_tell), augment=augment)

    def score(index: FaceIndex, rows: Rows) -> Scores:
        with FaceReader(index, _PLAIN) as reader:
            return result.score(ReaderFeed(reader, index, rows, None, _PLAIN).scan(rows)).scores

    return score


def trained_head(row: Row, data: Data) -> Scorer:
    """On features that are computed once; gives what scores."""
    frozen = FrozenNetwork(row.network, row.side, row.fit.seed)

    def features(index: FaceIndex, rows: Rows) -> Floats:
        with FaceReader(index, _PLAIN) as reader:
            return frozen.features(reader, index, rows)

    train, held_out = (data.split.rows(split) for split in (Split.TRAIN, Split.VALIDATION))
    known = np.concatenate([train, held_out])
    spread = np.zeros((data.index.table.num_rows, frozen.width), np.float32)
    spread[known] = features(data.index, known)
    frozen.train_head(spread, data.index, train, held_out, row.data, row.fit)
    return lambda index, rows: frozen.scores(features(index, rows), rows)


def left_out_one_by_one(row: Row, clips: FaceIndex, groups: pa.Array) -> Scores:
    """Each group of people scored by a head that learnt on all others."""
    frozen = FrozenNetwork(row.network, row.side, row.fit.seed)
    every = np.arange(clips.table.num_rows)
    with FaceReader(clips, _PLAIN) as reader:
        features = frozen.features(reader, clips, every)
    logits, names = np.zeros(len(every), np.float32), np.asarray(groups.to_pylist())
    for name in np.unique(names):
        others, own = every[names != name], every[names == name]
        frozen.train_head(features, clips, others, others, row.data, row.fit)
        logits[own] = frozen.logits(features[own])
    return Scores(rows=every, logits=logits)


def judged(index: FaceIndex, scores: Scores, groups: pa.Array, name: str) -> Evaluation:
    """By the project's own evaluation, uncalibrated."""
    table = predictions_table(index, scores, NO_CALIBRATION, groups=groups)
    return evaluate_predictions(table, name=name, aggregation=Aggregation(), thresholds=Thresholds())


def shown(level: Level, name: str) -> str:
    """A figure with its interval."""
    metric = level.metrics[name]
    if metric.value is None:
        return metric.reason
    limits = "" if metric.low is None else f" [{metric.low:.3f}, {metric.high:.3f}]"
    return f"{metric.value:.3f}{limits}"


def line(*cells: str) -> str:
    """A row of the table."""
    widths = (13, 7, 21, 21, 21, 21, 7, 17)
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)) + " " + " ".join(cells[8:])


def run_row(name: str, row: Row, data: Data, clips: FaceIndex | None) -> None:
    """Trains, scores the test split and the clips, and prints a line."""
    started = time.perf_counter()
    score = (trained_whole if row.fit.epochs else trained_head)(row, data)
    test = data.split.rows(Split.TEST)
    groups = data.split.table["group"]
    faces = judged(data.index, score(data.index, test), groups, "test").faces
    on_clips = ""
    if clips is not None:
        every = np.arange(clips.table.num_rows)
        on_clips = shown(judged(clips, score(clips, every), people_groups(clips), "clips").videos, "auc")
    seconds = f"{time.perf_counter() - started:.0f}"
    learnt = min(len(data.split.rows(Split.TRAIN)), row.data.max_faces or sys.maxsize)
    figures = [shown(faces, figure) for figure in ("accuracy", "auc", "loss")]
    print(line(name, str(learnt), *figures, on_clips, seconds, row.target, row.facts), flush=True)


def run_clips(row: Row, clips: FaceIndex) -> None:
    """Prints the line of what learns on the clips alone."""
    started = time.perf_counter()
    groups = people_groups(clips)
    videos = judged(clips, left_out_one_by_one(row, clips, groups), groups, "clips").videos
    figures = [shown(videos, figure) for figure in ("accuracy", "auc", "loss")]
    there = f"{videos.real} real and {videos.fake} fake clips, {videos.groups} groups that share nobody"
    print(line(CLIPS_ROW, "", *figures, "", f"{time.perf_counter() - started:.0f}", "none", there), flush=True)


def resolved(name: str, given: argparse.Namespace) -> Row:
    """A row with what the command line says."""
    row = ROWS[name]
    learn = given.learn if row.slow and given.learn else row.data.max_faces
    epochs = {} if given.epochs is None else {"epochs" if row.fit.epochs else "head_epochs": given.epochs}
    return replace(
        row,
        side=given.side or row.side,
        data=replace(row.data, max_faces=learn, seed=given.seed, batch_size=given.batch),
        fit=replace(row.fit, backend=given.backend, seed=given.seed, **epochs),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=6000, help="real and swapped, 70%% of them to learn from")
    parser.add_argument("--learn", type=int, default=800, help="faces for the slow rows; 0: all")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, CLIPS_ROW], default=[*ROWS, CLIPS_ROW])
    parser.add_argument("--epochs", type=int, help="of every row (default: each its own)")
    parser.add_argument("--side", type=int, help="of the crops (default: each row its own)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--backend", choices=["tensorflow", "jax"], default="tensorflow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--refined", action="store_true", help="swaps matched in light and sharpness, lower JPEG quality"
    )
    parser.add_argument("--no-clips", action="store_true", help="swaps alone")
    given = parser.parse_args()
    use_backend(given.backend)
    rows = {name: resolved(name, given) for name in given.rows if name != CLIPS_ROW}
    on_clips = replace(resolved("frozen", given), data=replace(_PLAIN, seed=given.seed))
    with tempfile.TemporaryDirectory(prefix="fakesift-accuracy-") as scratch:
        run(rows, on_clips if CLIPS_ROW in given.rows else None, Path(scratch), given)


def run(rows: dict[str, Row], on_clips: Row | None, scratch: Path, given: argparse.Namespace) -> None:
    """Makes the data that the rows need, and prints their lines."""
    started = time.perf_counter()
    sides = sorted({row.side for row in rows.values()})
    data = make_data(scratch / "swaps", given.faces, sides, given.seed, refined=given.refined) if sides else {}
    clips = {}
    for side in {row.side for row in [*rows.values(), *([on_clips] if on_clips else [])]}:
        if not given.no_clips:
            sink = LocalStorage(str(scratch / "clips" / str(side)))
            write_clips(sink, side)
            clips[side] = load_index([sink])
    for made in list(data.values())[:1]:
        print(f"{made.split.counts()}, made in {time.perf_counter() - started:.0f} s")
    print(f"{device_name()}, {given.backend}, seed {given.seed}")
    print(line("row", "learnt", "accuracy", "AUC", "log-loss", "AUC on real clips", "s", "target", "first try"))
    for name, row in rows.items():
        run_row(name, row, data[row.side], clips.get(row.side))
    if on_clips and clips:
        run_clips(on_clips, clips[on_clips.side])
    print(REFERENCE)


def _tell(record: EpochRecord) -> None:
    print(f"  {record.stage} {record.epoch}: loss {record.loss:.3f} {dict(record.validation)}", file=sys.stderr)


if __name__ == "__main__":
    main()
