"""What a night of scoring takes, from a sample."""

import numpy as np
import pytest

from batch.records import VideoRef
from batch.scoring.sizing import ItemSample, ModelSample, draw_items, measure_model, size_scoring

SAMPLE = ItemSample(
    items=24, with_face=0.9, seconds=0.9, seconds_error=0.05, frames=16.0, crops=18.0, bytes_read=5e5, requests=9.0
)
ON_CPU = ModelSample(device="2 CPU cores", gpu=False, cpus=2, crops_per_s=20.0, error=1.0, load_s=36.0)
ON_GPU = ModelSample(device="GPU", gpu=True, cpus=1, crops_per_s=10_000.0, error=1.0, load_s=36.0)


def item(key: str, part: int = 0) -> VideoRef:
    return VideoRef(key=key, size_bytes=1, etag="e", part=str(part), label=None, source_id=key)


def test_a_night_is_the_mean_times_its_items() -> None:
    sizing = size_scoring(SAMPLE, ON_CPU, 20_000, listed=1_500_000)
    assert sizing.look_cpu_hours == pytest.approx(5.0)
    assert sizing.look_cpu_hours_error == pytest.approx(2 * 0.05 * 20_000 / 3600)
    assert sizing.crops == 360_000
    assert sizing.model_hours == pytest.approx(5.0)
    assert sizing.bytes_read == 1e10
    units = 1_250  # of 16 videos with 16 frames
    assert sizing.put_requests == 3 * units
    assert sizing.get_requests == 9 * 20_000 + 1_500 + 2 * units  # the listing is walked each night


def test_on_cores_extraction_and_model_add_up_and_on_gpus_they_do_not() -> None:
    on_cpu = size_scoring(SAMPLE, ON_CPU, 20_000, 20_000)
    assert on_cpu.hours(2, 10, 0, 0.5) == pytest.approx((5.0 + 5.0 * 2) / 10 + 0.01)
    on_gpu = size_scoring(SAMPLE, ON_GPU, 20_000, 20_000)
    assert on_gpu.hours(2, 10, 1, 0.5) == pytest.approx(5.0 / 10 + 0.01)
    slow = size_scoring(SAMPLE, ModelSample(**{**_fields(ON_GPU), "crops_per_s": 10.0}), 20_000, 20_000)
    assert slow.hours(2, 10, 1, 0.5) == pytest.approx(10.0 / (2 * 0.5) + 0.01)
    assert slow.hours(2, 10, 4, 0.5) == pytest.approx(10.0 / (2 * 4 * 0.5) + 0.01)


def _fields(model: ModelSample) -> dict[str, object]:
    return {name: getattr(model, name) for name in ModelSample.__dataclass_fields__}


def test_a_sample_is_seeded_and_in_the_order_of_inputs() -> None:
    items = [item(f"{number}.mp4", part) for part in (0, 1) for number in range(200)]
    drawn = draw_items(items, 20, seed=1)
    assert drawn == draw_items(reversed(items), 20, seed=1) != draw_items(items, 20, seed=2)
    assert drawn == sorted(drawn, key=lambda each: (each.part, each.key))
    assert {each.part for each in drawn} == {"0", "1"}
    assert len(draw_items(items[:3], 20, seed=1)) == 3


def test_a_model_is_timed_on_whole_batches() -> None:
    shapes = []

    def load() -> tuple[object, bool, str]:
        return lambda crops: shapes.append(crops.shape), False, "cores"

    sample = measure_model(load, np.zeros((3, 8, 8, 3), np.uint8), batch_size=7, cpus=2)  # type: ignore[arg-type]
    assert set(shapes) == {(7, 8, 8, 3)}
    assert len(shapes) == 51  # a call too fast to take a second in all
    assert (sample.gpu, sample.device, sample.cpus) == (False, "cores", 2)
    assert sample.crops_per_s > 0
