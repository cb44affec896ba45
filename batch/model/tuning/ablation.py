"""The ablation of the work that this project starts from: its six rows, and a declared cross product around them.

That work printed [loss, accuracy] for six combinations of network, optimizer and learning rate, on faces of DFDC. The
sizes of its dense layers and its dropout were not printed: `DENSE_UNITS` and `DROPOUT` are choices of ours, none of
either being the row itself. The rates of a frozen network are its head's.
"""

from __future__ import annotations

from dataclasses import dataclass

from batch.model.tuning.grid import Axis, Domain, Grid, Row
from batch.model.tuning.recipe import Configuration, Value

DENSE_UNITS: tuple[Value, ...] = ((), (128,))
DROPOUT: tuple[Value, ...] = (0.0, 0.5)
CNN, PRETRAINED = "cnn", "xception"
REFERENCE_ACCURACY = {CNN: 0.496, PRETRAINED: 0.827}
"""All that is known of what was printed: one accuracy a network, for which of its rows is not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRow:
    """A row of the reference's table."""

    name: str
    model: str
    optimizer: str
    rate: float


REFERENCE_ROWS = (
    ReferenceRow(name="CNN, Nadam 0.01", model=CNN, optimizer="nadam", rate=0.01),
    ReferenceRow(name="CNN, SGD 0.01", model=CNN, optimizer="sgd", rate=0.01),
    ReferenceRow(name="Xception, Nadam 0.01", model=PRETRAINED, optimizer="nadam", rate=0.01),
    ReferenceRow(name="Xception, Adam 0.1", model=PRETRAINED, optimizer="adam", rate=0.1),
    ReferenceRow(name="Xception, SGD 0.1", model=PRETRAINED, optimizer="sgd", rate=0.1),
    ReferenceRow(name="Xception, SGD 0.01", model=PRETRAINED, optimizer="sgd", rate=0.01),
)


def ablation_grid(epochs: int, weights: str) -> Grid:
    """The rows, then optimizer and rate as there, crossed with dense units and dropout: 24 configurations.

    Args:
        epochs: of every trial; of the head alone where the network is pretrained.
        weights: of the pretrained network: `auto`, `imagenet` or a file.
    """
    models = Axis(name="model", domains=(_choices((CNN, PRETRAINED)),))
    optimizers = Axis(
        name="optimizer",
        domains=tuple(_choices(_of(model, "optimizer"), model=model) for model in (CNN, PRETRAINED)),
    )
    rates = [
        Axis(
            name=name,
            domains=tuple(
                _choices(tuple(row.rate for row in REFERENCE_ROWS if (row.model, row.optimizer) == (model, optimizer)),
                         model=model, optimizer=str(optimizer))
                for optimizer in _of(model, "optimizer")
            ),
        )
        for model, name in ((CNN, "learning_rate"), (PRETRAINED, "head_learning_rate"))
    ]  # fmt: skip
    rest = [
        _per_model("weights", "none", weights),
        _per_model("epochs", epochs, 0),
        Axis(name="head_epochs", domains=(_choices((epochs,), model=PRETRAINED),)),
        Axis(name="dense_units", domains=(_choices(DENSE_UNITS),)),
        Axis(name="dropout", domains=(_choices(DROPOUT),)),
    ]
    # Plain gradient descent at one rate: Keras' own defaults, since no other ones were printed.
    fixed: Configuration = {"features": "last", "augment": "reference", "momentum": 0.0, "schedule": "constant"}
    rows = tuple(Row(name=row.name, configuration=_row(row, epochs, weights)) for row in REFERENCE_ROWS)
    quiet = ("weights", "epochs", "head_epochs")
    return Grid(fixed=fixed, rows=rows, axes=(models, optimizers, *rates, *rest), quiet=quiet)


def _of(model: str, name: str) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(getattr(row, name) for row in REFERENCE_ROWS if row.model == model))


def _choices(values: tuple[Value, ...], **when: str) -> Domain:
    return Domain(kind="choices", values=values, when=tuple((name, (value,)) for name, value in when.items()))


def _per_model(name: str, cnn: Value, pretrained: Value) -> Axis:
    return Axis(name=name, domains=(_choices((cnn,), model=CNN), _choices((pretrained,), model=PRETRAINED)))


def _row(row: ReferenceRow, epochs: int, weights: str) -> Configuration:
    bare: dict[str, Value] = {"model": row.model, "optimizer": row.optimizer, "dense_units": (), "dropout": 0.0}
    if row.model == CNN:
        return {**bare, "learning_rate": row.rate, "weights": "none", "epochs": epochs}
    return {**bare, "head_learning_rate": row.rate, "weights": weights, "epochs": 0, "head_epochs": epochs}
