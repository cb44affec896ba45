"""A small drawn corpus that the tests of the jobs share."""

from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus, draw_corpus
from batch.corpus.draw.options import DrawOptions


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnCorpus:
    """Four people over two parts, with every planted file."""
    return draw_corpus(tmp_path_factory.mktemp("drawn") / "corpus", DrawOptions(identities=4, parts=2))


@pytest.fixture(scope="session")
def drawn_corpus(drawn: DrawnCorpus) -> Path:
    """Its folder."""
    return drawn.folder
