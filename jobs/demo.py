"""The demo: draws a corpus and preprocesses it on an embedded Ray. No download, no service, no photographs.

fakesift demo demo
fakesift demo elsewhere --workers 1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from batch.corpus.draw.options import DrawOptions
from jobs.console import Exit, guarded, parse, say, shown
from jobs.demo_corpus import draw_with_bar
from jobs.preprocess import preprocess
from jobs.preprocess_options import PreprocessOptions


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `fakesift demo`."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where corpus and outputs go; used again as it is the next time."""
    workers: Annotated[int | None, shown("N", "one a CPU")] = None
    """Most tasks at once."""


def demo(options: DemoOptions) -> Exit:
    """Draws what is not drawn yet, then preprocesses what is not done yet."""
    corpus, faces = Path(options.folder, "corpus"), Path(options.folder, "faces")
    say(f"1/2  fakesift demo-corpus {corpus}    (the first time a minute)")
    draw_with_bar(corpus, DrawOptions())
    say(f"2/2  fakesift preprocess {corpus} {faces}")
    return preprocess(PreprocessOptions(input=str(corpus), output=str(faces), workers=options.workers))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(DemoOptions, "demo", __doc__, argv)
    return guarded(lambda: demo(options), "demo")


if __name__ == "__main__":
    raise SystemExit(main())
