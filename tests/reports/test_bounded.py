"""Counting and sampling in fixed memory."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.reports.bounded import Distribution, Sample, Tally, binned, nice_edges

SIZES = st.lists(st.integers(0, 400), min_size=1, max_size=80)


def test_a_sample_depends_on_the_keys_alone() -> None:
    keys = [f"k{n}" for n in range(1000)]
    first: Sample[str] = Sample(20)
    for key in keys:
        first.offer(key, key.upper())
    shuffled: Sample[str] = Sample(20)
    for key in random.Random(1).sample(keys, len(keys)):
        shuffled.offer(key, key.upper())
    assert first.in_hash_order() == shuffled.in_hash_order()
    assert len(first.in_key_order()) == 20
    assert {key for key, _ in first.in_key_order()} != set(keys[:20]), "not just those that came first"


def test_a_sampled_key_is_never_half_seen() -> None:
    sample: Sample[list[int]] = Sample(5)
    for turn in range(3):
        for number in range(200):
            key = f"k{number}"
            if sample.wants(key):
                held = sample.get(key)
                if held is None:
                    sample.offer(key, held := [])
                held.append(turn)
    assert [turns for _, turns in sample.in_hash_order()] == [[0, 1, 2]] * 5


def test_a_tally_counts_what_it_has_no_room_for() -> None:
    tally: Tally[str] = Tally(2)
    for key in "aabbbcd":
        tally.add(key)
    assert tally.top(1) == ([("b", 3)], 4)


@given(SIZES)
def test_quantiles_are_those_of_the_values(values: list[int]) -> None:
    found = Distribution(1, 500)
    found.add(np.array(values, float))
    for wanted in (0.1, 0.5, 0.9):
        assert found.quantile(wanted) == np.quantile(values, wanted, method="inverted_cdf")


@given(SIZES, st.integers(1, 40))
def test_bins_hold_every_value_once(values: list[int], most: int) -> None:
    found = Distribution(1, 500)
    found.add(np.array(values, float))
    edges = nice_edges(max(values), 1, most)
    bins = binned(found, edges)
    assert len(bins.counts) <= most
    assert bins.counts == tuple(np.histogram(values, edges)[0])
    assert not bins.open_end


def test_what_lies_beyond_the_last_edge_is_in_the_last_bin() -> None:
    found = Distribution(0.1, 100)
    found.add(np.array([0.0, 0.95, 1.0, 7.0, 5000.0, np.nan, np.inf, -1.0]))
    bins = binned(found, (0.0, 1.0, 2.0))
    assert bins.counts == (2, 3)
    assert bins.open_end
    assert found.total == 5


def test_an_empty_distribution_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="empty"):
        Distribution(1, 5).quantile(0.5)
