"""Real faces in, people out: who is encoded, how clips of one person are tied, and what files' names tell."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from batch.faces.crop import crop_window
from batch.faces.detect import DetectOptions, make_detector
from batch.faces.options import CropOptions
from batch.model.encodings import LENGTH, Encoder, Encodings, face_in_crop, faces_to_encode
from batch.model.groups import group_faces
from batch.model.identity import IdentityOptions, cluster_people, named_pairs, same_people
from batch.model.records import FaceIndex, Split
from batch.model.split import SplitOptions, make_split
from batch.records import Box
from tests.support.drawn_face import ArrayFrame, scene
from tests.support.face_outputs import Clip, corpus, fake, index_of, picture, real

UTKFACE = Path(__file__).parents[3] / "shared" / "utkface"


def people(index: FaceIndex, of_clip: dict[str, int], spread: float = 0.02) -> Encodings:
    """Made-up encodings: those of one person lie close; a clip that is not named is a person of its own."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 0.08, (1000, LENGTH))  # 1.3 apart
    uris = index.table["video_uri"].to_pylist()
    rows = faces_to_encode(index, 4)
    places = [of_clip.get(uris[row].rsplit("/", 1)[-1], 100 + int(row)) for row in rows]
    values = centres[places] + rng.normal(0, spread, (len(rows), LENGTH))
    return Encodings.of(
        index, [(rows[::2], values[::2].astype(np.float32)), (rows[1::2], values[1::2].astype(np.float32))]
    )


def test_some_real_faces_of_every_track_are_encoded() -> None:
    clips = [
        real("p/long.mp4", crops=[picture(1)] * 9),
        fake("p/fake.mp4", "long.mp4"),
        real("q/short.mp4", crops=[picture(2)] * 2),
        Clip(key="q/unknown.mp4", label=None, source="unknown.mp4"),
        real("q/one.mp4"),
    ]
    index = index_of(clips)
    faces = index.table["face"].take(pa.array(faces_to_encode(index, 3))).to_pylist()
    long = [f"/in/p/long.mp4#{frame}.0" for frame in (0, 40, 80)]
    assert faces == [*long, "/in/q/short.mp4#0.0", "/in/q/short.mp4#10.0", "/in/q/one.mp4#0.0"]
    assert len(faces_to_encode(index_of([fake("p/fake.mp4", "o")]), 3)) == 0


def test_clips_of_one_person_are_one_group_and_fakes_follow() -> None:
    index = index_of(corpus(40, fakes=2))
    same = {"real0003.mp4": 1, "real0017.mp4": 1, "real0030.mp4": 1, "real0005.mp4": 2, "real0006.mp4": 2}
    pairs = same_people(index, people(index, same), IdentityOptions())
    groups = group_faces(index, pairs=pairs)
    assert len(groups.ids) == 40 - 2 - 1
    split = make_split(index, SplitOptions(by="identity"), people=pairs)
    uris = index.table["video_uri"].to_pylist()
    for person in (("0003", "0017", "0030"), ("0005", "0006")):
        rows = [row for row, uri in enumerate(uris) if any(f"real{n}" in uri or f"fake{n}" in uri for n in person)]
        assert len(rows) == 3 * len(person)
        assert sum(set(rows) <= set(split.rows(name).tolist()) for name in Split) == 1


def test_a_crowd_taken_for_one_person_is_refused() -> None:
    index = index_of(corpus(30, fakes=1))
    blurred = people(index, {f"real{nth:04d}.mp4": 1 for nth in range(12)})
    with pytest.raises(ValueError, match=r"has 40% of the faces .*12 sources as real0000.mp4, real0001.mp4"):
        make_split(index, SplitOptions(by="identity"), people=same_people(index, blurred, IdentityOptions()))


def test_encodings_that_are_missing_or_of_other_faces_are_no_matter_unless_all_are() -> None:
    index = index_of(corpus(10, fakes=0))
    pairs = same_people(
        index, people(index_of(corpus(5, fakes=0)), {"real0001.mp4": 1, "real0002.mp4": 1}), IdentityOptions()
    )
    assert len(group_faces(index, pairs=pairs).ids) == 9
    with pytest.raises(ValueError, match="got no encoding"):
        same_people(index, people(index_of([real("x/y.mp4")]), {}), IdentityOptions())


def test_clusters_are_those_of_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks smaller than the data, the same clusters as dlib's own function gives."""
    import dlib

    monkeypatch.setattr("batch.model.identity._COMPARED_AT_ONCE", 7)
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 0.05, (12, LENGTH))
    values = (centres[rng.integers(0, 12, 90)] + rng.normal(0, 0.03, (90, LENGTH))).astype(np.float32)
    theirs = dlib.chinese_whispers_clustering([dlib.vector(row.tolist()) for row in values], 0.55)
    ours = cluster_people(values, 0.55)
    assert len(set(theirs)) > 5
    assert len(set(zip(theirs, ours.tolist(), strict=True))) == len(set(theirs)) == len(set(ours.tolist()))


