"""A decoder with bugs, for processes that have this folder on their PYTHONPATH: it dies or hangs on marked clips.

Python imports this module by itself when it starts. `FAKESIFT_POISON` is JSON: `{"abort": [key...], "hang": [key...]}`.
The product's code is as it is; `batch.faces.decode.decode` is wrapped when it is first imported.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

_NAME = "batch.faces.decode"


class _Poisoner(importlib.abc.MetaPathFinder):
    """Finds the decode module as ever, and wraps its function after it has run."""

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
            module.decode = _poisoned(module.decode)  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _poisoned(decode: Any) -> Any:
    marked: dict[str, list[str]] = json.loads(os.environ["FAKESIFT_POISON"])

    def decode_or_worse(file: Any, *options: Any) -> AbstractContextManager[Any]:
        if file._key in marked["abort"]:
            os.abort()
        while file._key in marked["hang"]:
            pass
        return decode(file, *options)  # type: ignore[no-any-return]

    return decode_or_worse


if "FAKESIFT_POISON" in os.environ:
    sys.meta_path.insert(0, _Poisoner())
