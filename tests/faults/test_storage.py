"""What a store does wrong between listing and last byte, in front of a real server: mended or told, never lost."""

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import boto3
import pytest

from batch.faces.extract import Extractor, extract_video
from batch.faces.options import FaceOptions
from batch.records import Cost, Reason, VideoRef, VideoResult, WorkUnit
from batch.shards.build import build_unit
from batch.shards.commit import read_commits
from batch.storage.base import AccessError, DeniedError, StorageError
from batch.storage.s3 import S3Options, S3Storage
from tests.support.fault_proxy import Fault, FaultProxy, Rule, never_accepting, proxying
from tests.support.seaweed import S3Server

pytestmark = pytest.mark.slow

FIRST = FaceOptions()
FOUR = FaceOptions(frames=4)


def store(endpoint: str, bucket: str, prefix: str = "") -> S3Storage:
    options = S3Options(endpoint=endpoint, connect_timeout_s=0.5, read_timeout_s=0.5, max_attempts=2)
    return S3Storage(bucket, prefix, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A listed clip on a real server, and the way to it through the proxy."""

    proxy: FaultProxy
    direct: S3Storage
    source: S3Storage
    sink: S3Storage
    calm_sink: S3Storage
    video: VideoRef

    def look(self, options: FaceOptions = FIRST) -> VideoResult:
        """What comes of the clip through the proxy, without what differs from run to run."""
        return replace(extract_video(self.source, self.video, options), cost=Cost())

    def calm(self, options: FaceOptions = FIRST) -> VideoResult:
        """The same past the proxy."""
        return replace(extract_video(self.direct, self.video, options), cost=Cost())


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """One for all tests here, each with a prefix of its own: the server takes seconds to make room for a bucket."""
    name = f"faults-{uuid.uuid4().hex[:12]}"
    session = boto3.session.Session(s3_server.access_key, s3_server.secret_key, region_name="us-east-1")
    session.client("s3", endpoint_url=s3_server.endpoint).create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def running_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """One for all tests here, so that boto3's client is made once."""
    with proxying(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def scene(
    s3_server: S3Server,
    bucket: str,
    running_proxy: FaultProxy,
    aws_environment: pytest.MonkeyPatch,
    face_clip: bytes,
) -> Scene:
    aws_environment.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    aws_environment.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    place = uuid.uuid4().hex
    direct = S3Storage(bucket, f"{place}/in", S3Options(endpoint=s3_server.endpoint))
    direct.put("part/clip.mp4", face_clip)
    [item] = direct.list()
    video = VideoRef(key=item.key, size_bytes=item.size_bytes, etag=item.etag, part="part", label=0, source_id="clip")
    running_proxy.rules = ()
    running_proxy.injected.clear()
    return Scene(
        proxy=running_proxy,
        direct=direct,
        source=store(running_proxy.endpoint, bucket, f"{place}/in"),
        sink=store(running_proxy.endpoint, bucket, f"{place}/out"),
        calm_sink=S3Storage(bucket, f"{place}/calm", S3Options(endpoint=s3_server.endpoint)),
        video=video,
    )


@pytest.mark.parametrize("fault", ["500", "503", "reset", "silence", "delay", "cut", "stall", "short"])
def test_a_passing_fault_leaves_no_trace(scene: Scene, fault: Fault) -> None:
    expected = scene.calm()
    scene.proxy.rules = [Rule(fault=fault, path="clip", skip=1, times=1)]
    assert expected.reason is Reason.KEPT
    assert scene.look() == expected
    assert scene.proxy.injected == {fault: 1}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("500", "InternalError: injected"),
        ("503", "SlowDown: injected"),
        ("reset", "Connection"),
        ("silence", "Read timeout"),
        ("cut", "broke off 2 times"),
        ("stall", "broke off 2 times: Read timeout"),
        ("short", "broke off 2 times"),
    ],
)
@pytest.mark.parametrize("skip", [0, 2])
def test_a_lasting_fault_is_an_outcome_with_its_cause(scene: Scene, fault: Fault, told: str, skip: int) -> None:
    scene.proxy.rules = [Rule(fault=fault, path="clip", skip=skip)]
    found = scene.look(FOUR)
    assert found.reason is Reason.STORAGE_ERROR
    assert found.detail.startswith(scene.source.uri(scene.video.key))
    assert re.search(told, found.detail), found.detail
    assert scene.proxy.injected == {fault: 2}  # no read is tried again after the first that failed for good


def test_nobody_takes_the_call(scene: Scene) -> None:
    with never_accepting() as endpoint:
        found = extract_video(store(endpoint, "bucket"), scene.video, FIRST)
    assert found.reason is Reason.STORAGE_ERROR
    assert "Connect timeout" in found.detail


@pytest.mark.parametrize("fault", ["cut", "short"])
@pytest.mark.parametrize("options", [FIRST, FOUR], ids=["first", "four"])
def test_no_short_read_passes_as_the_end_of_the_file(scene: Scene, fault: Fault, options: FaceOptions) -> None:
    expected = scene.calm(options)
    harmed = 0
    for skip in range(12):
        before = scene.proxy.injected.total()
        scene.proxy.rules = [Rule(fault=fault, path="clip", skip=skip)]
        found = scene.look(options)
        if scene.proxy.injected.total() == before:
            assert found == expected
            break
        harmed += 1
        assert found.reason is Reason.STORAGE_ERROR, found
    assert harmed >= 3
    assert found == expected


