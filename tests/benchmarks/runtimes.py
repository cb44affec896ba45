"""What a model actor gains from OpenVINO: Keras on TensorFlow and OpenVINO, turn about, on the same crops and cores.

    python tests/benchmarks/runtimes.py [--models cnn xception] [--rounds 3] [--crops 64]

A process for each runtime and precision loads the same untrained network and then takes its turns with the others, so
that what else computes on the machine meets all alike. `load s` is from the process's start to its first turn; `MB` its
memory at the highest; `crops/s` the median over the rounds; `a CPU s` crops in a CPU second, which a busy machine
leaves more alone; `times` is against Keras in float32; `drift` the golden logits' difference from the stored ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from batch.model.bundle import load_bundle  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402
from tests.benchmarks.scale import memory_mb  # noqa: E402

SIDES = {"cnn": 128, "xception": 224}
WAYS = (("keras", "float32"), ("openvino", "float32"), ("keras", "bfloat16"), ("openvino", "bfloat16"))


def serve(folder: str, runtime: str, precision: str, crops: int) -> None:
    """A line when loaded; then for each line a turn: wall and CPU seconds."""
    import numpy as np

    from batch.model.golden import drift

    bundle = load_bundle(LocalStorage(folder))
    predict = bundle.predictor(precision=precision, runtime=runtime)  # type: ignore[arg-type]
    golden = bundle.golden()
    found = drift(predict(golden.images), golden.logits)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (crops, predict.side, predict.side, 3), dtype=np.uint8)
    predict(pixels)
    print(f"{found} {memory_mb('VmHWM')}", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        predict(pixels)
        print(f"{time.perf_counter() - wall} {time.process_time() - cpu}", flush=True)


def compare(model: str, folder: Path, rounds: int, crops: int) -> None:
    """Prints a row a way."""
    started = []
    for runtime, precision in WAYS:
        command = [sys.executable, __file__, "--serve", str(folder), runtime, precision, "--crops", str(crops)]
        begun = time.perf_counter()
        child = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout
        told = child.stdout.readline().split()
        started.append((child, time.perf_counter() - begun, told))
    turns: list[list[tuple[float, float]]] = [[] for _ in WAYS]
    for _ in range(rounds):
        for place, (child, _, told) in enumerate(started):
            if told:
                assert child.stdin
                assert child.stdout
                print("turn", file=child.stdin, flush=True)
                wall, cpu = map(float, child.stdout.readline().split())
                turns[place].append((wall, cpu))
    first = statistics.median(wall for wall, _ in turns[0])
    for (runtime, precision), (child, load_s, told), taken in zip(WAYS, started, turns, strict=True):
        name = f"{model:<9} {runtime:<9} {precision:<9}"
        if not told:
            print(f"{name} refused here", flush=True)
            continue
        wall, cpu = statistics.median(wall for wall, _ in taken), statistics.median(cpu for _, cpu in taken)
        drift, peak_mb = map(float, told)
        print(f"{name} {load_s:7.1f} {peak_mb:7.0f} {crops / wall:8.1f} {crops / cpu:8.1f}", end=" ")
        print(f"{first / wall:6.2f} {drift:8.1e}", flush=True)
        child.communicate()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve, arguments.crops)
        return
    from tests.support.made_bundle import made_bundle

    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'network':<9} {'runtime':<9} {'precision':<9} {'load s':>7} {'MB':>7} {'crops/s':>8} {'a CPU s':>8}"
          f" {'times':>6} {'drift':>8}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            made_bundle(LocalStorage(Path(folder) / model), model=model, side=SIDES[model])
            compare(model, Path(folder) / model, arguments.rounds, arguments.crops)


if __name__ == "__main__":
    main()
