"""What augmentation draws: from seed, epoch and face alone, within the recipe's ranges, in the recipe's shares."""

import numpy as np
import pytest

from batch.model.draws import (
    AFFINE,
    BLUR,
    COLOUR,
    CUT,
    DRAWS,
    JPEG,
    NOISE,
    NOISE_SEED,
    RANGES,
    SCALE,
    draw,
    identity,
    uniform,
)  # fmt: skip
from batch.model.jpeg import recompress
from tests.support.face_shards import crop_of

MANY = np.arange(20_000)


def test_a_faces_draws_are_its_own() -> None:
    whole = draw("robust", 7, 3, MANY)
    some = np.array([11, 4000, 2, 19_999])
    assert np.array_equal(draw("robust", 7, 3, some), whole[some])
    for other in (draw("robust", 8, 3, MANY), draw("robust", 7, 4, MANY), draw("reference", 7, 3, MANY)):
        assert (other[:, AFFINE] != whole[:, AFFINE]).any(axis=1).mean() > 0.99
    assert len(np.unique(whole[:, AFFINE][:, 2])) > 19_000


def test_uniform_is_uniform_and_columns_are_independent() -> None:
    values = uniform(0, 0, MANY, 32)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in values.T])
    chi = ((counts - 1000) ** 2 / 1000).sum(axis=1)
    assert chi.max() < 60, "19 degrees of freedom: one in 300,000"
    correlation = np.corrcoef(values.T) - np.eye(32)
    assert np.abs(correlation).max() < 0.04
    neighbours = np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]
    assert abs(neighbours) < 0.03


def test_robust_draws_keep_to_their_ranges() -> None:
    draws, ranges = draw("robust", 1, 1, MANY), RANGES["robust"]
    for column, (share, least, most), otherwise in (
        (BLUR, ranges.blur, 0),
        (SCALE, ranges.scale, 1),
        (NOISE, ranges.noise, 0),
        (JPEG, ranges.jpeg, 0),
    ):
        used = draws[draws[:, column] != otherwise, column]
        assert len(used) / len(draws) == pytest.approx(share, abs=0.02)
        assert used.min() >= np.float32(least)
        assert used.max() <= np.float32(most)
    left, top, right, bottom = draws[:, CUT].T
    cut = right > left
    assert cut.mean() == pytest.approx(ranges.cut[0], abs=0.02)
    for size in (right[cut] - left[cut], bottom[cut] - top[cut]):
        assert size.min() >= ranges.cut[1] - 1e-6
        assert size.max() <= ranges.cut[2] + 1e-6
    assert draws[:, CUT].min() >= 0
    assert draws[:, CUT].max() <= 1
    a, b, _, d, e, _ = draws[:, AFFINE].T
    assert (a * e - b * d < 0).mean() == pytest.approx(0.5, abs=0.02), "half of them are flipped"
    assert np.abs(np.log(np.hypot(b, e))).max() <= ranges.zoom + 1e-6
    assert (draws[:, NOISE_SEED] == np.floor(draws[:, NOISE_SEED])).all()
    assert draws[:, NOISE_SEED].max() < 2**24


def test_reference_draws_leave_out_what_it_never_does() -> None:
    draws = draw("reference", 1, 1, MANY)
    for column in (BLUR, SCALE, NOISE, CUT, JPEG):
        assert np.array_equal(draws[:, column], identity(len(MANY))[:, column])
    assert (draws[:, COLOUR] != identity(1)[:, COLOUR]).any()
    assert np.array_equal(draw("none", 1, 1, MANY), identity(len(MANY)))
    assert draws.shape == (len(MANY), DRAWS)
    assert draws.dtype == np.float32


def test_colour_keeps_greys_grey() -> None:
    matrix = draw("robust", 1, 1, MANY)[:, COLOUR].reshape(-1, 3, 4)
    grey = matrix[:, :, :3].sum(axis=2) * 0.5 + matrix[:, :, 3]
    assert np.ptp(grey, axis=1).max() < 1e-5
    assert np.abs(grey - 0.5).max() <= RANGES["robust"].brightness + 1e-5


def test_jpeg_loses_more_at_less_quality() -> None:
    image = crop_of(3, 64)
    losses = [np.abs(recompress(image, quality).astype(int) - image).mean() for quality in (95, 60, 20)]
    assert 0 < losses[0] < losses[1] < losses[2]
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    assert recompress(red, 90).mean(axis=(0, 1)) == pytest.approx([200, 0, 0], abs=4), "channels keep their places"
