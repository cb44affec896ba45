"""A source or a video and outputs in, the outputs without it out. Needs no Ray.

Takes the faces, outcomes and counts of a source and of all that came from it out of every OUTPUT, or those of a
single video. A record under purged/ makes the next run refuse the same videos. No job may write there meanwhile; cut
off, the same command goes on. A bucket that keeps old versions keeps the faces in them: remove those in the store.

fakesift purge --source s3://corpus/dfdc/part_0/abc.mp4 s3://lab/faces
fakesift purge --video part_0/abc.mp4 demo/faces demo/more
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from batch.model.purge import purge_training
from batch.scoring.purge import purge_scores
from batch.shards.purge import PurgeRequest, named_uris, purge_outputs
from batch.shards.purge_faces import PurgeReport
from batch.shards.runfile import kind_of
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, guarded, parse, say, shown

_MADE_OF_FACES = ("train", "tune", "score")
_EXIT_CODES = "Exit codes: 0 done, also if there was nothing of it; 1 failed, run it again; 2 wrong usage or no output."


@dataclass(frozen=True, kw_only=True)
class PurgeOptions:
    """Options of `fakesift purge`."""

    outputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT...", help_behavior_hint="(one or more)")
    ]
    """Outputs of preprocess, train, tune and score. Only those of preprocess know sources: give them in the same
    command, and all that came from a source goes from the others too. Alone, a name there stands for a video."""
    source: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], shown("URI|KEY|ID", "none; may be given several times")
    ] = ()
    """A source id: that source and every fake of it. If no output has such a source, a video's uri or key: then the
    source that this video is of."""
    video: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], shown("URI|KEY", "none; may be given several times")
    ] = ()
    """A video's uri or key: this video alone; of scores, all that were found to have its content."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""


def purge(options: PurgeOptions) -> Exit:
    """Purges the outputs and prints what was taken out of each."""
    request = PurgeRequest(sources=tuple(options.source), videos=tuple(options.video))
    sinks = [open_storage(output, S3Options(endpoint=options.s3_endpoint)) for output in options.outputs]
    kinds = [kind_of(sink) for sink in sinks]
    faces = [sink for sink, kind in zip(sinks, kinds, strict=True) if kind not in _MADE_OF_FACES]
    names = (*request.sources, *request.videos)
    uris = sorted(named_uris(faces, request)) if faces else []
    # What was made of the faces first: cut off between, the faces still know which videos are meant.
    for sink, kind in zip(sinks, kinds, strict=True):
        if kind == "score":
            _print(purge_scores(sink, (*names, *uris)))
        elif kind in _MADE_OF_FACES:
            report = purge_training(sink, names, uris)
            _print(report)
            if report.faces:
                say("  the weights learnt from them stay: train anew, and delete the old bundle and its checkpoints")
    for report in purge_outputs(faces, request) if faces or not sinks else []:
        _print(report)
    return Exit.OK


def _print(report: PurgeReport) -> None:
    done = f"{report.videos} videos, {report.faces} faces removed" if report.videos else "nothing of it here"
    print(f"{report.output}: {done}")
    print(f"  record   {report.record or 'there from before'}")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(PurgeOptions, "purge", __doc__, argv, _EXIT_CODES)
    return guarded(lambda: purge(options), "purge")


if __name__ == "__main__":
    raise SystemExit(main())
