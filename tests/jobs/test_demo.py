"""What `make demo` runs: its options hold, and it stops at the first job that fails."""

from pathlib import Path
from typing import Any

import pytest

from batch.corpus.draw.bucket import fill_bucket
from batch.corpus.draw.corpus import DrawnCorpus
from jobs import demo as module
from jobs.console import Exit
from jobs.demo import DemoOptions, demo
from jobs.preprocess_options import PreprocessOptions
from jobs.score_options import ScoreOptions
from jobs.train_options import TrainOptions

JOBS = ("preprocess", "train", "score", "score")


@pytest.mark.parametrize("fails", [None, *range(4)])
def test_it_stops_at_the_first_that_fails(
    fails: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def job(name: str) -> Any:
        def run(options: PreprocessOptions | TrainOptions | ScoreOptions) -> Exit:
            options.check()
            ran.append(name)
            return Exit.FAILED if len(ran) - 1 == fails else Exit.OK

        return run

    monkeypatch.setattr(module, "draw_with_bar", lambda folder, options: None)
    monkeypatch.setattr(module, "fill_bucket", lambda drawn, folder, night: 20)
    for name in set(JOBS):
        monkeypatch.setattr(module, name, job(name))
    code = demo(DemoOptions(folder=str(tmp_path)))
    out = capsys.readouterr().out
    if fails is None:
        assert (code, tuple(ran)) == (Exit.OK, JOBS)
        pages = [tmp_path / "faces", tmp_path / "model" / "bundle", tmp_path / "scores"]
        assert out == "\nlook at\n" + "".join(f"  {page / 'report.html'}\n" for page in pages)
    else:
        assert (code, tuple(ran), out) == (Exit.FAILED, JOBS[: fails + 1], "")


def test_the_second_night_brings_two_files(drawn: DrawnCorpus, tmp_path: Path) -> None:
    first = fill_bucket(drawn, tmp_path, night=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert fill_bucket(drawn, tmp_path, night=1) == first == len(before)
    second = fill_bucket(drawn, tmp_path, night=2)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert {path: after[path] for path in before} == before
    new = sorted(path.suffix for path in set(after) - set(before))
    assert (second - first, new) == (2, [".jpg", ".mp4"])
