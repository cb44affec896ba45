"""Keeps secrets out of what a cluster records: a job's arguments and variables stand in its log and its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_?KEY|PRIVATE", re.IGNORECASE)
_SECRET_TEXT = {
    "an AWS access key": re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    "a password in an address": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
    "a signed address": re.compile(r"X-Amz-(?:Signature|Credential|Security-Token)=", re.IGNORECASE),
}
_SHORTEST = 8
_INSTEAD = "expected the cluster's own right: an instance profile, a service account, or its nodes' environment"


def refuse_secrets(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Refuses arguments that carry a secret.

    Raises:
        ValueError: that names what kind it is, and never shows it.
    """
    known = {name: value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    for number, argument in enumerate(arguments, 1):
        for kind, pattern in _SECRET_TEXT.items():
            if pattern.search(argument):
                raise ValueError(f"argument {number} of the job: got {kind}, {_INSTEAD}")
        for name, value in known.items():
            # A path to a token is no token.
            if value in argument and "/" not in value:
                raise ValueError(f"argument {number} of the job: got the value of {name}, {_INSTEAD}")


def passed_variables(wanted: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for the job: each `NAME=VALUE`, or `NAME` with the value that it has here.

    Raises:
        ValueError: for one that is not set here, or that by its name or value holds a secret.
    """
    variables = {}
    for text in wanted:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"env: got the name {name!r}, expected NAME or NAME=VALUE")
        if _SECRET_NAME.search(name):
            raise ValueError(f"env: {name} would stand in the job's record for all to read; {_INSTEAD}")
        if not equals and name not in environ:
            raise ValueError(f"env: {name} is not set here, expected NAME=VALUE or a variable that is")
        variables[name] = value if equals else environ[name]
    refuse_secrets(list(variables.values()), environ)
    return variables
