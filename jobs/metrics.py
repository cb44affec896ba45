"""What a job is doing, as Prometheus metrics: Ray exports them on each node, their names beginning `ray_fakesift_`.

`cluster/grafana.json` draws them. They are for watching: the truth about a run stands in its commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from batch.shards.commit import Commit

METRICS: Mapping[str, tuple[Literal["counter", "gauge"], str, tuple[str, ...]]] = {
    "fakesift_units": ("counter", "Units of work committed", ("job_name",)),
    "fakesift_videos": ("counter", "Videos or images with an outcome", ("job_name", "outcome")),
    "fakesift_faces": ("counter", "Face crops written or scored", ("job_name",)),
    "fakesift_bytes_read": ("counter", "Bytes read from storage", ("job_name",)),
    "fakesift_requests": ("counter", "Requests to storage", ("job_name",)),
    "fakesift_loss": ("gauge", "Training loss of the last reported step", ("job_name",)),
    "fakesift_images_per_second": ("gauge", "Images that training takes in a second", ("job_name",)),
}


def exported_name(name: str) -> str:
    """As Prometheus sees a metric of `METRICS`."""
    return f"ray_{name}_total" if METRICS[name][0] == "counter" else f"ray_{name}"


class JobMetrics:
    """The metrics of one job, in a process that has joined a Ray cluster."""

    def __init__(self, job: str) -> None:
        """`job` is the command's name and becomes the label `job_name` (`job` is Prometheus' own)."""
        from ray.util.metrics import Counter, Gauge

        kinds: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge}
        self._job = job
        self._made = {
            name: kinds[kind](name, description=text, tag_keys=tags) for name, (kind, text, tags) in METRICS.items()
        }

    def unit(self, *, reasons: Mapping[str, int], faces: int, bytes_read: int, requests: int) -> None:
        """Counts a committed unit; `reasons` are its videos by outcome."""
        self._add("fakesift_units", 1)
        for outcome, videos in reasons.items():
            self._add("fakesift_videos", videos, outcome=outcome)
        self._add("fakesift_faces", faces)
        self._add("fakesift_bytes_read", bytes_read)
        self._add("fakesift_requests", requests)

    def commit(self, commit: Commit) -> None:
        """Counts a unit of preprocessing."""
        faces = 0 if commit.faces is None else commit.faces.rows
        self.unit(reasons=commit.reasons, faces=faces, bytes_read=commit.bytes_read, requests=commit.requests)

    def step(self, *, loss: float, images_per_second: float) -> None:
        """Sets how training stands."""
        self._made["fakesift_loss"].set(loss, tags={"job_name": self._job})
        self._made["fakesift_images_per_second"].set(images_per_second, tags={"job_name": self._job})

    def _add(self, name: str, value: int, **tags: str) -> None:
        if value > 0:  # Ray refuses to count nothing
            self._made[name].inc(value, tags={"job_name": self._job, **tags})
