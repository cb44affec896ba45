"""What a grid of heads on a frozen network costs with shared features and without: two runs of `fakesift tune`.

    python tests/benchmarks/tune.py demo/faces --weights FILE            # 8 heads, 3 epochs, the same cores
    python tests/benchmarks/tune.py FACES --heads 32 --epochs 10 --resources-per-trial cpu=2,gpu=0.25

Both runs have the same faces, split, seeds and configurations; the second computes every trial's features anew, as
`fakesift train` would. Prints wall seconds of both jobs (start of Ray, split and final test included), seconds of the
trials, and of the features that they share, summed over all tasks; the ratios of wall seconds and of all work of trials
and features; and the largest difference between the validation losses of the two.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RATES = (0.01, 0.003, 0.001, 0.0003)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A run."""

    wall_s: float
    trials_s: float
    """Summed over trials."""
    features_s: float
    """Of shared features, summed over the tasks that computed them; 0 where each trial computes its own."""
    losses: dict[str, float]
    """On validation, by trial."""

    @property
    def work_s(self) -> float:
        """Of trials, and of features once."""
        return self.trials_s + self.features_s


def grid(heads: int, epochs: int, weights: str) -> dict[str, object]:
    """So many heads: two optimizers at up to four rates, and a value of dropout for each 8 of them."""
    dropouts = [round(0.5 * place / max(1, heads // 8), 3) for place in range(max(1, heads // 8))]
    return {
        "fixed": {
            "model": "xception", "weights": weights, "epochs": 0, "head_epochs": epochs, "augment": "reference",
        },
        "grid": {
            "optimizer": ["adam", "sgd"], "head_learning_rate": list(RATES)[: max(1, heads // 2)],
            "dropout": dropouts,
        },
    }  # fmt: skip


def run(faces: str, output: Path, path: Path, share: str, more: list[str]) -> Timed:
    """One job."""
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "tune",
        faces,
        str(output),
        "--grid",
        str(path),
        "--share",
        share,
        *more,
    ]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    wall_s = time.perf_counter() - started
    rows = list(csv.DictReader((output / "trials.csv").open()))
    losses = {row["trial"]: float(row["validation_loss"]) for row in rows}
    features_s = float(json.loads((output / "features.json").read_text())["seconds"])
    trials_s = sum(float(row["seconds"]) for row in rows)
    return Timed(wall_s=wall_s, trials_s=trials_s, features_s=features_s, losses=losses)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    given, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_text(yaml.safe_dump(grid(given.heads, given.epochs, given.weights)))
        shared = run(given.faces, Path(folder) / "shared", path, "all", more)
        alone = run(given.faces, Path(folder) / "alone", path, "none", more)
        device = json.loads((Path(folder) / "shared/summary.json").read_text())["device"]
    apart = max(abs(shared.losses[name] - alone.losses[name]) for name in shared.losses)
    print(f"device {device}; {len(shared.losses)} heads of {given.epochs} epochs")
    print(f"{'':<24}{'whole job':>12}{'trials':>12}{'features':>12}{'both':>12}")
    for name, timed in (("features shared", shared), ("each by itself", alone)):
        seconds = (timed.wall_s, timed.trials_s, timed.features_s, timed.work_s)
        print(f"{name:<24}" + "".join(f"{value:>10.1f} s" for value in seconds))
    print(f"ratio of whole jobs {alone.wall_s / shared.wall_s:.2f}, of trials with their features", end=" ")
    print(f"{alone.work_s / shared.work_s:.2f}")
    print(f"largest difference of a validation loss: {apart:.1e}")


if __name__ == "__main__":
    main()
