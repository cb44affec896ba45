"""The trials in the order in which they are asked: all of a grid, or drawn ones; `tune_optuna` suggests others."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from batch.model.tuning.grid import Grid
from batch.model.tuning.recipe import Configuration, Recipe, Value
from batch.model.tuning.records import Trial, TrialResult
from jobs.tune_options import TuneOptions


class Source(Protocol):
    """Where trials come from."""

    def next(self) -> Trial | None:
        """The next one that was not asked yet; None when there is no other."""

    def told(self, result: TrialResult) -> None:
        """Takes a trial's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A configuration that will be tried."""

    name: str
    configuration: Configuration
    id: str

    def trials(self, options: TuneOptions) -> list[Trial]:
        """One a seed."""
        seeds = range(options.seed, options.seed + options.seeds)
        return [
            Trial(id=f"{self.id}-{seed}", configuration_id=self.id, name=self.name, configuration=self.configuration,
                  seed=seed)
            for seed in seeds
        ]  # fmt: skip


def plan_configurations(options: TuneOptions, grid: Grid) -> list[Planned]:
    """What is known before anything runs: rows, then the grid or draws of it; with Optuna the rows alone.

    Raises:
        ValueError: for a configuration that cannot be, with its options.
    """
    recipe = options.recipe()
    given = [(row.name, grid.row_configuration(row)) for row in grid.rows]
    if options.search == "grid":
        given += [("", made) for made in grid.product()]
    elif options.search == "random":
        given += [("", made) for made in grid.drawn(options.trials or 0, options.seed)]
    else:
        # Refuses a value that no trial could have before any starts.
        for made in grid.drawn(16, options.seed):
            planned("", made, recipe)
    found: dict[str, Planned] = {}
    for name, configuration in given:
        made_of = planned(name, configuration, recipe)
        found.setdefault(made_of.id, made_of)
    return list(found.values())[: options.trials]


def planned(name: str, configuration: Configuration, recipe: Recipe) -> Planned:
    """A configuration with its id. Raises `ValueError` for one that cannot be."""
    try:
        changed = recipe.changed(configuration)
        if changed.epochs < 1:
            raise ValueError(
                f"nothing to train: received {changed.fit.epochs} epochs for a network without a head stage"
            )
    except ValueError as error:
        told = ", ".join(f"{key} {value}" for key, value in configuration.items())
        raise ValueError(f"grid: {error} (with {told})") from None
    return Planned(name=name, configuration=configuration, id=changed.digest())


def most_epochs(recipe: Recipe, grid: Grid) -> int:
    """No trial has more, both stages together, whatever a search may yet suggest."""
    return sum(
        max(own, int(grid.highest(name)))
        for name, own in (("epochs", recipe.fit.epochs), ("head_epochs", recipe.fit.head_epochs))
    )


class ListSource:
    """Trials that are all known."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        """Those that did not end yet."""
        self._left = deque(trials)

    def next(self) -> Trial | None:
        """See `Source`."""
        return self._left.popleft() if self._left else None

    def told(self, result: TrialResult) -> None:
        """Changes nothing."""


def resolved(planned_ones: Sequence[Trial], recipe: Recipe, names: Sequence[str]) -> Mapping[str, dict[str, Value]]:
    """By configuration, the values of the options that vary; None where one says nothing."""
    found: dict[str, dict[str, Value]] = {}
    for trial in planned_ones:
        if trial.configuration_id not in found:
            changed = recipe.changed(trial.configuration)
            found[trial.configuration_id] = {name: changed.shown(name) for name in names}
    return found
