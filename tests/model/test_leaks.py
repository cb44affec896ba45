"""One leak of each kind planted in real small outputs; each is merged into one group, refused, or seen afterwards."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from batch.model.fingerprint import Fingerprint, Overlap, fingerprint_of, overlap
from batch.model.index import load_index
from batch.model.near_duplicates import DuplicateOptions, find_duplicates, gather_looks, look_at_shards
from batch.model.perceptual_hash import Looks, close_between, close_pairs, look, mirrored, mirrored_hashes, moved_hashes
from batch.model.records import FaceIndex, Split
from batch.model.split import SplitOptions, make_split
from batch.records import RgbImage
from batch.storage.local import LocalStorage
from tests.support.face_outputs import FACES, SIDE, Clip, corpus, fake, picture, real, write_output


def prepared(sink: LocalStorage, clips: Sequence[Clip], **more: object) -> tuple[FaceIndex, Looks]:
    """An output of these clips, its index, and what its crops look like."""
    write_output(sink, clips, a_unit=4, **more)  # type: ignore[arg-type]
    index = load_index([sink])
    return index, gather_looks(index, reversed(list(look_at_shards(index))))


def at(folder: Path, name: str = "faces") -> LocalStorage:
    return LocalStorage(str(folder / name))


def named(index: FaceIndex, pairs: np.ndarray) -> set[tuple[str, str]]:
    """Pairs by file name."""
    names = [uri.rsplit("/", 1)[-1] for uri in index.table["video_uri"].to_pylist()]
    return {tuple(sorted((names[one], names[other]))) for one, other in pairs.tolist()}  # type: ignore[misc]


def jpeg(crop: RgbImage) -> RgbImage:
    return cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)  # type: ignore[return-value]


def smaller(crop: RgbImage) -> RgbImage:
    small = cv2.resize(crop, (SIDE // 3, SIDE // 3), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def brighter(crop: RgbImage) -> RgbImage:
    return np.clip(crop * 0.8 + 40, 0, 255).astype(np.uint8)


def moved(crop: RgbImage) -> RgbImage:
    """By 0.8% of its side, as a face that is found again in a copy of its clip."""
    matrix = np.asarray([[1, 0, 0.008 * SIDE], [0, 1, 0.008 * SIDE]], np.float32)
    return cv2.warpAffine(crop, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def turned(crop: RgbImage) -> RgbImage:
    return np.ascontiguousarray(crop[:, ::-1])


CHANGES = {"jpeg": jpeg, "smaller": smaller, "brighter": brighter, "moved": moved, "mirrored": turned, "same": np.copy}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_copy_under_another_name_joins_its_original(tmp_path: Path, change: object) -> None:
    shown = [picture(seed) for seed in range(5)]
    copied = [change(shown[3]), picture(99)]  # type: ignore[operator]
    clips = [*corpus(6), real("p/original.mp4", crops=shown), real("q/copy.mp4", crops=copied)]
    index, looks = prepared(at(tmp_path), clips)
    pairs = find_duplicates(index, looks)
    assert named(index, pairs) == {("copy.mp4", "original.mp4")}
    groups = make_split(index, SplitOptions(), duplicates=pairs).table["group"].to_pylist()
    uris = index.table["video_uri"].to_pylist()
    assert len({group for group, uri in zip(groups, uris, strict=True) if uri.endswith(("copy.mp4", "nal.mp4"))}) == 1


def test_many_copies_are_tied_by_a_few_pairs(tmp_path: Path) -> None:
    """Copies of a static clip and of a moving one, and copies of the copies: no pair more than groups to tie."""
    still = [picture(1)] * 4
    moving = [picture(seed) for seed in range(2, 6)]
    clips = [real(f"p/{nth:02d}.mp4", crops=[jpeg(crop) for crop in still] if nth % 2 else still) for nth in range(12)]
    clips += [real(f"q/{nth:02d}x.mp4", crops=moving[nth % 3 :]) for nth in range(12)]
    index, looks = prepared(at(tmp_path), [*clips, *corpus(3)])
    pairs = find_duplicates(index, looks)
    split = make_split(index, SplitOptions(validation=0.2, test=0.2), duplicates=pairs)
    assert len(set(split.table["group"].to_pylist())) == 2 + 3
    assert len(pairs) <= 40


def test_clips_of_one_source_need_no_pair(tmp_path: Path) -> None:
    crop = [picture(1)]
    clips = [real("p/a.mp4", crops=crop), fake("p/b.mp4", "a.mp4", crops=crop), fake("p/c.mp4", "b.mp4", crops=crop)]
    index, looks = prepared(at(tmp_path), clips)
    assert find_duplicates(index, looks).shape == (0, 2)


def test_flat_crops_tie_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dark = [np.clip(rng.normal(12, 2, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8) for _ in range(6)]
    clips = [real(f"p/{nth}.mp4", crops=[np.zeros((SIDE, SIDE, 3), np.uint8), dark[nth]]) for nth in range(6)]
    index, looks = prepared(at(tmp_path), clips)
    assert not looks.textured.any()
    assert len(find_duplicates(index, looks)) == 0


def test_pixels_decide_and_not_the_hash_alone(tmp_path: Path) -> None:
    crop = picture(1)
    other = picture(2)
    mixed = cv2.addWeighted(crop, 0.86, other, 0.14, 0)
    index, looks = prepared(at(tmp_path), [real("p/a.mp4", crops=[crop]), real("p/b.mp4", crops=[mixed])])
    [[one, two]] = [found.tolist()[0] for found in close_pairs(looks.hashes, np.arange(2), most_bits=128)][:1]
    assert {one, two} == {0, 1}
    wide = DuplicateOptions(most_bits=128, correlation=0.9)
    assert len(find_duplicates(index, looks, wide)) == 1
    assert len(find_duplicates(index, looks, replace(wide, correlation=0.9999))) == 0


def test_the_search_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(3)
    base = [look(cv2.cvtColor(picture(seed), cv2.COLOR_RGB2GRAY))[0] for seed in range(60)]
    hashes = np.stack([base[nth % 60] for nth in range(600)])
    for row in hashes:
        for bit in rng.integers(0, 256, rng.integers(0, 24)):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    first = np.bitwise_count(hashes[:, None, 0] ^ hashes[None, :, 0])
    labels = np.arange(600) // 2
    expected = {
        (one, other)
        for one, other in np.argwhere((apart <= 20) & (first <= 8)).tolist()
        if one < other and labels[one] != labels[other]
    }
    found = {tuple(sorted(pair)) for pairs in close_pairs(hashes, labels, most_bits=20) for pair in pairs.tolist()}
    assert found == expected
    assert len(found) > 500


def test_the_search_between_two_sets_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(4)
    base = [look(cv2.cvtColor(picture(seed), cv2.COLOR_RGB2GRAY))[0] for seed in range(40)]
    left, right = (np.stack([base[nth % 40] for nth in range(count)]) for count in (300, 170))
    for row in (*left, *right):
        for bit in rng.integers(0, 256, rng.integers(0, 14)):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    apart = np.bitwise_count(left[:, None] ^ right[None]).sum(axis=2)
    first = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0])
    expected = set(map(tuple, np.argwhere((apart <= 20) & (first <= 8)).tolist()))
    found = {tuple(pair) for pairs in close_between(left, right, most_bits=20) for pair in pairs.tolist()}
    assert found == expected
    assert len(found) > 500
    assert list(close_between(left, right[:0], most_bits=20)) == []


@pytest.mark.parametrize(
    ("crop", "told"),
    [(picture(1, 32), "32 x 32 pixels, expected a crop of 64 x 64"), (np.zeros((0, 0, 3), np.uint8), "no picture")],
)
def test_a_crop_of_another_kind_is_named(
    tmp_path: Path, crop: RgbImage, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not crop.size:
        monkeypatch.setattr("tests.support.face_outputs.encode", lambda *_: b"no picture")
    write_output(at(tmp_path), [real("p/a.mp4", crops=[crop])])
    index = load_index([at(tmp_path)])
    with pytest.raises(ValueError, match=told) as refused:
        gather_looks(index, look_at_shards(index))
    assert f"{index.shards[0].key}: row 0" in str(refused.value)


def test_a_shard_that_was_changed_is_named(tmp_path: Path) -> None:
    write_output(at(tmp_path), corpus(1))
    index = load_index([at(tmp_path)])
    at(tmp_path).put(index.shards[0].key, b"something else")
    with pytest.raises(ValueError, match=r"faces/u.*: sha256 .*, expected .* as committed"):
        list(look_at_shards(index))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[FaceIndex, Looks, Fingerprint, list[Clip]]:
    """Twelve sources under /data/dfdc, of which a model was trained on those in training and validation."""
    clips = [replace(clip, crops=[picture(10 * nth), picture(10 * nth + 1)]) for nth, clip in enumerate(corpus(12))]
    index, looks = prepared(at(tmp_path_factory.mktemp("trained")), clips, root="/data/dfdc")
    split = make_split(index, SplitOptions())
    rows = np.concatenate([split.rows(Split.TRAIN), split.rows(Split.VALIDATION)])
    fingerprint = Fingerprint.from_parquet(fingerprint_of(index, rows, looks).to_parquet())
    kept = set(split.table["video_uri"].take(rows).to_pylist())
    return index, looks, fingerprint, [clip for clip in clips if f"/data/dfdc/{clip.key}" in kept]


def seen(
    sink: LocalStorage, clips: Sequence[Clip], fingerprint: Fingerprint, **more: object
) -> tuple[Overlap, set[str]]:
    index, looks = prepared(sink, clips, **more)
    found = overlap(fingerprint, index, looks)
    uris = index.table["video_uri"].to_pylist()
    return found, {uris[row].rsplit("/", 1)[-1] for row in found.rows}


Trained = tuple[FaceIndex, Looks, Fingerprint, list[Clip]]


def test_the_test_split_was_not_seen_and_the_rest_was(trained: Trained) -> None:
    index, looks, fingerprint, clips = trained
    found = overlap(fingerprint, index, looks)
    assert len(found.rows) == found.by_name == found.by_picture == 2 * len(clips)
    assert set(found.rows.tolist()) == set(range(72)) - set(make_split(index, SplitOptions()).rows(Split.TEST).tolist())


def test_the_same_clips_under_another_output_and_prefix_are_seen(tmp_path: Path, trained: Trained) -> None:
    """Extracted again with other frames, so that no crop is the same; from the bucket, from a part, and as a table."""
    *_, fingerprint, clips = trained
    again = [replace(clip, crops=[picture(7000 + nth)]) for nth, clip in enumerate(clips)]
    bucket, _ = seen(at(tmp_path, "bucket"), again, fingerprint, root="s3://other/copy/of")
    part = [replace(clip, key=clip.key.split("/")[-1]) for clip in again]
    inside, _ = seen(at(tmp_path, "part"), part, fingerprint, root="/mnt")
    table = [replace(clip, source=f"{clip.key.split('/')[0]}/{clip.source}") for clip in again]
    listed, _ = seen(at(tmp_path, "table"), table, fingerprint, root="/mnt/dfdc")
    for found in (bucket, inside, listed):
        assert (len(found.rows), found.by_picture) == (len(clips), 0)
        assert "may belong to what the model was trained on" in str(found)
        assert "data whose files are named alike look so, too" in str(found)


def test_partial_overlap_is_seen_with_its_groups(tmp_path: Path, trained: Trained) -> None:
    *_, fingerprint, clips = trained
    old = next(clip for clip in clips if clip.label == 0)
    new = [real("n/new.mp4"), fake("n/fake-of-new.mp4", "new.mp4"), real("n/other.mp4")]
    leaks = [
        fake("n/new-fake-of-old.mp4", old.source),
        fake("n/fake-of-that.mp4", "new-fake-of-old.mp4"),  # a chain: only its group tells
        real("n/renamed.mp4", crops=[picture(8000), jpeg(old.crops[1])]),
        fake("n/fake-of-renamed.mp4", "renamed.mp4"),
        fake("n/fake-of-a-fake.mp4", next(clip for clip in clips if clip.label == 1).key.rsplit("/", 1)[-1]),
    ]
    found, names = seen(at(tmp_path), [*new, *leaks], fingerprint)
    assert names == {leak.key.removeprefix("n/") for leak in leaks}
    assert (found.by_name, found.by_picture, len(found.rows)) == (2, 1, 6)
    assert "6 faces belong to what the model was trained on (2 by the name" in str(found)
    assert "n/renamed.mp4" in str(found)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_renamed_copy_of_what_was_trained_on_is_seen(tmp_path: Path, trained: Trained, change: object) -> None:
    *_, fingerprint, clips = trained
    old = next(clip for clip in clips if clip.label == 0)
    copied = [change(crop) for crop in old.crops]  # type: ignore[operator]
    found, names = seen(at(tmp_path), [real("n/copy.mp4", crops=copied), real("n/other.mp4")], fingerprint)
    assert names == {"copy.mp4"}
    assert found.by_picture >= 1 and found.by_name == 0


def test_copies_with_one_crop_each_are_seen_if_they_were_moved_and_mirrored(tmp_path: Path, trained: Trained) -> None:
    """As `preprocess` makes them: one face a clip, so that no other crop of a clip can bear witness."""
    *_, fingerprint, clips = trained
    crops = [crop for clip in clips for crop in clip.crops]
    copies = [real(f"n/copy{nth}.mp4", crops=[turned(moved(crop))]) for nth, crop in enumerate(crops)]
    new = [real(f"n/new{nth}.mp4", crops=[picture(20_000 + nth)]) for nth in range(40)]
    found, names = seen(at(tmp_path), [*copies, *new], fingerprint)
    assert names == {f"copy{nth}.mp4" for nth in range(len(crops))}
    assert found.by_name == 0


def test_hashes_of_moved_and_mirrored_pictures_are_those_of_their_pictures() -> None:
    lumas = [cv2.cvtColor(picture(seed, 256), cv2.COLOR_RGB2GRAY) for seed in range(8)]
    hashes, thumbs, _ = map(np.stack, zip(*map(look, lumas), strict=True))
    rows = np.array([6, 1, 3])
    variants = list(moved_hashes(thumbs, rows))
    assert len(variants) == 18
    np.testing.assert_array_equal(variants[0], hashes[rows])
    mirrors = np.stack([look(np.ascontiguousarray(luma[:, ::-1]))[0] for luma in lumas])
    np.testing.assert_array_equal(mirrored_hashes(thumbs, rows), mirrors[rows])
    np.testing.assert_array_equal(mirrored(mirrored(thumbs)), thumbs)
    assert not np.array_equal(mirrored(thumbs), thumbs)


def test_a_copy_of_a_seen_groups_clip_is_seen(tmp_path: Path, trained: Trained) -> None:
    index, _, _, clips = trained
    fingerprint = fingerprint_of(index, np.arange(index.table.num_rows), None)  # names alone
    old = next(clip for clip in clips if clip.label == 0)
    given = [replace(old, crops=[picture(9000)]), real("n/copy.mp4", crops=[picture(9000)]), real("n/other.mp4")]
    mine, looks = prepared(at(tmp_path), given)
    assert overlap(fingerprint, mine, looks).rows.tolist() == [0]
    assert overlap(fingerprint, mine, looks, find_duplicates(mine, looks)).rows.tolist() == [0, 1]


def test_other_data_were_not_seen(tmp_path: Path, trained: Trained) -> None:
    *_, fingerprint, _ = trained
    clips = [replace(clip, key=clip.key.replace("/", "/x"), source=f"x{clip.source}") for clip in corpus(20)]
    clips = [replace(clip, crops=[picture(5000 + nth)]) for nth, clip in enumerate(clips)]
    found, _ = seen(at(tmp_path), clips, fingerprint, root="/data/dfdc")
    assert len(found.rows) == found.by_name == found.by_picture == 0


def test_a_fingerprint_holds_no_name_and_is_told_from_other_files(trained: Trained) -> None:
    index, looks, fingerprint, _ = trained
    data = fingerprint_of(index, np.arange(72), looks).to_parquet()
    assert b"real0" not in data
    assert data == fingerprint_of(index, np.arange(72)[::-1], looks).to_parquet()
    assert len(fingerprint_of(index, np.arange(72), None).pictures) == 0
    for damaged in (data[:-9], index_bytes(index)):
        with pytest.raises(ValueError, match=r"fingerprint\.parquet: "):
            Fingerprint.from_parquet(damaged)
    assert len(fingerprint.pictures) == 60


def index_bytes(index: FaceIndex) -> bytes:
    return make_split(index, SplitOptions()).to_parquet()


def test_the_same_options_are_used_as_in_the_output() -> None:
    assert FACES.crop.crop_size == SIDE
    for wrong in ({"most_bits": 200}, {"correlation": 0.1}):
        with pytest.raises(ValueError, match="expected"):
            DuplicateOptions(**wrong)  # type: ignore[arg-type]
