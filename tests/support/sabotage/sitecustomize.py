"""Bugs and deaths, for processes that have this folder on their PYTHONPATH; Python imports this module when it starts.

`FAKESIFT_POISON` is JSON, `{"abort": [key...], "hang": [key...]}`: the decoder dies or hangs on these clips.
`FAKESIFT_KILL` is `RANK STEP FILE`: the training worker of that rank ends by SIGKILL before the step of that number,
unless the file is there, which it then makes. The product's code is as it is; a function of a module is wrapped when
that is first imported.
"""

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any


class _Wrapper(importlib.abc.MetaPathFinder):
    """Finds a module as ever, and changes it after it has run."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self._name, self._change = name, change

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self._change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _poison(module: Any) -> None:
    marked: dict[str, list[str]] = json.loads(os.environ["FAKESIFT_POISON"])
    decode = module.decode

    def decode_or_worse(file: Any, *options: Any) -> AbstractContextManager[Any]:
        if file._key in marked["abort"]:
            os.abort()
        while file._key in marked["hang"]:
            pass
        return decode(file, *options)  # type: ignore[no-any-return]

    module.decode = decode_or_worse


def _kill(module: Any) -> None:
    rank, last, marker = os.environ["FAKESIFT_KILL"].split(maxsplit=2)
    kind = getattr(module, "TensorFlowEngine", None) or module.JaxEngine
    train_step = kind.train_step
    steps = 0

    def step_or_death(engine: Any, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == int(last) and engine.rank == int(rank) and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(engine, *arguments)

    kind.train_step = step_or_death


if "FAKESIFT_POISON" in os.environ:
    sys.meta_path.insert(0, _Wrapper("batch.faces.decode", _poison))
if "FAKESIFT_KILL" in os.environ:
    for backend in ("tensorflow", "jax"):
        sys.meta_path.insert(0, _Wrapper(f"batch.model.fit.{backend}", _kill))
