"""The drawn corpus: the same bytes every time, labels that are right, planted files that are what they claim."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from batch.corpus.draw.corpus import MARKER, DrawnCorpus, draw_corpus
from batch.corpus.draw.options import DrawOptions
from batch.corpus.draw.plan import plan_corpus
from batch.corpus.draw.planted import PlantedKind
from batch.corpus.draw.swap import SwapStyle, swap_face
from batch.records import Reason

SMALL = DrawOptions(seed=3, identities=2, parts=1, fakes_per_real=2, shortest_s=0.3, longest_s=0.4, max_height=360)
BARE = replace(SMALL, fakes_per_real=0, planted=False)
Kind = PlantedKind


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DrawnCorpus:
    return draw_corpus(tmp_path_factory.mktemp("drawn") / "corpus", SMALL, workers=1)


def planted(corpus: DrawnCorpus, kind: PlantedKind) -> Path:
    (key,) = [item.key for item in corpus.planted if item.kind is kind]
    return corpus.folder / key


def upright_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in container.decode(video=0)]


def hog_faces(frame: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Top, right, bottom, left of each face, as the reference recipe finds them."""
    face_recognition = pytest.importorskip("face_recognition")
    return face_recognition.face_locations(np.ascontiguousarray(frame))


def boxes(path: Path) -> list[str]:
    """The names of an mp4's outermost boxes."""
    data, at, found = path.read_bytes(), 0, []
    while at + 8 <= len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_second_drawing_on_other_workers_gives_the_same_bytes(corpus: DrawnCorpus, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    again = draw_corpus(tmp_path / "again", SMALL, lambda *seen: reports.append(seen), workers=2)
    first, second = contents(corpus.folder), contents(again.folder)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert reports[0] == (0, corpus.files)
    assert reports[-1] == (corpus.files, corpus.files)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_another_seed_draws_other_people(tmp_path: Path) -> None:
    drawn = [draw_corpus(tmp_path / str(seed), replace(BARE, seed=seed), workers=1) for seed in (1, 2)]
    first, second = (upright_frames(one.folder / one.reals[0])[0].astype(int) for one in drawn)
    assert np.abs(first - second).mean() > 20


def test_the_files_are_those_that_were_reported(corpus: DrawnCorpus) -> None:
    on_disk = {str(p.relative_to(corpus.folder)): p.stat().st_size for p in corpus.folder.rglob("*.mp4")}
    told = [*corpus.reals, *corpus.fakes, *(item.key for item in corpus.planted)]
    assert sorted(told) == sorted(on_disk)
    assert len(told) == corpus.files == 2 + 4 + len(Kind)
    assert sum(on_disk.values()) == corpus.size_bytes
    assert not {key for key in corpus.missing if key in on_disk}


def test_metadata_has_the_form_of_dfdc(corpus: DrawnCorpus) -> None:
    part = "dfdc_train_part_0"
    entries = json.loads((corpus.folder / part / "metadata.json").read_text())
    for key in corpus.reals:
        assert entries[Path(key).name] == {"label": "REAL", "split": "train"}
    for key, source in corpus.fakes.items():
        assert source in corpus.reals
        assert entries[Path(key).name] == {"label": "FAKE", "split": "train", "original": Path(source).name}
    orphan = entries[planted(corpus, Kind.ORPHAN_FAKE).name]
    assert orphan["label"] == "FAKE"
    assert not (corpus.folder / part / orphan["original"]).exists()
    on_disk = {path.name for path in (corpus.folder / part).glob("*.mp4")}
    assert on_disk - set(entries) == {planted(corpus, Kind.NO_METADATA).name}
    assert [f"{part}/{name}" for name in set(entries) - on_disk] == list(corpus.missing)


@pytest.mark.parametrize("kind", [Kind.EMPTY_FILE, Kind.TEXT_FILE, Kind.CUT_FILE])
def test_broken_files_cannot_be_opened(corpus: DrawnCorpus, kind: PlantedKind) -> None:
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(planted(corpus, kind)))


def test_the_cut_file_lost_its_index(corpus: DrawnCorpus) -> None:
    found = boxes(planted(corpus, Kind.CUT_FILE))
    assert "mdat" in found
    assert "moov" not in found
    assert planted(corpus, Kind.EMPTY_FILE).stat().st_size == 0


def test_the_audio_only_file_has_sound_and_no_picture(corpus: DrawnCorpus) -> None:
    with av.open(str(planted(corpus, Kind.AUDIO_ONLY))) as container:
        assert not container.streams.video
        loudness = max(float(np.abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0))
    assert 0.05 < loudness <= 1


def test_the_portrait_is_stored_lying_and_shown_standing(corpus: DrawnCorpus) -> None:
    path = planted(corpus, Kind.PORTRAIT)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, abs(frame.rotation)) == (640, 360, 90)
    opened, shown = cv2.VideoCapture(str(path)).read()
    assert opened
    assert shown.shape == (640, 360, 3)
    assert len(hog_faces(shown[..., ::-1])) == 1


def test_formats_are_what_they_claim(corpus: DrawnCorpus) -> None:
    def first(kind: PlantedKind) -> av.VideoFrame:
        with av.open(str(planted(corpus, kind))) as container:
            return next(container.decode(video=0))

    assert first(Kind.TEN_BIT).format.name == "yuv420p10le"
    assert first(Kind.INTERLACED).interlaced_frame
    odd = first(Kind.ODD_SIZE)
    assert (odd.width, odd.height) == (641, 359)
    grey = first(Kind.GREY).to_ndarray(format="rgb24").astype(int)
    assert np.ptp(grey, axis=2).max() <= 2
    assert grey.std() > 20


