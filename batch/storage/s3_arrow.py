"""The same S3 store for libraries that write through pyarrow, as Ray Train does its checkpoints.

pyarrow looks for credentials by a chain of its own, which knows neither a profile that assumes a role nor every form
of single sign-on, and reads no endpoint from a profile: what boto3 finds is handed to it.
"""

from __future__ import annotations

import os
from typing import Any

import boto3
from pyarrow.fs import S3FileSystem

from batch.storage.s3_client import S3Options, shared_client, storage_errors

_RENEWED = frozenset({"iam-role", "container-role", "assume-role-with-web-identity"})
"""Ways, by boto3's names, to credentials that pyarrow finds too, and renews when they expire."""


class S3ArrowFileSystem(S3FileSystem):  # type: ignore[misc]
    """pyarrow's S3 file system, reached as `S3Storage` of the same options reaches it. Paths are `bucket/key`.

    Pickles as its options: each process finds credentials by itself.
    """

    def __init__(self, options: S3Options) -> None:
        """Raises `AccessError` where credentials cannot be had."""
        self._options = options
        super().__init__(**arrow_settings(options))

    def __reduce__(self) -> tuple[type[S3ArrowFileSystem], tuple[S3Options]]:
        return S3ArrowFileSystem, (self._options,)


def arrow_settings(options: S3Options) -> dict[str, Any]:
    """Arguments of `pyarrow.fs.S3FileSystem`. Raises `AccessError` where credentials cannot be had."""
    client = shared_client(options)
    settings: dict[str, Any] = {"region": client.meta.region_name}
    named = options.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if named or ".amazonaws.com" not in client.meta.endpoint_url:
        settings["endpoint_override"] = client.meta.endpoint_url
    with storage_errors("s3"):
        found = boto3.session.Session().get_credentials()
        if found is not None and found.method not in _RENEWED:
            frozen = found.get_frozen_credentials()
            settings |= {"access_key": frozen.access_key, "secret_key": frozen.secret_key}
            settings |= {"session_token": frozen.token} if frozen.token else {}
    return settings
