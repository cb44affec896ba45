"""The demo: draws a corpus, preprocesses it, trains on it, and scores a bucket on two nights, on an embedded Ray.

No download, no service, no photographs.

fakesift demo demo
fakesift demo elsewhere --workers 1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from batch.corpus.draw.bucket import fill_bucket
from batch.corpus.draw.options import DrawOptions
from jobs.console import Exit, guarded, parse, say, shown
from jobs.demo_corpus import draw_with_bar
from jobs.preprocess import preprocess
from jobs.preprocess_options import PreprocessOptions
from jobs.score import score
from jobs.score_options import ScoreOptions
from jobs.train import train
from jobs.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `fakesift demo`."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where corpus and outputs go; used again as it is the next time."""
    workers: Annotated[int | None, shown("N", "one a CPU")] = None
    """Most tasks at once."""


def demo(options: DemoOptions) -> Exit:
    """Draws what is not drawn yet, then does what is not done yet, job after job; stops at the first that fails."""
    corpus, faces, model, bucket, scores = (
        Path(options.folder, name) for name in ("corpus", "faces", "model", "bucket", "scores")
    )
    say(f"1/5  fakesift demo-corpus {corpus}    (the first time a minute)")
    drawn = draw_with_bar(corpus, DrawOptions())
    say(f"2/5  fakesift preprocess {corpus} {faces}")
    code = preprocess(PreprocessOptions(input=str(corpus), output=str(faces), workers=options.workers))
    if code:
        return code
    told = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in _TRAINING.items())
    say(f"3/5  fakesift train {faces} {model} {told}")
    code = train(TrainOptions(places=(str(faces), str(model)), **_TRAINING))
    if code:
        return code
    bundle = model / "bundle"
    for night in (1, 2):
        files = fill_bucket(drawn, bucket, night=night)
        say(f"{3 + night}/5  fakesift score {bundle} {bucket} {scores}    (night {night}: {files} files)")
        code = score(ScoreOptions(places=(str(bundle), str(bucket), str(scores)), frames=_FRAMES))
        if code:
            return code
    print("\nlook at")
    for place in (faces, bundle, scores):
        print(f"  {place / 'report.html'}")
    return Exit.OK


_FRAMES = 4

_TRAINING: dict[str, Any] = {
    "model": "cnn",
    "epochs": 4,
    "learning_rate": 0.002,
    "batch_size": 16,
    "balance": "weights",
}
"""A hundred drawn faces teach a network next to nothing: it shows the way, and how the page says so."""


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(DemoOptions, "demo", __doc__, argv)
    return guarded(lambda: demo(options), "demo")


if __name__ == "__main__":
    raise SystemExit(main())
