"""Trials as Optuna suggests them, each knowing how those before it ended."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from batch.model.tuning.grid import Domain, Grid
from batch.model.tuning.recipe import Configuration, Value
from batch.model.tuning.records import METRICS, Status, Trial, TrialResult
from jobs.tune_options import TuneOptions
from jobs.tune_plan import Planned, planned


class OptunaSource:
    """Trials that Optuna's TPE (Bergstra et al. 2011) suggests, knowing how those before them ended.

    What an earlier call of the job found out is told to a fresh study; what it left unfinished comes first.
    """

    def __init__(
        self,
        options: TuneOptions,
        grid: Grid,
        rows: Sequence[Planned],
        earlier: Sequence[tuple[Trial, TrialResult | None]],
    ) -> None:
        """`earlier`: every trial that was ever asked under OUTPUT, with its end."""
        try:
            import optuna
        except ImportError as error:
            raise ValueError("search optuna: not installed; expected `pip install fakesift[optuna]`") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._options, self._grid = optuna, options, grid
        self._recipe = options.recipe()
        direction: Any = "minimize" if METRICS[options.metric] == "min" else "maximize"
        sampler = optuna.samplers.TPESampler(seed=options.seed)
        self._study: Any = optuna.create_study(direction=direction, sampler=sampler)
        self._asked: dict[str, Any] = {}
        """By configuration: the study's own trial, where it suggested it in this process."""
        self._known: dict[str, Configuration] = {}
        self._ended: dict[str, list[TrialResult]] = {}
        self._queue: deque[Trial] = deque()
        done = {trial.id for trial, result in earlier if result is not None}
        for made in [*rows, *(planned(trial.name, trial.configuration, self._recipe) for trial, _ in earlier)]:
            if made.id not in self._known:
                self._known[made.id] = made.configuration
                self._queue += [trial for trial in made.trials(options) if trial.id not in done]
        for _, result in earlier:
            if result is not None:
                self.told(result)

    def next(self) -> Trial | None:
        """See `Source`."""
        tries = 0
        while not self._queue and len(self._known) < (self._options.trials or 0) and tries < _TRIES:
            tries += 1
            asked = self._study.ask()
            made = planned("", self._grid.chosen(partial(_suggest, asked)), self._recipe)
            if made.id in self._known:
                # A small space repeats itself; the same value told again would pull the sampler towards it.
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
                continue
            self._known[made.id], self._asked[made.id] = made.configuration, asked
            self._queue += made.trials(self._options)
        return self._queue.popleft() if self._queue else None

    def told(self, result: TrialResult) -> None:
        """Tells the study a configuration's mean as soon as its last seed has ended."""
        key = result.trial.configuration_id
        ended = self._ended.setdefault(key, [])
        ended.append(result)
        if len(ended) < self._options.seeds or key not in self._known:
            return
        state = self._optuna.trial.TrialState
        values = [entry.validation[self._options.metric] for entry in ended if self._options.metric in entry.validation]
        good = len(values) == len(ended) and all(entry.status == Status.FINISHED for entry in ended)
        value = sum(values) / len(values) if good else None
        if key in self._asked:
            self._study.tell(self._asked.pop(key), value, state=state.COMPLETE if good else state.FAIL)
        elif good:
            self._study.add_trial(self._as_trial(self._known[key], value))

    def _as_trial(self, configuration: Configuration, value: float | None) -> Any:
        """A configuration that the study did not suggest, as a trial of it; options out of the space are left out."""
        params: dict[str, Any] = {}
        distributions: dict[str, Any] = {}

        def note(name: str, domain: Domain) -> Value:
            chosen = configuration.get(name)
            if name in configuration and _is_of(domain, chosen):
                key = _name(name, domain)
                params[key], distributions[key] = _param(domain, chosen), self._distribution(domain)
            return chosen

        self._grid.chosen(note)
        return self._optuna.trial.create_trial(params=params, distributions=distributions, value=value)

    def _distribution(self, domain: Domain) -> Any:
        kinds = self._optuna.distributions
        if domain.kind == "choices":
            return kinds.CategoricalDistribution([json.dumps(value) for value in domain.values])
        log = domain.kind == "log"
        if domain.whole:
            return kinds.IntDistribution(int(domain.low), int(domain.high), log=log)
        return kinds.FloatDistribution(domain.low, domain.high, log=log)


_TRIES = 50
"""Suggestions in a row that may be known already, before the search ends."""


def _suggest(asked: Any, name: str, domain: Domain) -> Value:
    key, log = _name(name, domain), domain.kind == "log"
    if domain.kind == "choices":
        chosen = asked.suggest_categorical(key, [json.dumps(value) for value in domain.values])
        return next(value for value in domain.values if json.dumps(value) == chosen)
    if domain.whole:
        return int(asked.suggest_int(key, int(domain.low), int(domain.high), log=log))
    return float(asked.suggest_float(key, domain.low, domain.high, log=log))


def _name(name: str, domain: Domain) -> str:
    """Of the study's parameter: an option has one for each condition, since a parameter's choices may not change."""
    return name if not domain.when else f"{name} if {_conditions(domain.when)}"


def _conditions(when: Sequence[tuple[str, tuple[Value, ...]]]) -> str:
    return " and ".join(f"{name} in {json.dumps(values)}" for name, values in when)


def _is_of(domain: Domain, value: Value) -> bool:
    if domain.kind == "choices":
        return value in domain.values
    return isinstance(value, (int, float)) and domain.low <= value <= domain.high


def _param(domain: Domain, value: Value) -> Any:
    return json.dumps(value) if domain.kind == "choices" else value
