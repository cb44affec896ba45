"""Bytes fetched early change when things are read, and nothing else: results, requests and culprits stay the same."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import pytest

from batch.faces.extract import Extractor, extract_video
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import FaceOptions
from batch.faces.prefetch import Prefetcher
from batch.records import Reason, VideoRef, VideoResult
from batch.storage.local import LocalStorage
from batch.storage.s3 import S3Storage
from tests.support.clips import clip
from tests.support.drawn_face import scene


class Remote(LocalStorage):
    """A folder that is treated as a remote store is."""

    is_local = False


class Watched(Remote):
    """Tells which thread reads what, and lets a test wait until a number of reads came to an end."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        try:
            return super().read_range(key, start, length, etag=etag)
        finally:
            with self._changed:
                self.reads.append((key, threading.current_thread().name))
                self._changed.notify_all()

    def wait_for(self, key: str, reads: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: sum(each == key for each, _ in self.reads) >= reads, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of every shape that reading knows: small ones, large ones, broken ones."""
    made = tmp_path_factory.mktemp("clips")
    large = {"frames": 40, "size": (480, 270), "noise": 15, "options": {"preset": "ultrafast"}}
    clip(made / "a_index_last.mp4", **large)
    clip(made / "b_index_first.mp4", **large, container_options={"movflags": "faststart"})
    clip(made / "c_fragments.mp4", **large, container_options={"movflags": "frag_keyframe+empty_moov"})
    clip(made / "d_matroska.mkv", **large)
    clip(made / "e_small.mp4")
    clip(made / "f_large_packet.mp4", frames=6, size=(1280, 720), noise=90, options={"preset": "ultrafast"})
    whole = (made / "a_index_last.mp4").read_bytes()
    (made / "g_truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (made / "h_garbage.mp4").write_bytes(os.urandom(300_000))
    (made / "i_lies.mp4").write_bytes(whole.replace(b"stco\0\0\0\0", b"stco\0\0\0\xff").replace(b"stsz", b"stsy"))
    (made / "j_empty.mp4").write_bytes(b"")
    face_clip(made / "k_face.mp4")
    return made


def face_clip(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 960, 540, "yuv420p"
        pixels = scene(960, 540, [(480, 250, 180)], seed=3)
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def videos(store: LocalStorage | S3Storage) -> list[VideoRef]:
    return [
        VideoRef(key=item.key, size_bytes=item.size_bytes, etag=item.etag, part="", label=None, source_id=item.key)
        for item in store.list()
    ]


@pytest.fixture
def prefetcher() -> Iterator[Prefetcher]:
    made = Prefetcher(ahead=3)
    yield made
    made.close()


def plain(result: VideoResult) -> VideoResult:
    """Without the clock, which differs from run to run."""
    return replace(result, cost=replace(result.cost, seconds={}))


@pytest.mark.parametrize("options", [FaceOptions(), FaceOptions(frames=3)], ids=["first", "three"])
def test_results_and_requests_are_those_of_reading_in_turn(
    folder: Path, prefetcher: Prefetcher, options: FaceOptions
) -> None:
    store = Remote(folder)
    order = videos(store)
    first = options.frames == "first"
    for place, video in enumerate(order):
        turn = prefetcher.take(store, video, order[place + 1 : place + 4], packet=first)
        early = extract_video(store, video, options, turn=turn)
        late = extract_video(store, video, options)
        assert plain(early) == plain(late)
        if video.key != "i_lies.mp4":
            assert (early.cost.requests, early.cost.bytes_read) == (late.cost.requests, late.cost.bytes_read)
    assert early.reason is Reason.KEPT
    assert early.faces[0].image


@pytest.mark.parametrize("key", ["a_index_last.mp4", "b_index_first.mp4", "e_small.mp4", "f_large_packet.mp4"])
def test_a_turn_finds_its_first_frame_fetched(folder: Path, prefetcher: Prefetcher, key: str) -> None:
    store = Watched(folder)
    by_key = {video.key: video for video in videos(store)}
    requests = extract_video(store, by_key[key], FaceOptions()).cost.requests
    store.reads.clear()
    prefetcher.take(store, by_key["j_empty.mp4"], [by_key[key]], packet=True)
    store.wait_for(key, requests)
    turn = prefetcher.take(store, by_key[key], [], packet=True)
    result = extract_video(store, by_key[key], FaceOptions(), turn=turn)
    assert result.decoded_by == ("stream" if key == "e_small.mp4" else "key_packet")
    assert result.cost.requests == requests == len(store.reads)
    assert all(thread.startswith("prefetch") for _, thread in store.reads)
    assert result.cost.seconds["hidden"] + result.cost.seconds["read"] > 0


def test_many_frames_fetch_head_and_index_alone(folder: Path, prefetcher: Prefetcher) -> None:
    store = Watched(folder)
    by_key = {video.key: video for video in videos(store)}
    prefetcher.take(store, by_key["j_empty.mp4"], [by_key["f_large_packet.mp4"]], packet=False)
    store.wait_for("f_large_packet.mp4", 2)
    turn = prefetcher.take(store, by_key["f_large_packet.mp4"], [], packet=False)
    assert turn.file.requests == 2
    assert turn.file.tell() == 0


def test_an_error_of_an_early_fetch_is_forgotten(folder: Path, tmp_path: Path, prefetcher: Prefetcher) -> None:
    store, path = Watched(tmp_path), tmp_path / "late.mp4"
    path.write_bytes((folder / "k_face.mp4").read_bytes())
    late = videos(store)[0]
    path.rename(tmp_path / "away")
    prefetcher.take(store, replace(late, key="other.mp4"), [late], packet=True)
    store.wait_for("late.mp4", 1)
    (tmp_path / "away").rename(path)
    turn = prefetcher.take(store, late, [], packet=True)
    assert turn.file.requests == 1
    assert extract_video(store, late, FaceOptions(), turn=turn).reason is Reason.KEPT


def test_an_error_that_stays_is_raised_in_its_own_turn(folder: Path) -> None:
    store = Watched(folder)
    sound = next(video for video in videos(store) if video.key == "a_index_last.mp4")
    gone = replace(sound, key="gone.mp4")
    extractor = Extractor(source=store, options=FaceOptions())
    assert extractor(sound, [gone]).reason is Reason.NO_FACE
    store.wait_for("gone.mp4", 1)
    result = extractor(gone, [sound])
    assert result.reason is Reason.STORAGE_ERROR
    assert "gone.mp4" in result.detail
    assert result.cost.requests == 2
    assert extractor(sound).reason is Reason.NO_FACE


def test_what_is_not_wanted_any_more_is_dropped(folder: Path, prefetcher: Prefetcher) -> None:
    store = Watched(folder)
    one, two, three, *_ = videos(store)
    prefetcher.take(store, one, [two, three], packet=True)
    store.wait_for(two.key, 1)
    prefetcher.take(store, three, [], packet=True)
    turn = prefetcher.take(store, two, [], packet=True)
    assert (turn.file.requests, turn.waited_s, turn.hidden_s) == (0, 0.0, 0.0)


def test_local_folders_are_read_in_turn(folder: Path) -> None:
    extractor = Extractor(source=LocalStorage(folder), options=FaceOptions())
    order = videos(LocalStorage(folder))
    before = threading.active_count()
    result = extractor(order[0], order[1:3])
    assert "hidden" not in result.cost.seconds
    assert threading.active_count() == before


@dataclass(frozen=True)
class Deadly:
    """An extractor whose decoder dies of marked clips, after the next ones began to be fetched."""

    extractor: Extractor

    def __call__(self, video: VideoRef, upcoming: tuple[VideoRef, ...] = ()) -> VideoResult:
        result = self.extractor(video, upcoming)
        if video.key in {"c_fragments.mp4", "d_matroska.mkv", "g_truncated.mp4"}:
            os.abort()
        return result


def test_the_culprit_alone_is_a_fault(folder: Path) -> None:
    store = Remote(folder)
    order = videos(store)
    isolated = IsolatedExtractor(Deadly(Extractor(source=store, options=FaceOptions())), LimitOptions())
    isolated.announce(order)
    found = [isolated(video) for video in order]
    isolated.close()
    alone = [extract_video(store, video, FaceOptions()) for video in order]
    for one, other in zip(found, alone, strict=True):
        if one.video.key in {"c_fragments.mp4", "d_matroska.mkv", "g_truncated.mp4"}:
            assert one.reason is Reason.DECODER_CRASHED
        else:
            assert (one.reason, one.example, one.faces) == (other.reason, other.example, other.faces)


@pytest.mark.slow
def test_from_a_real_store(folder: Path, s3_bucket: str) -> None:
    store, local = S3Storage(s3_bucket, "clips"), LocalStorage(folder)
    for video in videos(local):
        store.put(video.key, local.read(video.key))
    order = videos(store)
    # As little memory as a clip may be given: what fetches early must not take it.
    isolated = IsolatedExtractor(Extractor(source=store, options=FaceOptions()), LimitOptions(clip_memory_mb=256))
    isolated.announce(order)
    found = [isolated(video) for video in order]
    isolated.close()
    for one, video in zip(found, videos(local), strict=True):
        other = extract_video(local, video, FaceOptions())
        assert (one.reason, one.example, one.cost.bytes_read) == (other.reason, other.example, other.cost.bytes_read)
        assert [face.image for face in one.faces] == [face.image for face in other.faces]
    assert sum(one.cost.seconds["hidden"] for one in found) > 0
