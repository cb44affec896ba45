"""`--config FILE.yaml` of a command line in, options with its values out; flags that are given win over them."""

from __future__ import annotations

import argparse
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from batch.model.tuning.recipe import as_type
from jobs.train_options import TrainOptions

T = TypeVar("T", bound=TrainOptions)
_NOT_IN_A_FILE = ("places", "config")


def with_config(options: type[T], argv: list[str] | None) -> T | None:
    """What holds where the command line says nothing; None without `--config`.

    Raises:
        ValueError: for a file that is no YAML mapping, an unknown option, or a value of another type; all are named.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    finder.add_argument("--dense-units", "--dense_units", nargs="*", action="append")
    given, _ = finder.parse_known_args(argv)
    if given.config is None:
        return None
    values = read_config(options, Path(given.config))
    if given.dense_units is not None:
        # They would be added to those of the file.
        values.pop("dense_units", None)
    try:
        return options(**values)
    except ValueError as error:
        raise ValueError(f"config {given.config}: {error}") from error


def read_config(options: type[TrainOptions], path: Path) -> dict[str, Any]:
    """The file's options, each in its own type."""
    import yaml

    if not path.is_file():
        raise ValueError(f"config: received {str(path)!r}, expected a YAML file")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ValueError(f"config {path}: received {document!r}, expected a mapping from options to values")
    kinds = typing.get_type_hints(options)
    known = [field.name for field in fields(options) if field.init and field.name not in _NOT_IN_A_FILE]
    unknown = [str(name) for name in document if name not in known]
    if unknown:
        raise ValueError(f"config {path}: unknown option {', '.join(unknown)}, expected of {', '.join(known)}")
    try:
        return {name: as_type(name, kinds[name], value) for name, value in document.items()}
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from None
