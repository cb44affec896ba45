"""The file for `ray up`, as Ray's own autoscaler reads it, without a cloud."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
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


@pytest.fixture
def cloud(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A stand-in for EC2; the configuration names its subnet and an operator's closed group."""
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ec2 = boto3.resource("ec2", region_name=config["provider"]["region"])
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")
        subnet = vpc.create_subnet(CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1a")
        group = vpc.create_security_group(GroupName="closed", Description="an operator's")
        for node in config["available_node_types"].values():
            node["node_config"] |= {"SubnetIds": [subnet.id], "SecurityGroupIds": [group.id]}
        yield ec2


def open_to_all(ec2: Any) -> set[str]:
    """Names of the groups that let anybody in."""
    return {
        group.group_name
        for group in ec2.security_groups.all()
        for rule in group.ip_permissions
        if {"CidrIp": "0.0.0.0/0"} in rule["IpRanges"]
    }


def test_ray_opens_nothing_beside_the_operators_group(cloud: Any, config: dict[str, Any]) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    before = {group.id for group in cloud.security_groups.all()}
    made = bootstrap_aws(prepare_config(config))
    groups = {node["node_config"]["SecurityGroupIds"][0] for node in made["available_node_types"].values()}
    assert len(groups) == 1
    assert {group.id for group in cloud.security_groups.all()} == before
    assert open_to_all(cloud) == set()


def test_a_group_that_ray_made_would_be_open(cloud: Any, config: dict[str, Any]) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    for node in config["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
    rule = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
    config["provider"]["security_group"] = {"GroupName": "ray", "IpPermissions": [rule]}
    bootstrap_aws(prepare_config(config))
    assert open_to_all(cloud) == {"ray"}


def test_it_is_closed(config: dict[str, Any]) -> None:
    assert config["provider"]["use_internal_ips"] is True
    assert "security_group" not in config["provider"]
    starts = [
        line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    for node in config["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
    assert config["file_mounts"] == {"/home/fakesift/.ray/auth_token": "~/.ray/auth_token"}
