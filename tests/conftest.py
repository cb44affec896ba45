"""Fixtures that several folders share: the S3 server, an environment in which boto3 finds it alone, a corpus."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from batch.corpus.draw.corpus import DrawnCorpus, draw_corpus
from batch.corpus.draw.options import DrawOptions
from tests.support.job import fakesift
from tests.support.seaweed import S3Server, running


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real server, up in a few seconds and stopped with the session. Mark tests that use it `slow`."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No profile, credentials or endpoint of the machine's own, and no look-up in a cloud's metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    return monkeypatch


@pytest.fixture
def s3_bucket(s3_server: S3Server, aws_environment: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a fresh bucket on the server; credentials and `AWS_ENDPOINT_URL` are set for the test."""
    aws_environment.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    aws_environment.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    aws_environment.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client = boto3.session.Session(region_name="us-east-1").client("s3")
    client.create_bucket(Bucket=bucket)
    yield bucket
    client.delete_bucket(Bucket=bucket)  # this server does so with all that is in it


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnCorpus:
    """Four people over two parts, with every planted file."""
    return draw_corpus(tmp_path_factory.mktemp("drawn") / "corpus", DrawOptions(identities=4, parts=2))


@pytest.fixture(scope="session")
def drawn_corpus(drawn: DrawnCorpus) -> Path:
    """Its folder."""
    return drawn.folder


@pytest.fixture(scope="session")
def calm(drawn_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a preprocess run over it that nothing disturbed. Mark tests that use it `slow`."""
    output = tmp_path_factory.mktemp("calm") / "out"
    done = fakesift("preprocess", drawn_corpus, output, "--workers", 2)
    assert done.returncode == 0, done.stderr
    return output
