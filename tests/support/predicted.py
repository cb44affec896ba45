"""Predictions as a trained network gives them: some thousand faces with noise, by clip and group, and drawn crops."""

import numpy as np
import pyarrow as pa

from batch.model.calibration import NO_CALIBRATION
from batch.schemas import predictions_schema


def predictions(
    groups: int = 120, clips: int = 3, frames: int = 4, *, apart: float = 2.0, warmth: float = 1.0, seed: int = 0,
    parts: int = 3, split: str = "test",
) -> pa.Table:  # fmt: skip
    """Every group has one real clip and `clips` fakes; logits lie `apart` between the classes, with noise by group,
    clip and frame, and are `warmth` times too large."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        shift, part = rng.normal(0, 0.5), f"part_{group % parts}"
        for clip in range(clips + 1):
            own = rng.normal(0, 0.7)
            side = int(rng.integers(40, 400))
            height = int(rng.choice([360, 480, 720, 1080]))
            for frame in range(frames):
                sign = 1 if clip else -1
                logit = warmth * (sign * apart / 2 + shift + own + rng.normal(0, 0.7))
                rows.append({
                    "face": f"s3://clips/{part}/g{group:03}c{clip}.mp4#{frame}",
                    "video_uri": f"s3://clips/{part}/g{group:03}c{clip}.mp4",
                    "track_id": 0, "label": int(clip > 0), "group": f"{group:016x}", "split": split, "part": part,
                    "face_width_px": side, "face_height_px": side + 9, "frame_height_px": height,
                    "logit": logit, "probability": float(NO_CALIBRATION(logit)),
                })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=predictions_schema())
