"""Work units: a pure, stable cut of the listing."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from batch.corpus.units import largest_unit, plan_units
from batch.faces.detect import DetectOptions
from batch.faces.options import CropOptions, FaceOptions
from batch.records import VideoRef

OPTIONS = FaceOptions()


def video(key: str, **changes: object) -> VideoRef:
    made = VideoRef(key=key, size_bytes=1000, etag="e", part="", label=0, source_id=key)
    return replace(made, **changes)  # type: ignore[arg-type]


def corpus(count: int) -> list[VideoRef]:
    return [video(f"part/{number:08d}.mp4") for number in range(count)]


def test_a_few_dozen_clips_give_some_sixteen_units() -> None:
    assert 10 <= len(list(plan_units(corpus(53), OPTIONS))) <= 26


def test_a_large_corpus_gives_units_near_the_largest() -> None:
    units = list(plan_units(corpus(119_000), OPTIONS))
    largest = largest_unit(OPTIONS)
    assert max(len(unit.videos) for unit in units) <= largest
    assert len(units) < 3 * 119_000 / largest


def test_more_frames_and_slower_detectors_give_smaller_units() -> None:
    hog = FaceOptions(detect=DetectOptions(detector="hog"))
    assert largest_unit(replace(hog, frames=8)) < largest_unit(hog) < largest_unit(OPTIONS)
    assert largest_unit(replace(hog, frames=10_000)) == 1


@settings(max_examples=60, deadline=None)
@given(keys=st.sets(st.text(min_size=1, max_size=12), max_size=200))
def test_every_video_is_in_one_unit_in_order(keys: set[str]) -> None:
    videos = [video(key) for key in sorted(keys, key=lambda key: key.encode("utf-8", "surrogatepass"))]
    units = list(plan_units(videos, OPTIONS))
    assert [v for unit in units for v in unit.videos] == videos
    assert len({unit.id for unit in units}) == len(units)


def test_a_video_that_comes_changes_few_units() -> None:
    videos = corpus(2000)
    before = {unit.id for unit in plan_units(videos, OPTIONS)}
    grown = sorted([*videos, video("part/00001000x.mp4")], key=lambda v: v.key)
    after = {unit.id for unit in plan_units(grown, OPTIONS)}
    assert len(after - before) <= 4 < len(after)


def test_an_id_depends_on_all_that_shapes_the_output() -> None:
    plain = [video("a.mp4")]
    ids = [next(plan_units(plain, OPTIONS)).id]
    for change in ({"etag": "f"}, {"size_bytes": 2}, {"label": 1}, {"source_id": "b"}):
        ids.append(next(plan_units([replace(plain[0], **change)], OPTIONS)).id)
    ids.append(next(plan_units(plain, FaceOptions(crop=CropOptions(margin=0.2)))).id)
    assert len(set(ids)) == len(ids)
    assert next(plan_units(plain, FaceOptions())).id == ids[0]


OPTIONS_OF_ALL_KINDS = [
    OPTIONS,
    replace(OPTIONS, frames=8),
    FaceOptions(detect=DetectOptions(detector="hog")),
    FaceOptions(detect=DetectOptions(detector="cnn"), frames=16),
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(0, 900), seed=st.integers(0, 10**6), options=st.sampled_from(OPTIONS_OF_ALL_KINDS))
def test_units_keep_their_bounds_and_do_not_depend_on_the_run(count: int, seed: int, options: FaceOptions) -> None:
    chance = Random(seed)
    videos = [video(key) for key in sorted({f"{chance.randrange(10**6):06d}.mp4" for _ in range(count)})]
    units = list(plan_units(videos, options))
    largest = largest_unit(options)
    assert all(1 <= len(unit.videos) <= largest for unit in units)
    assert all(len(unit.videos) >= min(2, largest) for unit in units[:-1])
    assert units == list(plan_units(iter(videos), options))
    assert [v for unit in units for v in unit.videos] == videos


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(1, 900), seed=st.integers(0, 10**6), comes=st.booleans())
def test_a_video_that_comes_or_goes_touches_few_units(count: int, seed: int, comes: bool) -> None:
    chance = Random(seed)
    keys = {f"{chance.randrange(10**6):06d}.mp4" for _ in range(count)}
    other = {*keys, f"{chance.randrange(10**6):06d}.mp4"} if comes else keys - {chance.choice(sorted(keys))}
    before, after = ({unit.id for unit in plan_units(map(video, sorted(each)), OPTIONS)} for each in (keys, other))
    assert len(after - before) <= 8
    assert len(before - after) <= 8
