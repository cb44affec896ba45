"""Crops looked at and encoded on a real Ray cluster: as in one process, and only once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batch.faces.crop import crop_window
from batch.faces.detect import DetectOptions, make_detector
from batch.faces.options import CropOptions, FaceOptions
from batch.model.encodings import encode_shard, faces_to_encode
from batch.model.identity import IdentityOptions, same_people
from batch.model.index import load_index
from batch.model.near_duplicates import gather_looks, look_at_shards
from batch.model.records import Split
from batch.model.split import SPLITS, SplitOptions, SplitTable
from batch.storage.local import LocalStorage
from jobs.identities import encode_people, look_at_faces
from jobs.session import ray_session
from jobs.splitting import prepare
from tests.support.drawn_face import ArrayFrame, scene
from tests.support.face_outputs import SIDE, Clip, fake, picture, real, write_output

UTKFACE = Path(__file__).parents[3] / "shared" / "utkface"
PERSON_PX = 150


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with ray_session(None, 2) as session:
        yield session


def portrait(seed: int, light: float) -> np.ndarray:
    frame = ArrayFrame(scene(480, 360, [(240, 180, 150)], seed=seed, light=light))
    box = make_detector(DetectOptions(detector="hog")).detect(frame)[0].box_px
    options = CropOptions(crop_size=SIDE)
    window = crop_window(box, frame.width_px, frame.height_px, options)
    part = frame.rgb()[window.top : window.bottom, window.left : window.right]
    return np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.slow
def test_faces_are_looked_at_and_encoded_once(ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces, output = LocalStorage(str(tmp_path / "faces")), LocalStorage(str(tmp_path / "model"))
    clips = [real(f"p/{nth}.mp4", crops=[portrait(nth % 2, 1 - nth / 50)]) for nth in range(4)]
    write_output(faces, [*clips, fake("q/fake.mp4", "0.mp4")], a_unit=2)
    index = load_index([faces])
    alone = gather_looks(index, look_at_shards(index))
    beside = encode_shard(index.shards[0], np.arange(2))
    looks = look_at_faces(ray, index)
    encodings = encode_people(ray, index, output, 4)
    kept = {item.key: item for item in output.list()}
    output.delete(min(kept))
    again = encode_people(ray, index, output, 4)
    # Drawn faces are one person to a network of photographs: the largest group is told, and refused.
    with pytest.raises(ValueError, match=r"split by identity: group \w+ has 100% of the faces \(5 of 5, 4 sources"):
        prepare(ray, SplitOptions(by="identity"), index, LocalStorage(tmp_path / "split"))
    faces.put(index.shards[-1].key, b"damaged")
    with pytest.raises(ValueError, match="as committed"):
        look_at_faces(ray, index)
    assert "largest group: 5 faces (100.0%), as in 0.mp4, 1.mp4, 2.mp4" in capsys.readouterr().err
    assert not (tmp_path / "split" / "splits.parquet").exists()
    assert np.array_equal(looks.hashes, alone.hashes)
    assert np.array_equal(looks.thumbs, alone.thumbs)
    assert {item.key: item.size_bytes for item in output.list()} == {key: item.size_bytes for key, item in kept.items()}
    others = {item.key: item.etag for item in output.list() if item.key != min(kept)}
    assert others == {key: item.etag for key, item in kept.items() if key != min(kept)}
    assert again.faces.equals(encodings.faces)
    assert np.array_equal(again.values, encodings.values)
    assert len(kept) == 2
    assert index.table["face"].take(faces_to_encode(index, 4)).combine_chunks().equals(encodings.faces)
    assert np.allclose(beside, encodings.values[:2], atol=1e-6)
    assert len(same_people(index, encodings, IdentityOptions())) >= 4
    output.put(min(kept), b"damaged")
    with pytest.raises(ValueError, match=min(kept)):
        encode_people(None, index, output, 4)


@pytest.mark.slow
@pytest.mark.skipif(not UTKFACE.is_dir(), reason="../shared/utkface is not there")
def test_no_split_cuts_a_person(ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photographs of real people, two clips each that no name ties, and a fake of the one: people stay whole."""
    faces, output = LocalStorage(str(tmp_path / "faces")), LocalStorage(str(tmp_path / "model"))
    clips = [clip for nth, crop in enumerate(people(16)) for clip in clips_of(nth, crop)]
    options = FaceOptions(crop=CropOptions(crop_size=PERSON_PX))
    write_output(faces, clips, options=options, a_unit=12)
    index = load_index([faces])
    prepare(ray, SplitOptions(by="source"), index, LocalStorage(tmp_path / "by source"))
    split = prepare(ray, SplitOptions(by="identity", test=0.2), index, output).split
    people_of, groups = [uri[-6:-4] for uri in index.table["video_uri"].to_pylist()], split.table["group"].to_pylist()
    assert len(set(zip(people_of, groups, strict=True))) == len(set(groups)) == 16, "a group is a person"
    for name in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        inside = {people_of[row] for row in split.rows(name)}
        assert inside
        assert len(split.rows(name)) == 3 * len(inside)
    assert "largest group: 3 faces (6.2%)" in capsys.readouterr().err
    by_source = SplitTable.from_parquet((tmp_path / "by source" / SPLITS).read_bytes())
    assert len(set(by_source.table["group"].to_pylist())) == 32


def people(count: int) -> Iterator[np.ndarray]:
    """Photographs of different people, cut to the faces that HOG finds."""
    detector = make_detector(DetectOptions(detector="hog"))
    names = sorted(UTKFACE.glob("*.jpg"))
    for path in names[:: len(names) // (2 * count)]:
        photo = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
        found = detector.detect(ArrayFrame(photo))
        if found and count:
            count -= 1
            box = found[0].box_px
            face = photo[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right]
            yield np.asarray(cv2.resize(face, (PERSON_PX, PERSON_PX), interpolation=cv2.INTER_AREA), np.uint8)


def clips_of(nth: int, crop: np.ndarray) -> list[Clip]:
    """A clip, another one of the same person at another time, and a fake of the first."""
    turn = cv2.getRotationMatrix2D((PERSON_PX / 2, PERSON_PX / 2), 8, 1.08)  # mirrored alone, it would be a copy
    turned = cv2.warpAffine(crop, turn, (PERSON_PX, PERSON_PX), borderMode=cv2.BORDER_REFLECT)
    another = np.asarray(turned[:, ::-1] * 0.8, np.uint8)
    first = real(f"p/first_{nth:02d}.mp4", crops=[crop])
    return [
        first,
        real(f"q/second_{nth:02d}.mp4", crops=[another]),
        fake(f"r/fake_{nth:02d}.mp4", first.source, crops=[cv2.flip(crop, 0)]),
    ]


def test_flat_copies_of_the_looks(tmp_path: Path) -> None:
    """Shards that are looked at in any order end in the order of the index."""
    faces = LocalStorage(str(tmp_path / "faces"))
    write_output(faces, [real(f"p/{nth}.mp4", crops=[picture(nth)]) for nth in range(7)], a_unit=2)
    index = load_index([faces])
    ordered, mixed = (
        gather_looks(index, looks) for looks in (look_at_shards(index), list(look_at_shards(index))[::-1])
    )
    assert np.array_equal(ordered.hashes, mixed.hashes)
    assert np.array_equal(ordered.thumbs, mixed.thumbs)
    assert len(np.unique(ordered.hashes, axis=0)) == 7
