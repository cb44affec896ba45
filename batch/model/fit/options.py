"""Options of fitting, each checked. Knows no backend, so that a driver can read them without loading one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["tensorflow", "jax"]
OptimizerName = Literal["sgd", "adam", "nadam", "adamw"]
ScheduleName = Literal["cosine", "plateau", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How a network is trained: first its head on a frozen pretrained backbone, then the whole or the last blocks."""

    backend: Backend = "tensorflow"
    """Which Keras backend runs it; `tensorflow` on MultiWorkerMirroredStrategy, `jax` on one jitted step."""
    epochs: int = 8
    """Most epochs of the second stage; for a network without pretrained weights it is the only stage."""
    head_epochs: int = 2
    """Most epochs of the first stage, 0 for none; a network without pretrained weights has none."""
    optimizer: OptimizerName = "adam"
    learning_rate: float = 2e-4
    """Largest learning rate of the second stage."""
    head_learning_rate: float = 1e-3
    """Largest learning rate of the first stage."""
    momentum: float = 0.9
    """Of sgd alone, Nesterov's; 0 for plain gradient descent."""
    weight_decay: float = 0.0
    """Decoupled (Loshchilov and Hutter 2019), on kernels alone; adamw expects one above 0."""
    label_smoothing: float = 0.0
    """Share of a label moved to one half on both sides, 0 to below 1."""
    schedule: ScheduleName = "cosine"
    """`cosine` to 0 over a stage, `plateau`: times `plateau_factor` when validation stalls, or `constant`."""
    warmup_epochs: float = 0.0
    """Epochs, fractions too, in which the learning rate rises linearly from 0 at the start of each stage."""
    plateau_patience: int = 2
    """Epochs without a lower validation loss before the learning rate falls."""
    plateau_factor: float = 0.5
    patience: int | None = None
    """Epochs without a lower validation loss before a stage ends early; None for never."""
    ema: float | None = None
    """Decay of a moving average of the weights, which is then what is evaluated and saved; None for no average. Mean
    and variance of BatchNorm that is trained are not of it: they follow the last steps."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient, over all workers; None for no clipping."""
    unfreeze: Literal["whole"] | int = "whole"
    """What the second stage trains of a backbone: all, or this many of its last blocks."""
    checkpoint_minutes: float | None = 10.0
    """Minutes between checkpoints within an epoch, looked at every few steps; each epoch ends with one always."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints within an epoch, beside `checkpoint_minutes`."""
    seed: int = 0
    """Of new weights and dropout."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name}: received {getattr(self, name)!r}, expected {', '.join(choices)}")
        for name, (low, high, included) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (low <= value < high and (included or value > low)):
                opening = f"{low} or more" if included else f"more than {low}"
                closing = "" if high == float("inf") else f" and below {high}"
                raise ValueError(f"bad {name}: received {value}, expected {opening}{closing}")
        if self.unfreeze != "whole" and not (isinstance(self.unfreeze, int) and self.unfreeze >= 1):
            raise ValueError(f"bad unfreeze: received {self.unfreeze!r}, expected 'whole' or 1 or more")
        if self.optimizer == "adamw" and self.weight_decay == 0:
            raise ValueError("adamw without weight_decay is adam: received 0, expected more (0.01 is common)")
        if self.epochs + self.head_epochs < 1:
            raise ValueError("nothing to train: received 0 epochs and 0 head_epochs, expected at least 1 of either")


_CHOICES: dict[str, tuple[str, ...]] = {
    "backend": ("tensorflow", "jax"),
    "optimizer": ("sgd", "adam", "nadam", "adamw"),
    "schedule": ("cosine", "plateau", "constant"),
}

_INFINITE = float("inf")
_RANGES: dict[str, tuple[float, float, bool]] = {
    "epochs": (0, _INFINITE, True),
    "head_epochs": (0, _INFINITE, True),
    "learning_rate": (0, _INFINITE, False),
    "head_learning_rate": (0, _INFINITE, False),
    "momentum": (0, 1, True),
    "weight_decay": (0, _INFINITE, True),
    "label_smoothing": (0, 1, True),
    "warmup_epochs": (0, _INFINITE, True),
    "plateau_patience": (1, _INFINITE, True),
    "plateau_factor": (0, 1, False),
    "patience": (1, _INFINITE, True),
    "ema": (0, 1, False),
    "clip_norm": (0, _INFINITE, False),
    "checkpoint_minutes": (0, _INFINITE, True),
    "checkpoint_steps": (1, _INFINITE, True),
}
"""Lowest value, bound above (excluded), and whether the lowest is allowed."""
