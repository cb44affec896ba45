"""boto3 set up for this project: one client a process and set of options, and its errors in the store's terms."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore import exceptions
from botocore.config import Config

from batch.storage.base import AccessError, ChangedObjectError, DeniedError, MissingObjectError, StorageError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_FALLBACK_REGION = "us-east-1"
_CONNECTIONS = 32

_NO_ACCESS_CODES = frozenset(
    {
        "NoSuchBucket",
        "InvalidBucketName",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
    }
)
_ARCHIVED = "InvalidObjectState"
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.SSOTokenLoadError,
    exceptions.ProfileNotFound,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How an S3 store is reached. Credentials come from boto3's usual chain, in each process by itself."""

    endpoint: str | None = None
    """Address of a store that is not AWS; None leaves it to `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` and AWS."""
    region: str | None = None
    """None takes the environment's or the profile's, and us-east-1 if neither names one."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    """Longest silence between two reads of a reply."""
    max_attempts: int = 5
    """Tries of one request in all, with growing jittered pauses; a body that ends early counts by itself."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for values that no store can be reached with."""
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"bad S3 endpoint: received {self.endpoint!r}, expected http://... or https://...")
        for name, value in (
            ("connect timeout", self.connect_timeout_s),
            ("read timeout", self.read_timeout_s),
            ("number of attempts", self.max_attempts),
        ):
            if value <= 0:
                raise ValueError(f"bad S3 {name}: received {value}, expected more than 0")


class BeyondEndError(StorageError):
    """A range begins at or after the object's end."""


class ConflictError(StorageError):
    """Another request for the same object was under way."""


# A client costs 50 to 100 ms of CPU and its connections, so tasks that each unpickle their store share it. The key
# holds the process (clients do not survive a fork) and what boto3 reads from the environment.
_clients: dict[tuple[int, S3Options, tuple[tuple[str, str], ...]], S3Client] = {}
_clients_lock = threading.Lock()


def shared_client(options: S3Options) -> S3Client:
    """The process's one client for the options and the present AWS environment; threads may share it.

    Raises `AccessError` where the credentials' profile does not exist, `ValueError` for a malformed endpoint.
    """
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    key = (os.getpid(), options, environment)
    with _clients_lock:
        if key not in _clients:
            with storage_errors(options.endpoint or "s3"):
                _clients[key] = _new_client(options)
        return _clients[key]


def _new_client(options: S3Options) -> S3Client:
    session = boto3.session.Session()
    region = options.region or session.region_name or os.environ.get("AWS_REGION") or _FALLBACK_REGION
    config = Config(
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": options.max_attempts},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # bucket.host needs a DNS entry a bucket, which stores that are not AWS seldom have.
        s3={"addressing_style": "path"} if options.endpoint else None,
    )
    client: S3Client = session.client("s3", region_name=region, endpoint_url=options.endpoint, config=config)
    return client


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turns what boto3 raises into the store's errors: one line each, with the uri and the cause."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _translated(uri, error) from error
    except _NO_CREDENTIALS as error:
        raise AccessError(_line(uri, error)) from error
    except exceptions.BotoCoreError as error:
        raise StorageError(_line(uri, error)) from error


def _translated(uri: str, error: exceptions.ClientError) -> StorageError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind: type[StorageError] = StorageError
    if code == _ARCHIVED:  # a 403 as well, of this object alone, and not for want of a permission
        kind = StorageError
    elif code in _NO_ACCESS_CODES or status == 401:
        kind = AccessError
    elif status == 403:
        kind = DeniedError
    elif code == "NoSuchKey" or status == 404:
        kind = MissingObjectError
    elif status == 409:
        kind = ConflictError
    elif status == 412:
        kind = ChangedObjectError
    elif status == 416:
        kind = BeyondEndError
    message = error.response.get("Error", {}).get("Message", "no message")
    return kind(_line(uri, f"{code}: {message}"))


def _line(uri: str, cause: object) -> str:
    return " ".join(f"{uri}: {cause}".split())
