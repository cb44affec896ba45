"""The command line of `fakesift tune`, and what it means: all of `fakesift train`'s options, and the search."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from batch.model.tuning.ablation import ablation_grid
from batch.model.tuning.grid import Grid
from batch.model.tuning.parse import parse_grid
from batch.model.tuning.recipe import Recipe
from jobs.console import shown
from jobs.train_options import TrainOptions

ABLATION = "ablation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Of one trial, over all its workers."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def cores(self) -> int:
        """Threads that its native libraries may use."""
        return max(1, int(self.cpus))

    @classmethod
    def parse(cls, text: str) -> Resources:
        """Reads `cpu=1,gpu=0.25`. Raises `ValueError` for anything else."""
        found: dict[str, float] = {}
        for part in text.split(","):
            name, _, amount = part.strip().partition("=")
            try:
                value = float(amount)
            except ValueError:
                value = math.nan
            if (
                name not in ("cpu", "gpu")
                or name in found
                or not (0 < value < math.inf or (name == "gpu" and value == 0))
            ):
                raise ValueError(f"resources per trial: received {text!r}, expected as cpu=1 or cpu=2,gpu=0.25")
            if value > 1 and value != int(value):
                raise ValueError(f"resources per trial: received {text!r}, expected a whole number above 1")
            found[name] = value
        return cls(cpus=found.get("cpu", 1.0), gpus=found.get("gpu", 0.0))


@dataclass(frozen=True, kw_only=True)
class TuneOptions(TrainOptions):
    """Options of `fakesift tune`; those of `fakesift train` hold for every trial where the grid says nothing."""

    grid: Annotated[str, tyro.conf.arg(metavar="ablation|FILE.yaml")] = ABLATION
    """What is tried: the reference's six rows and a cross product around them, or a file's fixed, rows and grid."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination; random: --trials of them; optuna: --trials, each chosen by those before (TPE)."""
    trials: Annotated[int | None, shown("N", "all of the grid")] = None
    """Most configurations, rows included; each is trained --seeds times."""
    seeds: int = 1
    """How often each configuration is trained: --seed, and the numbers that follow. The split stays."""
    metric: Literal["loss", "accuracy", "auc"] = "loss"
    """What the best configuration is chosen by: mean over its seeds, on validation."""
    scheduler: Literal["none", "asha"] = "none"
    """asha: after 1, 3, 9, ... epochs a trial goes on only if it is among the best third so far."""
    budget_minutes: Annotated[float | None, shown("MINUTES", "none")] = None
    """Time for the trials of this call; what then runs is stopped after its last epoch, what never ran is told."""
    resources_per_trial: Annotated[str, tyro.conf.arg(metavar="cpu=N,gpu=N")] = "cpu=1"
    """Cores and GPUs of a trial, over its --workers; a fraction of a GPU lets trials share one."""
    share: Literal["all", "pixels", "none"] = "all"
    """What trials take from one another: decoded faces, and features of frozen networks too; in Ray's memory."""
    gpus_per_worker: tyro.conf.Suppress[float] = 0
    cpus_per_worker: tyro.conf.Suppress[int | None] = None
    resources: tyro.conf.Suppress[Resources] = field(default=Resources(), init=False)

    def __post_init__(self) -> None:
        """Raises `ValueError` for resources that cannot be."""
        object.__setattr__(self, "resources", Resources.parse(self.resources_per_trial))

    def recipe(self) -> Recipe:
        """What the grid's options are set on. Raises `ValueError` for values that cannot be."""
        return Recipe(network=self.network_options(), data=self.data_options(), fit=self.fit_options())

    def tried(self) -> Grid:
        """The grid. Raises `ValueError` for a file that is none."""
        if self.grid == ABLATION:
            return ablation_grid(self.epochs, self.weights if self.weights != "none" else "imagenet")
        import yaml

        path = Path(self.grid)
        if not path.is_file():
            raise ValueError(f"grid: received {self.grid!r}, expected ablation or a YAML file")
        try:
            return parse_grid(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"grid: {path}: not YAML: {' '.join(str(error).split())}") from error

    def shaping(self) -> dict[str, Any]:
        """What may not change under one OUTPUT. Time, resources and what is shared may."""
        grid = {name: value for name, value in asdict(self.tried()).items() if name != "quiet"}
        return {
            **super().shaping(),
            "grid": grid,
            "search": self.search,
            "trials": self.trials,
            "seeds": self.seeds,
            "metric": self.metric,
            "scheduler": self.scheduler,
        }

    def check(self) -> None:
        """Refuses what can be refused without looking at any data. Raises `ValueError`."""
        super().check()
        if self.seeds < 1 or (self.trials is not None and self.trials < 1):
            raise ValueError(f"received {self.seeds} seeds and {self.trials} trials, expected 1 or more of both")
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"search {self.search}: received no number of trials, expected --trials N")
        if self.budget_minutes is not None and self.budget_minutes <= 0:
            raise ValueError(f"budget: received {self.budget_minutes} minutes, expected more than 0")
        if self.workers > 1 and (self.resources.cpus < self.workers or self.resources.cpus % self.workers):
            raise ValueError(
                f"resources per trial: received {self.resources_per_trial!r} for {self.workers} workers, expected a "
                "multiple of their number of cores"
            )
        if self.workers > 1:
            self._check_gpus(self.resources.gpus / self.workers)
