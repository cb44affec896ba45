"""Run on a cluster: counts with every metric of the jobs, and prints the names that its nodes export."""

import re
import sys
import time
import urllib.request

import ray

from jobs.metrics import METRICS, JobMetrics, exported_name

_GIVE_UP_S = 120.0


def main() -> int:
    ray.init(address="auto", log_to_driver=False)
    metrics = JobMetrics("preprocess")
    metrics.unit(reasons={"kept": 3}, faces=3, bytes_read=10, requests=2)
    metrics.step(loss=0.5, images_per_second=3.0)
    ray.get(ray.remote(lambda: None).remote())
    wanted = {exported_name(name) for name in METRICS}
    names: set[str] = set()
    deadline = time.monotonic() + _GIVE_UP_S
    while not wanted <= names and time.monotonic() < deadline:
        for node in ray.nodes():
            with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as answer:
                names |= set(re.findall(r"^(\w+)[{ ]", answer.read().decode(), re.MULTILINE))
    print(*sorted(names))
    return 0 if wanted <= names else 1


if __name__ == "__main__":
    sys.exit(main())
