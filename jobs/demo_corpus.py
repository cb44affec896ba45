"""Draws a corpus with the shape of DFDC: reals, fakes made from them, and planted bad files. No photographs.

fakesift demo-corpus demo/corpus
fakesift demo-corpus demo/small --identities 4 --parts 1
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from batch.corpus.draw.corpus import DrawnCorpus, draw_corpus
from batch.corpus.draw.options import DrawOptions
from jobs.console import Exit, guarded, parse
from jobs.progress import progress


@dataclass(frozen=True, kw_only=True)
class DemoCorpusOptions:
    """Options of `fakesift demo-corpus`."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where to draw: a new or empty folder, or one with the same corpus."""
    seed: int = 0
    """Equal seeds give equal files."""
    identities: int = DrawOptions().identities
    """People, each with one real clip and about five fakes."""
    parts: int = DrawOptions().parts
    """Folders, as DFDC has."""


def demo_corpus(options: DemoCorpusOptions) -> Exit:
    """Draws the corpus. Raises `ValueError` for a folder that holds something else."""
    draw = DrawOptions(seed=options.seed, identities=options.identities, parts=options.parts)
    draw_with_bar(Path(options.folder), draw)
    return Exit.OK


def draw_with_bar(folder: Path, options: DrawOptions) -> DrawnCorpus:
    """Draws and shows how far it is; says what was drawn."""
    with progress("files") as bar:
        shown = 0

        def tell(done: int, total: int) -> None:
            nonlocal shown
            bar.total(total)
            bar.add(Counter(drawn=done - shown))
            shown = done

        drawn = draw_corpus(folder, options, tell)
    verb = "drew" if drawn.drawn else "there"
    print(
        f"{verb:<10} {drawn.files:>8}   files, {drawn.size_bytes / 1e6:.0f} MB: {len(drawn.reals)} real clips, ", end=""
    )
    print(f"{len(drawn.fakes)} fakes, {len(drawn.planted)} odd or broken on purpose")
    return drawn


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(DemoCorpusOptions, "demo-corpus", __doc__, argv)
    return guarded(lambda: demo_corpus(options), "demo-corpus")


if __name__ == "__main__":
    raise SystemExit(main())