def test_the_variable_rate_varies(corpus: DrawnCorpus) -> None:
    with av.open(str(planted(corpus, Kind.VARIABLE_RATE))) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len({round(step, 3) for step in np.diff(times)}) > 1


@pytest.mark.parametrize(("kind", "faces"), [(Kind.NO_FACE, 0), (Kind.TWO_FACES, 2), (Kind.TINY_FACE, 0)])
def test_planted_scenes_show_so_many_faces(corpus: DrawnCorpus, kind: PlantedKind, faces: int) -> None:
    assert len(hog_faces(upright_frames(planted(corpus, kind))[0])) == faces


def test_one_face_is_found_in_every_ordinary_clip(corpus: DrawnCorpus) -> None:
    found = {key: len(hog_faces(upright_frames(corpus.folder / key)[0])) for key in [*corpus.reals, *corpus.fakes]}
    assert set(found.values()) == {1}


def test_fakes_differ_from_their_originals_at_the_face(corpus: DrawnCorpus) -> None:
    for fake, real in corpus.fakes.items():
        ours, theirs = upright_frames(corpus.folder / fake), upright_frames(corpus.folder / real)
        assert len(ours) == len(theirs)
        ((top, right, bottom, left),) = hog_faces(theirs[0])
        around = (bottom - top) // 4
        changed = np.abs(ours[0].astype(int) - theirs[0].astype(int)).mean(axis=2)
        elsewhere = np.ones(changed.shape, bool)
        elsewhere[max(0, top - around) : bottom + around, max(0, left - around) : right + around] = False
        # Elsewhere only the encoder's rate differs.
        assert changed[elsewhere].mean() < 3
        assert changed[top:bottom, left:right].mean() > 2 * changed[elsewhere].mean()


def test_clips_move(corpus: DrawnCorpus) -> None:
    for key in corpus.reals:
        frames = upright_frames(corpus.folder / key)
        assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).max() > 40


def test_a_swap_leaves_pixels_outside_the_hull_alone() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (200, 200, 3), np.uint8)
    donor = np.full((100, 100, 4), 255, np.uint8)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    style = SwapStyle(face_px=60, feather=0.04, shrink=0.0, match=1.0)
    swapped = swap_face(frame, 100 + 40 * ring, donor, 50 + 30 * ring, style)
    rows, columns = np.mgrid[:200, :200]
    away = np.hypot(rows - 100, columns - 100)
    assert np.array_equal(swapped[away > 55], frame[away > 55])
    # A white donor takes the mean that the noise has under the hull.
    assert np.abs(swapped[away < 30].mean(axis=0) - frame[away < 30].mean(axis=0)).max() < 12
    assert swapped[away < 30].std() < 5
    assert np.array_equal(swap_face(frame, 900 + ring, donor, 50 + 30 * ring, style), frame)


def test_the_default_plan_has_the_shape_of_dfdc(tmp_path: Path) -> None:
    plan = plan_corpus(tmp_path, DrawOptions())
    assert (len(plan.reals), len(plan.fakes), len(plan.missing)) == (24, 120, 1)
    assert set(Counter(plan.fakes.values()).values()) == {5}
    assert sorted(item.kind for item in plan.planted) == sorted(Kind)
    for keys in (plan.reals, plan.fakes, [item.key for item in plan.planted]):
        assert {key.split("/")[0] for key in keys} == {f"dfdc_train_part_{n}" for n in range(3)}
    assert all(fake.split("/")[0] == real.split("/")[0] for fake, real in plan.fakes.items())
    wrong = {item.kind for item in plan.planted if Reason.KEPT not in item.expected}
    assert wrong == {
        *(Kind.NO_FACE, Kind.TWO_FACES, Kind.TINY_FACE),
        *(Kind.EMPTY_FILE, Kind.CUT_FILE, Kind.TEXT_FILE, Kind.AUDIO_ONLY),
    }


def test_the_index_is_mostly_at_the_end(corpus: DrawnCorpus) -> None:
    orders = [boxes(corpus.folder / key) for key in [*corpus.reals, *corpus.fakes]]
    assert orders.count(["ftyp", "free", "mdat", "moov"]) > len(orders) / 2


def test_a_corpus_that_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    assert draw_corpus(folder, BARE, workers=1).drawn
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = draw_corpus(folder, BARE, workers=1)
    assert not again.drawn
    assert again.files == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(ValueError, match="differs"):
        draw_corpus(folder, replace(BARE, seed=9), workers=1)
    (folder / again.reals[0]).unlink()
    with pytest.raises(ValueError, match="gone"):
        draw_corpus(folder, BARE, workers=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        draw_corpus(tmp_path, BARE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interrupted_drawing_leaves_no_corpus_and_can_begin_anew(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_corpus(tmp_path / "corpus", BARE, interrupt, workers=1)
    assert not (tmp_path / "corpus").exists()
    assert draw_corpus(tmp_path / "corpus", BARE, workers=1).drawn
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert (tmp_path / "corpus" / MARKER).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"identities": 1},
        {"parts": 3, "identities": 2},
        {"seed": -1},
        {"shortest_s": 3.0, "longest_s": 2.0},
        {"longest_s": float("nan")},
        {"max_height": 100},
    ],
)
def test_options_that_cannot_be_drawn_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"got .*, expected"):
        DrawOptions(**wrong)


def test_no_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers: got 0"):
        draw_corpus(tmp_path / "corpus", BARE, workers=0)
    assert not any(tmp_path.iterdir())
