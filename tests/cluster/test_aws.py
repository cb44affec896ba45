"""The file for `ray up`, as Ray's own autoscaler reads it, without a cloud."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKERS = ("cpu", "gpu")


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text()))


def test_the_autoscaler_takes_it(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", *WORKERS}
    assert prepared["head_node_type"] == "head"


def test_a_slip_would_be_found(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="idle_timout"):
        validate_config(prepare_config({**config, "idle_timout_minutes": 3}))


def test_it_grows_from_nothing_and_only_workers_are_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    for name in WORKERS:
        assert types[name]["min_workers"] == 0
        assert types[name]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["gpu"]["resources"]["GPU"] == 1


def test_it_is_closed(config: dict[str, Any]) -> None:
    assert config["provider"]["use_internal_ips"] is True
    (rule,) = config["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert all(not place["CidrIp"].startswith("0.0.0.0") for place in rule["IpRanges"])
    starts = [
        line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    for node in config["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
    assert config["file_mounts"] == {"/home/fakesift/.ray/auth_token": "~/.ray/auth_token"}
