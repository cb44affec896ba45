"""Work ahead of a slow reader: in order, bounded, and over with it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.ahead import THREADS, mapped_ahead
from batch.scoring.commit import read_commits as score_commits
from batch.shards.commit import read_commits as shard_commits
from batch.storage.base import DamagedError
from batch.storage.local import LocalStorage


def test_results_come_in_order_and_the_stream_is_taken_as_they_are_read() -> None:
    taken: list[int] = []
    threads: set[int] = set()

    def stream() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        return -number

    found = mapped_ahead(work, stream(), threads=4, ahead=10)
    assert taken == []
    assert [next(found) for _ in range(3)] == [0, -1, -2]
    assert len(taken) == 13
    assert list(found) == [-number for number in range(3, 1000)]
    assert threading.get_ident() not in threads
    assert list(mapped_ahead(work, iter([]))) == []


def test_an_error_comes_in_its_turn_and_ends_it() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        done.append(number)
        return number

    found = mapped_ahead(work, iter(range(10**9)), threads=2, ahead=4)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(found)
    assert list(found) == []
    assert max(done) < 20


def test_who_leaves_early_leaves_the_rest_undone() -> None:
    begun: list[int] = []
    found = mapped_ahead(begun.append, iter(range(10**9)), threads=2, ahead=8)
    next(found)
    found.close()  # type: ignore[attr-defined]  # a generator
    assert len(begun) <= 9


@pytest.mark.parametrize("read", [shard_commits, score_commits])
def test_commits_are_not_read_long_before_they_are_asked_for(tmp_path: Path, read: Any) -> None:
    class Counted(LocalStorage):
        reads = 0

        def read(self, key: str) -> bytes:
            self.reads += 1
            return super().read(key)

    sink = Counted(tmp_path)
    for number in range(200):
        sink.put(f"commits/{number:03}.json", b"{}")
    found = read(sink, (f"commits/{number:03}-gone.json" for number in range(150)))
    assert list(found) == [], "what has gone meanwhile is passed over"
    sink.reads = 0
    with pytest.raises(DamagedError, match="damaged commit"):
        next(read(sink, (f"commits/{number:03}.json" for number in range(200))))
    assert sink.reads <= 2 * THREADS + 1
