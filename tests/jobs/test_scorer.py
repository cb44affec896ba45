"""The actors of a scoring run: what they refuse to load, and how they come as a cluster grows."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from batch.faces.isolate import LimitOptions
from batch.faces.options import CropOptions, FaceOptions
from batch.model.bundle import Bundle, load_bundle
from batch.model.golden import Golden
from batch.scoring.commit import ScoreCommit, commit_keys, read_commits
from batch.scoring.listing import list_media
from batch.scoring.look import MediaExtractor
from batch.scoring.records import Item, ScoreUnit, ScoringOptions
from batch.scoring.units import make_unit
from batch.storage.base import Storage
from batch.storage.local import LocalStorage
from jobs.scorer import Actors, PoolOptions, Scorer, Shared
from jobs.scoring import ScoringPool
from jobs.session import ray_session
from tests.support.edited_bundle import edited
from tests.support.light_bundle import LightBundle
from tests.support.made_bundle import made_bundle
from tests.support.scored import claim, recipe

PATIENCE_S = 300
SIDE = 64
SCORING = ScoringOptions(faces=FaceOptions(frames=2, faces="all", crop=CropOptions(crop_size=SIDE)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made_bundle(LocalStorage(tmp_path_factory.mktemp("bundles") / "one"), side=SIDE)


def shared(source: Storage, sink: Storage) -> Shared:
    extractor = MediaExtractor(source=source, sources=(source,), options=SCORING.faces, pictures=False)
    return Shared(extractor=extractor, limits=LimitOptions(), sink=sink, recipe=recipe(source, 1, SCORING))


def test_a_network_for_other_crops_is_not_used(bundle: Bundle, tmp_path: Path) -> None:
    def other_crops(raw: dict[str, Any]) -> None:
        raw["face_options"]["crop"]["crop_size"] = 48

    other = load_bundle(LocalStorage(edited(Path(bundle.uri), tmp_path / "bundle", other_crops)))
    store = LocalStorage(tmp_path)
    with pytest.raises(RuntimeError, match=r"stopped: .*/bundle: a network for crops of 64 px, and crops of 48 px"):
        Scorer(other, shared(store, store), PoolOptions()).load()


def drifted(bundle: Bundle, copy: Path) -> Bundle:
    """One whose stored logits another library version might have given."""
    golden = bundle.golden()
    moved = Golden(images=golden.images, logits=golden.logits + np.float32(0.01)).to_bytes()
    return load_bundle(LocalStorage(edited(Path(bundle.uri), copy, lambda raw: None, {"golden.npz": moved})))


def test_a_network_whose_scores_drift_is_not_used(bundle: Bundle, tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    with pytest.raises(RuntimeError, match=r"stopped: .*drift"):
        Scorer(drifted(bundle, tmp_path / "bundle"), shared(store, store), PoolOptions()).load()
    Scorer(bundle, shared(store, store), PoolOptions()).load()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without a CPU, as on the clusters that this project ships, and no other node."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_actors_come_as_nodes_do(
    cluster: Any,
    drawn: DrawnCorpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cluster begins with no node; two with a CPU join while the run goes on, then one with a GPU, which dies."""
    monkeypatch.setattr("jobs.scorer.LOOK_AGAIN_S", 0.2)
    monkeypatch.setattr("jobs.scoring.LOOK_AGAIN_S", 0.2)
    source, sink = LocalStorage(drawn.folder), LocalStorage(tmp_path / "out")
    claim(sink, 1)
    found = next(each for each in list_media(source) if each.key == drawn.reals[0])
    item = Item(input=0, key=found.key, size_bytes=found.size_bytes, etag=found.etag, modified_s=found.modified_s)
    made: list[ScoreUnit] = []

    def unit() -> ScoreUnit:
        made.append(make_unit([item], str(len(made))))
        return made[-1]

    def until(met: Callable[[], bool]) -> Iterator[ScoreUnit]:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < deadline
            yield unit()

    def stream(actors: Actors) -> Iterator[ScoreUnit]:
        yield unit()
        yield unit()
        assert (len(actors), actors.able, actors.cpus) == (1, [], 0), "a GPU is asked for, and work for CPUs"
        cluster.add_node(num_cpus=1)
        yield from until(lambda: len(actors.able) == 1)
        cluster.add_node(num_cpus=1)
        yield from until(lambda: len(actors.able) == 2)
        on_cpus = actors.able
        assert not any(actor.on_gpu for actor in on_cpus)
        with_gpu = cluster.add_node(num_cpus=1, num_gpus=1)
        yield from until(lambda: actors.able[0].on_gpu)
        given = [actor.units for actor in on_cpus]
        yield from until(lambda: actors.able[0].units == 3)
        assert [actor.units for actor in on_cpus] == given
        assert sum(given) > 0
        assert len(actors) == 3, "no more on CPUs than were asked for"
        cluster.remove_node(with_gpu, allow_graceful=False)
        yield from until(lambda: sum(actor.units for actor in on_cpus) > sum(given) + 3)
        assert not any(actor.on_gpu for actor in actors.able)

    light = LightBundle(face_options=SCORING.faces)
    options = PoolOptions(score_actors=2, score_gpus=1, runtime="openvino")
    with ray_session(cluster.address, None) as ray:
        pool = ScoringPool(ray, light, shared(source, sink), options)  # type: ignore[arg-type]
        reports = list(pool.run(stream(pool.actors)))
        assert {report.commit.unit for report in reports} == {each.id for each in made}
        assert sum(report.commit.crops for report in reports) >= len(made)
        assert pool.actors.runtimes == {"keras", "openvino"}
        # Of a unit that was taken back after its commit, that commit stands and the report tells of another.
        commits = list(read_commits(sink, commit_keys(sink, [1])))
        assert {row["runtime"] for commit in commits for row in rows_of(sink, commit)} == pool.actors.runtimes

        pool.actors.stop()  # which hold the GPU
        again = [make_unit([item], f"again {number}") for number in range(3)]
        drifts = replace(light, error="scores drift")
        broken = ScoringPool(ray, drifts, shared(source, sink), options)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="stopped: scores drift"):
            list(broken.run(again))
        broken.actors.stop()
        assert len(list(commit_keys(sink, [1]))) == len(made), "none is committed"
        whole = ScoringPool(ray, light, shared(source, sink), options)  # type: ignore[arg-type]
        assert {report.commit.unit for report in whole.run(again)} == {each.id for each in again}, "none is lost"
        whole.actors.stop()

        cluster.add_node(num_cpus=1, num_gpus=1)
        monkeypatch.setattr("jobs.scorer.GPU_PATIENCE_S", 3)
        other_job = ray.remote(num_cpus=0, num_gpus=1)(Holder).remote()
        ray.get(other_job.holds.remote())
        waiting = ScoringPool(ray, light, shared(source, sink), replace(options, score_gpus=None))  # type: ignore[arg-type]
        units = [make_unit([item], f"held {number}") for number in range(5)]
        assert {report.commit.unit for report in waiting.run(units)} == {each.id for each in units}
        assert waiting.actors.runtimes == {"openvino"}
        assert "no GPU came free in 3 s: cores score until one does" in capsys.readouterr().err
        ray.kill(other_job)


class Holder:
    """An actor of another job."""

    def holds(self) -> bool:
        return True


def rows_of(sink: LocalStorage, commit: ScoreCommit) -> list[dict[str, Any]]:
    return pq.read_table(sink.uri(commit.items.key), partitioning=None).to_pylist()
