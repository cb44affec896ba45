"""A training process that is killed once, for processes that have this folder on their PYTHONPATH.

Python imports this module by itself when it starts. `FAKESIFT_KILL` is `RANK STEP FILE`: the worker of that rank ends
by SIGKILL before the step of that number, unless the file is there, which it then makes. The product's code is as it
is; the engine's step is wrapped when its module is first imported.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "batch.model.fit.tensorflow"


class _Killer(importlib.abc.MetaPathFinder):
    """Finds the engine's module as ever, and wraps its step after it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            module.TensorFlowEngine.train_step = _killed(module.TensorFlowEngine.train_step)  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _killed(train_step: Any) -> Any:
    rank, last, marker = os.environ["FAKESIFT_KILL"].split(maxsplit=2)
    steps = 0

    def step_or_death(engine: Any, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == int(last) and engine.rank == int(rank) and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(engine, *arguments)

    return step_or_death


if "FAKESIFT_KILL" in os.environ:
    sys.meta_path.insert(0, _Killer())
