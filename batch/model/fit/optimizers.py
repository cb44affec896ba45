"""The optimizers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch.model.fit.options import FitOptions

if TYPE_CHECKING:
    import keras


def build_optimizer(options: FitOptions, variables: list[keras.Variable]) -> keras.optimizers.Optimizer:
    """An optimizer with its variables made. The loop sets the learning rate before every step."""
    from keras import optimizers

    decay = options.weight_decay or None
    optimizer: keras.optimizers.Optimizer
    if options.optimizer == "sgd":
        optimizer = optimizers.SGD(1.0, momentum=options.momentum, nesterov=options.momentum > 0, weight_decay=decay)
    elif options.optimizer == "nadam":
        optimizer = optimizers.Nadam(1.0, weight_decay=decay)
    elif options.optimizer == "adamw":
        optimizer = optimizers.AdamW(1.0, weight_decay=decay)
    else:
        optimizer = optimizers.Adam(1.0, weight_decay=decay)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(variables)
    return optimizer
