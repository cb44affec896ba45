"""pyarrow reaches S3 as boto3 does: by a profile's role, a command, an endpoint that a profile names."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from batch.storage.base import AccessError
from batch.storage.s3 import S3Options, S3Storage
from batch.storage.s3_arrow import S3ArrowFileSystem, arrow_settings


@pytest.mark.slow
def test_it_writes_where_the_store_reads_and_takes_no_secret_along(
    s3_bucket: str, aws_environment: pytest.MonkeyPatch
) -> None:
    made = S3ArrowFileSystem(S3Options())
    pickled = pickle.dumps(made)
    assert b"writer" not in pickled  # neither key nor secret
    again = pickle.loads(pickled)
    with again.open_output_stream(f"{s3_bucket}/out/a") as file:
        file.write(b"content")
    assert S3Storage(s3_bucket, "out").read("a") == b"content"


def test_credentials_of_a_command_and_an_endpoint_of_a_profile(
    aws_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "secret", "SessionToken": "token"}
    script = tmp_path / "told.py"
    script.write_text(f"print({json.dumps(told)!r})")
    config = tmp_path / "config"
    config.write_text(
        f"[profile lab]\nregion = eu-central-1\nendpoint_url = http://127.0.0.1:9\n"
        f"credential_process = {sys.executable} {script}\n"
    )
    aws_environment.setenv("AWS_CONFIG_FILE", str(config))
    aws_environment.setenv("AWS_PROFILE", "lab")
    assert arrow_settings(S3Options()) == {
        "region": "eu-central-1", "endpoint_override": "http://127.0.0.1:9",
        "access_key": "id", "secret_key": "secret", "session_token": "token",
    }  # fmt: skip
    script.write_text("raise SystemExit(1)")
    with pytest.raises(AccessError, match="s3: "):
        arrow_settings(S3Options())


def test_aws_itself_is_left_to_name_its_endpoint(aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.setenv("AWS_ACCESS_KEY_ID", "id")
    aws_environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert arrow_settings(S3Options()) == {"region": "us-east-1", "access_key": "id", "secret_key": "secret"}
    asked = S3Options(endpoint="http://127.0.0.1:9000")
    assert arrow_settings(asked)["endpoint_override"] == "http://127.0.0.1:9000"
