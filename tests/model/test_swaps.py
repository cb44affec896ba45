from pathlib import Path

import numpy as np
import pytest

from batch.model.index import load_index
from batch.model.records import Split
from batch.model.split import SplitOptions, make_split
from batch.storage.local import LocalStorage
from tests.benchmarks.face_swap import Photo, hull_mask, swap
from tests.benchmarks.real_clips import people_in
from tests.benchmarks.swaps import PHOTOS, finished, make_clips, pair_photos, read_photos, write_swaps

pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photographs: {PHOTOS} is absent")


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return read_photos(PHOTOS, 60, seed=0)


@pytest.fixture(scope="module")
def pairs(photos: list[Photo]) -> list[tuple[Photo, Photo]]:
    return pair_photos(photos, seed=0)


def test_a_photograph_is_in_one_pair_at_most_and_with_its_like(pairs: list[tuple[Photo, Photo]]) -> None:
    names = [photo.name for pair in pairs for photo in pair]

    assert len(pairs) > 15
    assert len(names) == len(set(names))
    assert all(target.group == donor.group for target, donor in pairs)


def test_refined_pairs_are_more_alike(photos: list[Photo], pairs: list[tuple[Photo, Photo]]) -> None:
    def years_apart(found: list[tuple[Photo, Photo]]) -> float:
        return float(np.mean([abs(target.age - donor.age) for target, donor in found]))

    assert years_apart(pair_photos(photos, seed=0, refined=True)) < years_apart(pairs)


def test_a_swap_changes_the_middle_of_the_face_and_nothing_around_it(pairs: list[tuple[Photo, Photo]]) -> None:
    for target, donor in pairs[:5]:
        swapped = swap(target, donor, np.random.default_rng(0))
        changed = np.abs(swapped.astype(int) - target.rgb).max(axis=2)
        inside = hull_mask(target) > 0

        assert changed[~inside].mean() < 0.5
        assert changed[~inside].max() < 10
        assert np.median(changed[inside]) > 4
        # The donor's colours and light were made the target's: nobody sees a sticker.
        assert np.abs(swapped[inside].mean(axis=0) - target.rgb[inside].mean(axis=0)).max() < 12


def test_real_and_swapped_pictures_go_through_the_same_pipeline(pairs: list[tuple[Photo, Photo]]) -> None:
    target, donor = pairs[0]
    real, fake = (
        finished(image, 128, np.random.default_rng(3))
        for image in (target.rgb, swap(target, donor, np.random.default_rng(0)))
    )

    # The edge of the picture, which no swap reaches, differs by what JPEG carries over from its neighbours alone.
    assert np.abs(real[:6].astype(int) - fake[:6]).mean() < 2
    assert not np.array_equal(real, finished(target.rgb, 128, np.random.default_rng(4)))


def test_the_same_seed_makes_the_same_faces() -> None:
    first, again = ([clip.crops[0] for clip in make_clips(PHOTOS, 8, [64], seed)] for seed in (1, 1))
    other = [clip.crops[0] for clip in make_clips(PHOTOS, 8, [64], 2)]

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_split_cuts_a_pair(tmp_path: Path) -> None:
    sinks = {side: LocalStorage(str(tmp_path / str(side))) for side in (32, 64)}
    write_swaps(sinks, 80, seed=0)
    for side, sink in sinks.items():
        index = load_index([sink])
        split = make_split(index, SplitOptions(by="source"))
        sources = np.asarray(index.table["source_id"].to_pylist())
        held = [set(sources[split.rows(name)]) for name in Split]

        assert index.face_options.crop.crop_size == side
        assert np.bincount(index.labels).tolist() == [40, 40]
        assert all(held)
        assert sum(map(len, held)) == len(set.union(*held)) == 20


@pytest.mark.parametrize(
    ("name", "people"),
    [
        ("ffpp_deepfakes_183_253.mp4", ["ffpp 183", "ffpp 253"]),
        ("ffpp_183.mp4", ["ffpp 183"]),
        ("dfdc23_01_02__walk_down_hall_angry__YVGY8LOK.mp4", ["dfd 01", "dfd 02"]),
        ("dfd_01__kitchen_pan.mp4", ["dfd 01"]),
        ("retalk_1.mp4", ["retalk_1.mp4"]),
    ],
)
def test_a_clips_name_says_who_is_in_it(name: str, people: list[str]) -> None:
    assert people_in(name) == people
