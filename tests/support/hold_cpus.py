"""Run on a cluster: takes all CPUs, says so, and gives them back when its standard input ends."""

import sys

import ray
from ray.util import placement_group


def main() -> None:
    ray.init(address="auto", log_to_driver=False)
    held = placement_group([{"CPU": 1}] * int(ray.cluster_resources()["CPU"]))
    ray.get(held.ready())
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