@pytest.mark.parametrize("fault", ["expired", "expired_400", "denied"])
@pytest.mark.parametrize("skip", [0, 2])
def test_refused_credentials_end_it_at_once(scene: Scene, fault: Fault, skip: int) -> None:
    scene.proxy.rules = [Rule(fault=fault, path="clip", skip=skip)]
    with pytest.raises(AccessError, match=r"clip\.mp4: (ExpiredToken|AccessDenied): injected"):
        scene.look()
    assert scene.proxy.injected == {fault: 1}


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_an_object_that_vanishes_on_the_way(scene: Scene, skip: int) -> None:
    gone = Rule(fault="none", path="clip", skip=skip, times=1, before=lambda: scene.direct.delete(scene.video.key))
    scene.proxy.rules = [gone]
    found = scene.look()
    assert found.reason is Reason.STORAGE_ERROR
    assert scene.source.uri(scene.video.key) in found.detail
    assert "NoSuchKey" in found.detail


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("change", [bytes.swapcase, lambda data: data[: len(data) // 3], lambda data: data + data])
def test_an_object_that_changes_on_the_way(scene: Scene, skip: int, change: Callable[[bytes], bytes]) -> None:
    data = change(scene.direct.read(scene.video.key))
    replaced = Rule(
        fault="none", path="clip", skip=skip, times=1, before=lambda: scene.direct.put(scene.video.key, data)
    )
    scene.proxy.rules = [replaced]
    found = scene.look()
    assert found.reason is Reason.STORAGE_ERROR
    assert scene.source.uri(scene.video.key) in found.detail
    assert "PreconditionFailed" in found.detail


@pytest.mark.parametrize("fault", ["500", "reset", "silence", "cut", "503"])
def test_a_listing_is_whole_or_an_error(scene: Scene, fault: Fault) -> None:
    for number in range(3):
        scene.direct.put(f"more/{number}.mp4", b"x")
    expected = list(scene.direct.list())
    scene.proxy.rules = [Rule(fault=fault, path="list-type=2", skip=1, times=1)]
    assert list(scene.source.list()) == expected
    scene.proxy.rules = [Rule(fault=fault, path="list-type=2", skip=1)]
    with pytest.raises(StorageError, match="s3://"):
        list(scene.source.list())


def test_a_listing_with_expired_credentials(scene: Scene) -> None:
    scene.proxy.rules = [Rule(fault="expired", path="list-type=2", skip=1)]
    with pytest.raises(AccessError, match="ExpiredToken"):
        list(scene.source.list())


@pytest.mark.parametrize("fault", ["500", "503", "reset", "silence", "lost_reply"])
def test_a_unit_is_committed_once_through_faults(scene: Scene, fault: Fault) -> None:
    """Each of a unit's PUTs (faces, outcomes, commit) is spoilt once."""
    unit = WorkUnit(id="unit", videos=(scene.video,))
    root = scene.source.root
    scene.proxy.rules = [Rule(fault=fault, method="PUT", each=1)]
    report = build_unit(unit, Extractor(source=scene.source, options=FIRST), root, scene.sink, "digest")
    assert report.won
    assert scene.proxy.injected == {fault: 3}
    build_unit(unit, Extractor(source=scene.direct, options=FIRST), root, scene.calm_sink, "digest")
    data = [{item.key: sink.read(item.key) for item in sink.list("faces/")} for sink in (scene.sink, scene.calm_sink)]
    assert data[0] == data[1] != {}
    assert len(list(read_commits(scene.sink))) == 1


def test_a_unit_that_cannot_be_written_is_not_committed(scene: Scene) -> None:
    unit = WorkUnit(id="unit", videos=(scene.video,))
    extract = Extractor(source=scene.source, options=FIRST)
    scene.proxy.rules = [Rule(fault="503", method="PUT", path="outcomes/")]
    with pytest.raises(StorageError, match="SlowDown"):
        build_unit(unit, extract, scene.source.root, scene.sink, "digest")
    assert list(read_commits(scene.sink)) == []
    scene.proxy.rules = []
    assert build_unit(unit, extract, scene.source.root, scene.sink, "digest").won


def test_an_object_that_is_denied_is_a_fault_beside_others_and_alone_a_refusal(scene: Scene) -> None:
    other = replace(scene.video, key="other.mp4")
    scene.direct.put(other.key, scene.direct.read(scene.video.key))
    [listed] = [item for item in scene.direct.list() if item.key == other.key]
    other = replace(other, etag=listed.etag)
    extract = Extractor(source=scene.source, options=FIRST)
    scene.proxy.rules = [Rule(fault="denied", path="other")]
    with pytest.raises(DeniedError, match=r"other\.mp4: AccessDenied"):
        build_unit(WorkUnit(id="a", videos=(other,)), extract, scene.source.root, scene.sink, "digest")
    report = build_unit(WorkUnit(id="b", videos=(other, scene.video)), extract, scene.source.root, scene.sink, "digest")
    assert report.commit.reasons == {Reason.KEPT: 1, Reason.STORAGE_ERROR: 1}
    assert [commit.unit for commit in read_commits(scene.sink)] == ["b"]
