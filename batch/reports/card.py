"""A bundle and its evaluations in, `MODEL_CARD.md` out: what the model is for, how good it is, where it fails.

The form follows Mitchell et al. 2019 (https://arxiv.org/abs/1810.03993). Every number comes from the values that the
page shows; only names of folders and files come from strangers, and stand escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batch.model.bundle import CARD, Bundle
from batch.model.evaluation import Evaluation, SliceLevel
from batch.model.network import NetworkOptions
from batch.reports.figures import Figure, figure_of, figure_rows, largest_slices, lead, point_rows
from batch.storage.base import Storage

_OF_A_KIND = 8


def write_card(
    sink: Storage, *, bundle: Bundle, evaluations: Sequence[Evaluation],
    split_counts: Mapping[str, Mapping[str, int]] | None = None, warning: str = "", key: str = CARD,
) -> str:  # fmt: skip
    """Writes the card and gives its uri. Arguments as for `train.write_train_report`.

    Raises:
        ValueError: without an evaluation.
        StorageError: where it cannot be written.
    """
    sink.put(key, model_card(bundle, evaluations, split_counts=split_counts, warning=warning).encode())
    return sink.uri(key)


def model_card(
    bundle: Bundle, evaluations: Sequence[Evaluation], *,
    split_counts: Mapping[str, Mapping[str, int]] | None = None, warning: str = "",
) -> str:  # fmt: skip
    """The card as Markdown."""
    if not evaluations:
        raise ValueError("model card: got no evaluation, expected one or more")
    main = evaluations[0]
    levels = [level for each in evaluations for level in (each.videos, each.faces)]
    slices = [entry for _, kept, _ in largest_slices(main.slices, _OF_A_KIND) for entry in kept]
    return _environment().get_template("model_card.md").render(
        bundle=bundle,
        manifest=bundle.manifest,
        crop=bundle.face_options.crop,
        evaluations=evaluations,
        main=main,
        lead=lead(main),
        columns=[f"{each.name}, {level.unit}" for each in evaluations for level in (each.videos, each.faces)],
        rows=figure_rows(levels),
        points=point_rows(main),
        slices=[(it, *_slice_cells(it.videos), *_slice_cells(it.faces)) for it in slices],
        rest=len(main.slices) - len(slices),
        learnt=_learnt(bundle.manifest.training),
        split_counts=split_counts or {},
        warning=warning,
    )  # fmt: skip


def _slice_cells(level: SliceLevel) -> tuple[Figure, Figure]:
    return figure_of(level.accuracy, percent=True), figure_of(level.auc)


def _learnt(training: Mapping[str, Any]) -> list[str]:
    """How the network came to be, by the options of training; nothing of a bundle that tells none."""
    if not {"network", "data", "fit"} <= set(training):
        return []
    network, data, fit = (training[name] for name in ("network", "data", "fit"))
    # Of a file its name: the rest tells of the machine that it was trained on.
    start = Path(NetworkOptions(model=network["model"], weights=network["weights"]).source_of_weights).name
    stages = f"{fit['epochs']} of the network"
    if start != "none":
        norms = network.get("norms", "frozen")  # bundles of earlier versions knew no other
        stages = f"{fit['head_epochs']} of the head on the frozen network, then {stages}, BatchNorm {norms}"
    told = [f"Start: weights {start}. Epochs, at most: {stages}. Optimizer {fit['optimizer']}, batches of "
            f"{data['batch_size']}, augmentation {data['augment']}."]  # fmt: skip
    most = data["max_faces"]
    if data["synthetic"] == "none":
        chosen = f", drawn from {most} faces at most that were chosen once" if most else ""
        return [*told, f"Faces of an epoch: balance {data['balance']}{chosen}."]
    chosen = f", {most // 2} of them at most" if most else ""
    return [
        *told,
        f"Its fakes were self-blended ones, made of the real faces{chosen}. It learnt from no fake of the data.",
    ]


@cache
def _environment() -> Environment:
    # Markdown, not HTML: names go through `plain`.
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(plain=_plain, cell=_cell)
    return made


def _plain(text: object) -> str:
    """A stranger's text that no Markdown reader takes for markup, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", line)


def _cell(figure: Figure) -> str:
    """`0.923 (0.908 to 0.939)`, or a dash with its reason."""
    if figure.interval:
        return f"{figure.value} ({figure.interval})"
    return f"{figure.value} ({_plain(figure.reason)})" if figure.reason else figure.value