@pytest.mark.parametrize(
    ("clip", "original", "tied"),
    [
        ("p/ffpp_deepfakes_183_253.mp4", "ffpp_183.mp4", {"ffpp_253.mp4", "ffpp_183.mp4"}),
        ("p/183_253.mp4", "ffpp_183.mp4", {"ffpp_253.mp4", "ffpp_183.mp4"}),
        ("p/ffpp_deepfakes_183_254.mp4", "ffpp_183.mp4", {"ffpp_183.mp4"}),
        ("p/ffpp_deepfakes_183_253.mp4", "ffpp_253.mp4", set()),
        ("p/01_06__hall__ABCD.mp4", "01__hall.mp4", {"06__street.mp4", "01__kitchen.mp4"}),
        ("p/id3_id16_0002.mp4", "id3_0002.mp4", {"id16_0000.mp4"}),
        ("p/holiday.mp4", "ffpp_183.mp4", set()),
    ],
)
def test_names_of_known_corpora_tell_donor_and_target(clip: str, original: str, tied: set[str]) -> None:
    reals = ["ffpp_183.mp4", "ffpp_253.mp4", "06__street.mp4", "01__kitchen.mp4", "id16_0000.mp4", "beach.mp4"]
    index = index_of([fake(clip, original), *(real(f"q/{name}") for name in reals)])
    pairs = named_pairs(index)
    assert {reals[other - 1] for _, other in pairs.tolist()} == tied
    assert set(pairs[:, 0].tolist()) <= {0}


def test_the_file_holds_the_encodings() -> None:
    index = index_of(corpus(6))
    encodings = people(index, {})
    again = Encodings.from_parquet(encodings.to_parquet())
    assert again.faces.equals(encodings.faces)
    assert np.array_equal(again.values, encodings.values)
    rows, values = again.rows(index)
    assert index.table["face"].take(pa.array(rows)).combine_chunks().equals(again.faces)
    assert values.shape == (6, LENGTH)
    merged = Encodings.merged([encodings, again])
    assert merged.faces.equals(again.faces)
    for damaged in (encodings.to_parquet()[:-4], make_split(index_of(corpus(9)), SplitOptions()).to_parquet()):
        with pytest.raises(ValueError, match=r"encodings\.parquet: .*remove it"):
            Encodings.from_parquet(damaged)


def test_a_face_is_encoded_as_face_recognition_does() -> None:
    """On a drawn frame and on a crop of it, whose box is worked out from the two boxes in the frame."""
    from face_recognition import face_encodings

    frame = ArrayFrame(scene(480, 360, [(240, 180, 150)]))
    box = make_detector(DetectOptions(detector="hog")).detect(frame)[0].box_px
    [theirs] = face_encodings(frame.rgb(), [(box.top, box.right, box.bottom, box.left)], model="small")
    encoder = Encoder()
    assert np.allclose(encoder.encode(frame.rgb(), box), theirs, atol=1e-6)
    options = CropOptions()
    window = crop_window(box, frame.width_px, frame.height_px, options)
    part = frame.rgb()[window.top : window.bottom, window.left : window.right]
    crop = np.asarray(cv2.resize(part, (options.crop_size, options.crop_size)), np.uint8)
    in_crop = face_in_crop(box, window, options.crop_size)
    assert abs(in_crop.width / options.crop_size - box.width / window.width) < 0.02
    assert np.linalg.norm(encoder.encode(crop, in_crop) - theirs) < 0.3


def test_boxes_of_a_stretched_crop() -> None:
    face, crop = Box(left=100, top=50, right=200, bottom=150), Box(left=50, top=50, right=250, bottom=150)
    assert face_in_crop(face, crop, 200) == Box(left=50, top=0, right=150, bottom=200)


@pytest.mark.skipif(not UTKFACE.is_dir(), reason="../shared/utkface is not there")
def test_photographs_of_different_people_stay_apart() -> None:
    """Twenty photographs and a mirrored, darker and smaller copy of each: twenty people of two faces."""

    detector, encoder = make_detector(DetectOptions(detector="hog")), Encoder()
    values, names = [], []
    for path in sorted(UTKFACE.glob("*.jpg"))[::300]:
        photo = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
        changed = np.ascontiguousarray(cv2.resize(cv2.resize(photo, (120, 120)), (200, 200))[:, ::-1] * 0.8).astype(
            np.uint8
        )
        for image in (photo, changed):
            found = detector.detect(ArrayFrame(image))
            if found:
                values.append(encoder.encode(image, found[0].box_px))
                names.append(path.name)
    labels = cluster_people(np.asarray(values), IdentityOptions().distance)
    clusters = set(zip(labels.tolist(), names, strict=True))
    assert len(names) > 30
    assert len({label for label, _ in clusters}) == len(clusters)  # none of two people
    assert len(clusters) <= 1.1 * len(set(names))  # few people in two


@pytest.mark.parametrize("wrong", [{"faces_a_track": 0}, {"distance": 1.5}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"got .*expected"):
        IdentityOptions(**wrong)  # type: ignore[arg-type]
