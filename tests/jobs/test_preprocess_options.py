"""What the command line of preprocess means, without running it."""

import pytest

from batch.faces.options import REFERENCE, FaceOptions
from batch.records import Reason
from jobs.preprocess_options import PreprocessOptions


def options(**given: object) -> PreprocessOptions:
    return PreprocessOptions(input="in", output="out", **given)  # type: ignore[arg-type]


def test_presets_and_single_values() -> None:
    assert options().face_options() == FaceOptions()
    assert options(preset="reference").face_options() == REFERENCE
    mixed = options(preset="reference", margin=0.3, frames=4, faces="all").face_options()
    assert (mixed.crop.margin, mixed.crop.border, mixed.frames, mixed.faces) == (0.3, "clip", 4, "all")


@pytest.mark.parametrize(("text", "size"), [("20GB", 20 * 10**9), ("1.5mb", 1_500_000), ("700", 700), (None, None)])
def test_sample_sizes(text: str | None, size: int | None) -> None:
    assert options(sample=text).sample_bytes() == size


def test_too_many_faults() -> None:
    assert not options().too_many_faults(10**6, 10**6)
    assert options(max_faults="3").too_many_faults(4, 5)
    assert not options(max_faults="3").too_many_faults(3, 5)
    assert options(max_faults="5%").too_many_faults(6, 100)
    assert not options(max_faults="5%").too_many_faults(6, 99)
    assert not options(max_faults="5%").too_many_faults(5, 100)


def test_what_is_retried() -> None:
    assert options().retried() == frozenset()
    assert options(retry="timeout").retried() == {Reason.TIMEOUT}
    assert Reason.STORAGE_ERROR in options(retry="faults").retried()
    assert Reason.NO_FACE not in options(retry="faults").retried()
    with pytest.raises(ValueError, match="retry: got 'no_face'"):
        options(retry="no_face").check()
