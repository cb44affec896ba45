"""Small corpora with planted leaks in, splits that cut none of them out; what cannot be split is refused."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch.model.groups import group_faces, largest_group
from batch.model.index import load_index
from batch.model.records import FaceIndex, Split
from batch.model.split import By, SplitOptions, SplitTable, loose_fakes, make_split
from batch.schemas import splits_schema
from batch.storage.local import LocalStorage
from tests.support.face_outputs import Clip, corpus, fake, index_of, picture, real, write_output

SPLITS = tuple(Split)


def where(index: FaceIndex, split: SplitTable) -> dict[str, str | None]:
    """The split of each clip."""
    return dict(zip(index.table["video_uri"].to_pylist(), split.table["split"].to_pylist(), strict=True))


def together(index: FaceIndex, *ends: str) -> bool:
    """Whether the clips whose uris end so are one group."""
    groups = group_faces(index).of_faces().to_pylist()
    uris = index.table["video_uri"].to_pylist()
    return len({groups[row] for row, uri in enumerate(uris) if uri.endswith(ends)}) == 1


def test_a_source_and_its_fakes_are_never_parted() -> None:
    index = index_of(corpus(30, fakes=4))
    split = make_split(index, SplitOptions())
    assert split.table.schema.equals(splits_schema(), check_metadata=True)
    assert split.table["face"].equals(index.table["face"])
    by_source: dict[str, set[str]] = {}
    for source, name in zip(index.table["source_id"].to_pylist(), split.table["split"].to_pylist(), strict=True):
        by_source.setdefault(source, set()).add(name)
    assert all(len(names) == 1 for names in by_source.values())
    assert not any(split.groups(one) & split.groups(other) for one, other in itertools.combinations(SPLITS, 2))
    rows = np.concatenate([split.rows(name) for name in SPLITS])
    assert sorted(rows.tolist()) == list(range(index.table.num_rows))


def test_a_fake_of_a_fake_stays_with_the_first_original() -> None:
    chain = [
        real("p/a.mp4"),
        fake("p/b.mp4", "a.mp4"),
        fake("q/c.mp4", "b.mp4"),
        fake("r/d.mp4", "q/c.mp4"),  # named by its key, as tables do
        fake("r/e.mp4", "not-there.mp4"),
        fake("p/f.mp4", "not-there.mp4"),
    ]
    index = index_of([*chain, *corpus(4)])
    assert together(index, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    assert together(index, "e.mp4", "f.mp4")
    assert not together(index, "a.mp4", "e.mp4")
    assert not together(index, "a.mp4", "real0000.mp4")


def test_fakes_that_nothing_ties_to_a_real_face_are_counted() -> None:
    """Folder labels name no original; people are those of real clips, so a fake whose original is gone has none."""
    clips = [*corpus(12), fake("p/of_unknown.mp4", "p/of_unknown.mp4"), fake("p/of_absent.mp4", "absent.mp4")]
    index = index_of(clips)
    split = make_split(index, SplitOptions())
    found = {by: loose_fakes(index, split, by) for by in ("source", "given", "identity", "part")}  # type: ignore[arg-type]
    assert found == {"source": 1, "given": 1, "identity": 2, "part": 0}
    tied = make_split(index, SplitOptions(), duplicates=np.array([[0, index.table.num_rows - 2]]))
    assert loose_fakes(index, tied, "source") == 0, "a near-duplicate ties it"


def test_equal_file_names_in_two_folders_are_two_sources() -> None:
    clips = [Clip(key=key, label=0, source=key) for key in ("clip.mp4", "a/clip.mp4", "b/clip.mp4")]
    index = index_of(clips)
    assert len(set(group_faces(index).ids)) == 3


def test_two_outputs_of_one_corpus_share_its_sources(tmp_path: Path) -> None:
    one, two = (LocalStorage(str(tmp_path / name)) for name in ("one", "two"))
    write_output(one, [real("p/a.mp4")], root="/all/dfdc")
    write_output(two, [fake("b.mp4", "a.mp4"), fake("c.mp4", "p/a.mp4")], root="/all/dfdc/q")
    assert together(load_index([one, two]), "a.mp4", "b.mp4", "c.mp4")


def test_pairs_merge_groups() -> None:
    index = index_of(corpus(6, fakes=1))
    pairs = np.asarray([[0, 2], [3, 9]])
    groups = group_faces(index, pairs=pairs)
    assert len(groups.ids) == 4
    assert groups.numbers[0] == groups.numbers[3] == groups.numbers[9] != groups.numbers[4]
    largest = largest_group(index, groups)
    assert (largest.faces, largest.share) == (6, 0.5)
    assert largest.sources == tuple(sorted(index.table["source_id"][row].as_py() for row in (0, 2, 9)))


def test_group_ids_do_not_depend_on_the_data_around() -> None:
    small, large = index_of(corpus(5)), index_of(corpus(9), "/elsewhere")
    assert set(group_faces(small).ids) < set(group_faces(large).ids)


@pytest.mark.parametrize(("sources", "fakes"), [(3, 1), (5, 1), (30, 4), (400, 2)])
def test_every_split_has_both_classes_in_its_share(sources: int, fakes: int) -> None:
    index = index_of(corpus(sources, fakes))
    counts = make_split(index, SplitOptions(validation=0.2, test=0.1, seed=sources)).counts()
    # One group of them all, or the tolerance, whichever is more.
    slack = max(0.0101, 1 / sources)
    for name, share in (("train", 0.7), ("validation", 0.2), ("test", 0.1)):
        assert counts[name]["real"] >= 1
        assert abs(counts[name]["real"] / sources - share) <= slack or sources < 10
        assert counts[name]["fake"] == counts[name]["real"] * fakes


def test_classes_in_groups_of_their_own_are_shared_out_alike() -> None:
    clips = [real(f"p/r{nth:03d}.mp4") for nth in range(60)] + [fake(f"p/f{n:03d}.mp4", f"x{n}") for n in range(200)]
    counts = make_split(index_of(clips), SplitOptions()).counts()
    assert counts["validation"] == {"real": 9, "fake": pytest.approx(30, abs=2), "unknown": 0}
    assert counts["test"] == {"real": 9, "fake": pytest.approx(30, abs=2), "unknown": 0}


def test_a_large_group_goes_where_there_is_room() -> None:
    clips = [*corpus(20, fakes=1), *(fake(f"p/more{nth}.mp4", "real0003.mp4") for nth in range(30))]
    for seed in range(8):
        index = index_of(clips)
        split = make_split(index, SplitOptions(seed=seed))
        assert where(index, split)["/in/p/more0.mp4"] == "train"


def test_a_corpus_that_grows_keeps_its_splits() -> None:
    before_index, after_index = index_of(corpus(600)), index_of(corpus(900))
    before = where(before_index, make_split(before_index, SplitOptions()))
    after = where(after_index, make_split(after_index, SplitOptions()))
    assert sum(after[uri] != name for uri, name in before.items()) / len(before) < 0.03
    other = where(before_index, make_split(before_index, SplitOptions(seed=1)))
    assert sum(other[uri] != name for uri, name in before.items()) / len(before) > 0.2


def test_the_order_of_the_data_has_no_influence() -> None:
    clips = corpus(40)
    one, other = index_of(clips), index_of(clips[::-1])
    assert where(one, make_split(one, SplitOptions())) == where(other, make_split(other, SplitOptions()))


def test_parts_are_whole_and_take_their_sources_along() -> None:
    clips = [*corpus(40, parts=8), fake("part_7/strange.mp4", "real0000.mp4")]
    index = index_of(clips)
    split = make_split(index, SplitOptions(by="part"))
    by_part: dict[str, set[str]] = {}
    for part, name in zip(index.table["part"].to_pylist(), split.table["split"].to_pylist(), strict=True):
        by_part.setdefault(part, set()).add(name)
    assert all(len(names) == 1 for names in by_part.values())
    assert by_part["part_0"] == by_part["part_7"]


def test_faces_of_unknown_label_are_in_no_split() -> None:
    clips = [*corpus(9), *(Clip(key=f"p/u{nth}.mp4", label=None, source=f"u{nth}.mp4") for nth in range(5))]
    index = index_of(clips)
    split = make_split(index, SplitOptions())
    assert split.counts()["left_out"] == {"real": 0, "fake": 0, "unknown": 5}
    assert where(index, split)["/in/p/u3.mp4"] is None
    assert sum(len(split.rows(name)) for name in SPLITS) == 27


@pytest.mark.parametrize(
    ("clips", "told"),
    [
        (corpus(2), "train has"),
        ([real(f"p/{nth}.mp4") for nth in range(20)], "no fake face in train"),
        ([fake(f"p/{nth}.mp4", f"o{nth}") for nth in range(20)], "no real face in train"),
        (
            [Clip(key=f"p/u{nth}.mp4", label=None, source=f"u{nth}.mp4") for nth in range(9)],
            "; 9 faces have no label: see --labels of `fakesift preprocess`",
        ),
        ([*(fake(f"p/f{nth}.mp4", "a.mp4") for nth in range(20)), real("p/a.mp4")], "in 1 groups"),
    ],
)
def test_a_split_without_one_class_is_refused(clips: Sequence[Clip], told: str) -> None:
    with pytest.raises(ValueError, match=r"split by source: no (real|fake) face in .* has \d+ real and \d+ fake") as no:
        make_split(index_of(clips), SplitOptions())
    assert told in str(no.value)


def test_a_corpus_without_fakes_is_split_where_fakes_are_made_of_real_faces() -> None:
    index = index_of([real(f"p/{nth}.mp4") for nth in range(40)])
    split = make_split(index, SplitOptions(), needs_fakes=False)
    counts = split.counts()
    assert sum(counts[str(name)]["real"] for name in SPLITS) == 40
    assert all(abs(counts[name]["real"] - 6) <= 1 for name in ("validation", "test"))
    with pytest.raises(ValueError, match=r"no real face in train, .* expected real faces in every split"):
        make_split(index_of([fake(f"p/{nth}.mp4", f"o{nth}") for nth in range(20)]), SplitOptions(), needs_fakes=False)


def given(sources: int) -> list[Clip]:
    """A corpus whose labels name a split for each source, in several spellings."""
    names = ["train", "Training ", "val", "valid", "dev", "TEST"]
    return [
        replace(clip, split=names[int(clip.source.removeprefix("real")[:4]) % len(names)]) for clip in corpus(sources)
    ]


def test_given_splits_are_taken_as_they_are() -> None:
    index = index_of([*given(12), Clip(key="p/u.mp4", label=None, source="u.mp4")])
    split = make_split(index, SplitOptions(by="given"))
    assert where(index, split)["/in/part_1/real0001.mp4"] == "train"
    assert where(index, split)["/in/part_1/real0004.mp4"] == "validation"
    assert where(index, split)["/in/part_2/fake0005_1.mp4"] == "test"
    assert where(index, split)["/in/p/u.mp4"] is None


@pytest.mark.parametrize("name", [None, "trian", ""])
def test_a_given_split_that_means_nothing_is_refused(name: str | None) -> None:
    index = index_of([*given(12), replace(real("p/odd.mp4"), split=name)])
    with pytest.raises(ValueError, match=r"/in/p/odd.mp4: split .* expected one of train"):
        make_split(index, SplitOptions(by="given"))


def test_given_splits_that_cut_a_group_are_refused() -> None:
    """By source, by a chain, and by a copy."""
    leak = replace(fake("p/leak.mp4", "real0000.mp4"), split="test")
    with pytest.raises(ValueError, match=r"cut group [0-9a-f]{16}: .*real0000.mp4 \(train\) and .*leak.mp4 \(test\)"):
        make_split(index_of([*given(12), leak]), SplitOptions(by="given"))
    chain = replace(fake("p/leak.mp4", "fake0000_1.mp4"), split="test")
    with pytest.raises(ValueError, match=r"real0000.mp4 \(train\) and .*leak.mp4 \(test\)"):
        make_split(index_of([*given(12), chain]), SplitOptions(by="given"))
    index = index_of([*given(12), replace(real("p/copy.mp4"), split="test")])
    assert make_split(index, SplitOptions(by="given")).counts()["test"]["real"] == 3
    with pytest.raises(ValueError, match=r"real0000.mp4 \(train\) and .*copy.mp4 \(test\)"):
        make_split(index, SplitOptions(by="given"), duplicates=np.asarray([[0, index.table.num_rows - 1]]))


def test_people_may_not_be_one_large_group() -> None:
    index = index_of(corpus(30, fakes=1))
    with pytest.raises(ValueError, match="got no people"):
        make_split(index, SplitOptions(by="identity"))
    twos = np.asarray([[4 * nth, 4 * nth + 2] for nth in range(15)])
    split = make_split(index, SplitOptions(by="identity"), people=twos)
    assert all(split.table["group"][one] == split.table["group"][other] for one, other in twos.tolist())
    crowd = np.asarray([[0, 2 * nth] for nth in range(7)])
    with pytest.raises(ValueError, match=r"has 23% of the faces \(14 of 60, 7 sources as real0000.mp4"):
        make_split(index, SplitOptions(by="identity"), people=crowd)
    assert make_split(index, SplitOptions(by="source"), people=crowd).counts()["train"]["real"] == 21


def test_the_file_holds_the_split() -> None:
    index = index_of([*corpus(12), Clip(key="u.mp4", label=None, source="u")])
    split = make_split(index, SplitOptions())
    again = SplitTable.from_parquet(split.to_parquet())
    again.check(index)
    assert again.table.equals(split.table)
    assert again.digest == split.digest != make_split(index, SplitOptions(seed=5)).digest
    assert again.to_parquet() == split.to_parquet()
    with pytest.raises(ValueError, match="train into a new output"):
        split.check(index_of(corpus(12)))
    with pytest.raises(ValueError, match="damaged"):
        SplitTable.from_parquet(split.to_parquet()[:-5])


@pytest.mark.parametrize(("by", "validation", "test"), [("people", 0.1, 0.1), ("source", 0, 0.1), ("source", 0.5, 0.5)])
def test_options_that_cannot_be_are_refused(by: By, validation: float, test: float) -> None:
    with pytest.raises(ValueError, match=r"got .*expected"):
        SplitOptions(by=by, validation=validation, test=test)


def test_crops_of_one_clip_stay_together() -> None:
    clips = [replace(clip, crops=[picture(1), picture(2), picture(3)]) for clip in corpus(8)]
    split = make_split(index_of(clips), SplitOptions())
    assert all(len(split.rows(name)) % 9 == 0 for name in SPLITS)
