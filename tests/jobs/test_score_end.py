"""How a scoring run ends, through the command line: exit codes, `summary.json`, and what a death on the way leaves.

The runs here take in what one that was killed has committed, so that no Ray is needed.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from batch.model.bundle import Bundle, load_bundle
from batch.records import Reason
from batch.scoring.commit import commit_keys
from batch.scoring.digests import fingerprint
from batch.scoring.listing import list_media
from batch.scoring.purge import purge_scores
from batch.scoring.records import Item, ScoringOptions
from batch.scoring.runs import Claim, new_claim
from batch.scoring.summary import ScoreSummary, Tally, read_history, write_summary
from batch.scoring.verify import verify_scores
from batch.shards.runfile import RunFile, claim_output
from batch.storage.local import LocalStorage
from jobs.score import main
from jobs.score_options import ScoreOptions
from jobs.status_others import scoring_status
from tests.support.edited_bundle import edited
from tests.support.made_bundle import made_bundle
from tests.support.scored import record

ITEMS = 60
KILLED = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    sink = LocalStorage(tmp_path_factory.mktemp("bundles") / "one")
    made_bundle(sink)
    return load_bundle(sink)


class Place:
    """An INPUT of small files, and an OUTPUT in which run 4 was killed after it had committed them."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.bundle, self.source, self.sink = bundle, LocalStorage(folder / "in"), LocalStorage(folder / "out")
        for number in range(ITEMS):
            self.source.put(f"{number:02}.jpg", bytes([number]) * 10)
        claim_output(self.sink, RunFile(kind="score", input="", shaping={}, versions={}))

    @property
    def scoring(self) -> ScoringOptions:
        return ScoreOptions(places=("b", "in", "out")).scoring(self.bundle.face_options)

    @property
    def items(self) -> list[Item]:
        return [
            Item(input=0, key=each.key, size_bytes=each.size_bytes, etag=each.etag, modified_s=each.modified_s)
            for each in list_media(self.source)
        ]

    def killed(self, items: list[Item], reasons: dict[str, Reason] | None = None, logit: float = 0.0) -> None:
        record(
            self.sink, self.source, items, run=KILLED, options=self.scoring, reasons=reasons, logit=logit,
            bundle=self.bundle.digest,
        )  # fmt: skip

    def score(self, *options: str) -> int:
        return main([self.bundle.uri, self.source.root, self.sink.root, "--no-pictures", *options])

    @property
    def told(self) -> ScoreSummary:
        return ScoreSummary.from_json(self.sink.read("summary.json"))

    @property
    def ledger_rows(self) -> int:
        [(count,)] = duckdb.sql(f"select count(*) from '{self.sink.root}/ledger/*.parquet'").fetchall()
        return int(count)


@pytest.fixture
def place(tmp_path: Path, bundle: Bundle) -> Place:
    return Place(tmp_path, bundle)


@pytest.mark.parametrize(
    ("usual", "faults", "strict", "code"),
    [
        *[(1.0, 0, True, 0), (1.0, 1, True, 3), (1.0, 1, False, 0)],
        *[(0.5, 0, True, 4), (0.5, 1, True, 4), (0.5, 1, False, 0)],
    ],
)
def test_the_exit_code_tells_drift_before_faults(
    place: Place, usual: float, faults: int, strict: bool, code: int
) -> None:
    """`usual`: the coverage of three earlier runs; that of this one is nearly whole."""
    scored = int(ITEMS * usual)
    histogram = Counter({10: scored})
    total = Tally(
        items=ITEMS, scored=scored, set_aside={"no_face": ITEMS - scored}, bands={"uncertain": scored},
        histogram=tuple(histogram[n] for n in range(20)),
    )  # fmt: skip
    place.killed(place.items, {f"{number:02}.jpg": Reason.TRUNCATED for number in range(faults)})
    for run in range(1, KILLED):
        write_summary(place.sink, _summary(run, place, total))
    assert place.score(*["--strict"] * strict) == code
    told = json.loads(place.sink.read("summary.json"))
    assert (told["exit_code"], told["problem"]) == (code, "")
    assert told["last_check"]["exit_code"] == code
    assert bool(told["drift"]) == (usual < 1)


def test_an_alert_finds_what_to_name(place: Place) -> None:
    place.killed(place.items, {"00.jpg": Reason.NO_FACE}, logit=5.0)
    assert place.score() == 0
    assert len(place.told.likely_fake) == 20
    assert {each.uri for each in place.told.likely_fake} < {place.source.uri(f"{n:02}.jpg") for n in range(1, ITEMS)}
    assert {round(each.probability, 2) for each in place.told.likely_fake} == {0.99}
    name = place.told.likely_fake[0].uri
    purge_scores(place.sink, [name])
    assert name not in {each.uri for each in place.told.likely_fake}
    assert not [item.key for item in place.sink.list() if name.encode() in place.sink.read(item.key)]
    assert verify_scores(place.sink).findings == ()


