"""A small preprocessing output with retries, made by the real writers from given results."""

from dataclasses import asdict, replace

from batch.faces.options import FaceOptions
from batch.records import Reason, VideoResult, WorkUnit
from batch.reports.preprocess import write_preprocess_report
from batch.shards.build import build_unit
from batch.shards.commit import read_commits
from batch.shards.retry import retry_unit
from batch.shards.runfile import RunFile, claim_output
from batch.shards.summary import summarize
from batch.storage.base import Storage
from tests.reports.outputs import aside, fault, kept, video

FAULTS = frozenset(reason for reason in Reason if reason.is_fault)
FACES = FaceOptions()
SHAPING = {"faces": asdict(FACES), "seed": 0, "pictures": True}
RUN = RunFile(kind="preprocess", input="/in", shaping=SHAPING, versions={"fakesift": "9.8.7"})
Looks = list[VideoResult]


def no_face(key: str, source: str) -> VideoResult:
    return replace(aside(key), video=video(key, 0, source))


def timeout(key: str, source: str) -> VideoResult:
    return replace(fault(key, Reason.TIMEOUT), video=video(key, 1, source))


LOOKS: dict[str, list[Looks]] = {
    "u1": [[kept("p/real1.mp4", 0, "s1"), kept("p/fake1.mp4", 1, "s1"), no_face("p/none.mp4", "s2")]],
    "u2": [
        [
            kept("p/fake2.mp4", 1, "s1"),
            kept("q/real2.mp4", 0, "s2"),
            timeout("q/a.mp4", "s1"),
            timeout("q/b.mp4", "s2"),
        ],
        [kept("q/a.mp4", 1, "s1"), timeout("q/b.mp4", "s2")],
        [kept("q/b.mp4", 1, "s2")],
    ],
    "u3": [[kept("q/fake3.mp4", 1, "s1"), no_face("q/none1.mp4", "s1")]],
    "u4": [[kept("q/real4.mp4", 0, "s4"), kept("q/fake4.mp4", 1, "s4")]],
}
"""What is seen of each unit's videos: at first, and in each retry of the faults."""


def build(sink: Storage, looks: dict[str, list[Looks]]) -> None:
    """An output as the job leaves it, made by the real writers from given results."""
    claim_output(sink, RUN)
    for name, generations in looks.items():
        unit: WorkUnit | None = WorkUnit(id=name, videos=tuple(result.video for result in generations[0]))
        for generation, results in enumerate(generations):
            if generation:
                unit = retry_unit(
                    WorkUnit(id=name, videos=tuple(result.video for result in generations[0])),
                    [commit for commit in read_commits(sink) if commit.unit == name],
                    FAULTS,
                    sink,
                )
            found = {result.video: result for result in results}
            assert unit is not None
            build_unit(unit, found.__getitem__, "/in", sink, FACES.digest())
    close(sink)


def close(sink: Storage) -> None:
    commits = list(read_commits(sink))
    summary = summarize(commits, {"unlabelled": 1})
    sink.put("summary.json", summary.to_json())
    sink.put("plan.json", b'{"listed": %d, "units": %d}' % (summary.listed, summary.units))
    options = {**SHAPING, "versions": dict(RUN.versions)}
    title = "Faces from /in"
    write_preprocess_report(sink, summary=summary, commits=commits, title=title, options=options, pictures=True)


def everything(sink: Storage) -> dict[str, bytes]:
    """Every object."""
    return {item.key: sink.read(item.key) for item in sink.list()}
