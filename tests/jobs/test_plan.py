"""The plan through its command line, on drawn clips."""

import re
import shutil
from pathlib import Path

import pytest

from batch.corpus.draw.corpus import DrawnCorpus
from jobs.plan import PRICES, PlanOptions, read_prices
from tests.jobs.test_preprocess import fakesift


def figure(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found.group(1))


@pytest.mark.slow
def test_a_plan_scales_with_the_corpus(drawn: DrawnCorpus, tmp_path: Path) -> None:
    whole = fakesift("plan", "preprocess", drawn.folder, "--sample", 12, "--nodes", 2, "--videos", 1_000_000)
    assert whole.returncode == 0, whole.stderr
    assert f"{drawn.files} videos" in whole.stdout
    a_video_ms = figure(r"time +(\d+) ms", whole.stdout)
    hours = figure(r"work +([\d.]+) CPU hours", whole.stdout)
    assert hours == pytest.approx(a_video_ms * 1_000_000 / 3.6e6, rel=0.1)
    wall = figure(r"2 nodes +([\d.]+) h", whole.stdout)
    assert wall == pytest.approx(hours / (2 * 16 * 0.9), rel=0.02, abs=0.01)


def test_prices_are_the_users_to_edit(tmp_path: Path) -> None:
    copy = tmp_path / "prices.yaml"
    shutil.copyfile(PRICES, copy)
    copy.write_text(copy.read_text().replace("currency: USD", "currency: EUR").replace("cpus: 16", "cpus: 32"))
    prices = read_prices(copy)
    assert (prices.currency, prices.node_cpus) == ("EUR", 32)
    copy.write_text("currency: EUR\n")
    with pytest.raises(ValueError, match=r"prices .*prices\.yaml: got KeyError"):
        read_prices(copy)


def test_an_empty_input_and_numbers_that_cannot_be(tmp_path: Path) -> None:
    done = fakesift("plan", "preprocess", tmp_path)
    assert done.returncode == 2
    assert "no mp4" in done.stderr
    with pytest.raises(ValueError, match="sample: got"):
        PlanOptions(job="preprocess", input="x", sample=0)