def test_a_run_that_finds_nothing_says_that_it_came(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.killed(place.items)
    assert place.score() == 0
    before, ledger = place.told, [item.etag for item in place.sink.list("ledger/")]
    assert before.last_check is not None
    assert (before.last_check.pending, before.pending, before.total.items) == (0, 0, ITEMS)
    for number in range(ITEMS):
        place.source.delete(f"{number:02}.jpg")
    assert place.score() == 0, "an emptied bucket is no wrong usage"
    check = place.told.last_check
    assert check is not None
    assert (check.exit_code, check.pending, check.vanished, check.denied) == (0, 0, ITEMS, {})
    assert replace(place.told, last_check=before.last_check) == before
    scoring_status(place.sink, as_json=False)
    assert f"last check   {check.at}: 0 to look at, {ITEMS} vanished; exit 0\n" in capsys.readouterr().out
    assert [item.etag for item in place.sink.list("ledger/")] == ledger
    assert not place.sink.exists("runs/000006.json")
    assert verify_scores(place.sink).findings == ()


def test_what_a_death_before_the_ledger_leaves_is_done_again(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.killed(place.items)
    obstacle = Path(place.sink.uri("ledger/000005.json"))
    obstacle.mkdir(parents=True)
    assert place.score() == 1
    assert "000005.json" in capsys.readouterr().err
    assert [summary.run for summary in read_history(place.sink)] == [5], "page and summary are there"
    place.sink.delete("report.html")
    obstacle.rmdir()
    assert place.score() == 0
    assert (place.told.runs, place.told.total.items) == ((4, 5, 6), ITEMS)
    assert [summary.run for summary in read_history(place.sink)] == [6], "no night is held against itself"
    assert place.sink.exists("report.html")
    assert place.ledger_rows == ITEMS
    assert place.score() == 0
    assert "nothing to do" in capsys.readouterr().err
    assert verify_scores(place.sink, prune=True).findings == ()


def test_what_a_killed_run_scored_with_another_bundle_is_in_no_figure(place: Place) -> None:
    record(place.sink, place.source, place.items[:20], run=KILLED - 1, options=place.scoring, logit=5.0, bundle="other")
    place.killed(place.items)
    assert place.score() == 0
    assert (place.told.runs, place.told.total.items, place.told.likely_fake) == ((4, 5), ITEMS, ())
    assert place.ledger_rows == ITEMS + 20
    assert verify_scores(place.sink).findings == ()


def test_a_damaged_bundle_loses_nothing(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.killed(place.items[:30])
    assert place.score("--include", "[012]*.jpg") == 0
    before = {item.key: item.etag for item in place.sink.list()}
    damaged = edited(Path(place.bundle.uri), tmp_path / "bundle", lambda raw: None)
    (damaged / "bundle.json").write_text("{")
    assert main([str(damaged), place.source.root, place.sink.root]) == 2
    assert "bundle.json: damaged" in capsys.readouterr().err
    assert {item.key: item.etag for item in place.sink.list()} == before
    assert place.score("--include", "[012]*.jpg") == 0, "the next good run goes on"


def test_what_a_killed_run_commits_after_it_was_read_is_not_counted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers may live on for a while: here until right before the claim, and until the end."""
    items = place.items
    place.killed(items[:20])

    def late(**told: str) -> Claim:
        place.killed(items[20:30])
        return new_claim(**told)  # type: ignore[arg-type]

    monkeypatch.setattr("jobs.score.new_claim", late)
    assert place.score("--include", "[01]*.jpg") == 0
    assert place.told.total.items == place.ledger_rows == 20
    assert place.told.units == len(list(commit_keys(place.sink, [KILLED])))
    assert verify_scores(place.sink).findings == ()


def test_a_precision_that_the_bundle_lacks_is_wrong_usage(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = edited(Path(place.bundle.uri), tmp_path / "bundle", lambda raw: raw["tolerance"].pop("bfloat16"))
    assert main([str(half), place.source.root, place.sink.root, "--precision", "bfloat16"]) == 2
    assert "precision: got 'bfloat16', expected one that" in capsys.readouterr().err
    assert not list(place.sink.list("runs/"))


@pytest.mark.parametrize(
    ("options", "left", "same"),
    [
        ((), {}, 6),
        (("--limit", "4"), {"limit": 2}, 4),
        (("--budget-minutes", "1e-9"), {"budget": 6}, 0),
        (("--limit", "4", "--budget-minutes", "1e-9"), {"limit": 2, "budget": 4}, 0),
    ],
)
def test_the_summary_says_what_is_left_and_why(
    place: Place, options: tuple[str, ...], left: dict[str, int], same: int
) -> None:
    """Six copies of what was scored come, which need no second look."""
    place.killed([replace(each, fingerprint=mark(place.source, each)) for each in place.items])
    for number in range(6):
        place.source.put(f"new/{number}.jpg", place.source.read(f"{number:02}.jpg"))
    assert place.score(*options) == 0
    assert (dict(place.told.left), place.told.pending, place.told.total.same) == (left, 6, same)
    assert place.score() == 0, "the next run does the rest"
    assert (place.told.left, place.told.pending) == ({}, sum(left.values()) or 6)
    assert place.ledger_rows == ITEMS + 6
    assert verify_scores(place.sink).findings == ()


def mark(source: LocalStorage, item: Item) -> bytes | None:
    return fingerprint(source, item.key, item.size_bytes, item.etag)


def _summary(run: int, place: Place, total: Tally) -> ScoreSummary:
    return ScoreSummary(
        run=run, runs=(run,), night="2026-03-01", started_at="", ended_at="", bundle=place.bundle.digest, bundle_uri="",
        options=place.scoring.digest(), total=total, inputs={place.source.root: total}, listed={}, denied={},
        filtered=0, pending=total.items, left={}, vanished=0, units=1, bytes_listed=0, bytes_read=0, requests=0,
        seconds={}, rates={},
    )  # fmt: skip
