"""Run on a cluster: reports a step as a training run does, and prints the metrics that its nodes export.

What a run counts stays there after its end; what it last set, as the loss, goes with it.
"""

import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import ray

from batch.model.fit.loop import StepReport
from batch.storage.local import LocalStorage
from jobs.metrics import METRICS, exported_name
from jobs.train_progress import train_progress

_GIVE_UP_S = 120.0


def main() -> int:
    ray.init(address="auto", log_to_driver=False)
    step = StepReport(stage="whole", epoch=1, step=1, steps=2, loss=0.5, learning_rate=0.1, images_per_second=3.0)
    with tempfile.TemporaryDirectory() as folder, train_progress({"whole": 1}, LocalStorage(Path(folder))) as progress:
        progress.tell(step)
    ray.get(ray.remote(lambda: None).remote())
    wanted = {exported_name(name) for name in METRICS}
    deadline = time.monotonic() + _GIVE_UP_S
    text = ""
    while not all(f"\n{name}{{" in text for name in wanted) and time.monotonic() < deadline:
        text = "\n".join(scraped(node) for node in ray.nodes())
    print(text)
    return 0


def scraped(node: dict[str, str]) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    sys.exit(main())
