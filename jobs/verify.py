"""An output in, everything that does not hold in it out. Needs no Ray.

Re-reads every commit, shard and outcome: digests, counts, ids, and that every listed video is accounted for once.

fakesift verify s3://lab/faces
fakesift verify demo/faces --prune
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from batch.scoring.verify import verify_scores
from batch.shards.findings import SHOWN_PER_KIND
from batch.shards.runfile import kind_of
from batch.shards.verify import VerifyReport, verify_output
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options
from jobs.console import Exit, guarded, parse, shown

_EXIT_CODES = "Exit codes: 0 all holds; 1 something does not, or the store failed; 2 not an output, or no permission."


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `fakesift verify`."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Output of preprocess or score."""
    prune: bool = False
    """Remove files under faces/ and outcomes/ that no commit names, and hidden files of writers that were killed, and
    nothing else. Not while a job writes there: what it has not committed yet looks the same."""
    json: bool = False
    """Print one JSON object."""
    s3_endpoint: Annotated[str | None, shown("URL", "AWS_ENDPOINT_URL")] = None
    """Address of an S3-compatible store."""


def verify(options: VerifyOptions) -> Exit:
    """Checks an output and prints what does not hold, one line a finding."""
    sink = open_storage(options.output, S3Options(endpoint=options.s3_endpoint))
    report = (verify_scores if kind_of(sink) == "score" else verify_output)(sink, prune=options.prune)
    if options.json:
        print(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
    else:
        _print(report)
    return Exit.OK if report.ok else Exit.FAILED


def _print(report: VerifyReport) -> None:
    told: Counter[str] = Counter()
    for finding in report.findings:
        print(f"{finding.kind:<22} {finding.uri}: found {finding.found}, expected {finding.expected}")
        told[finding.kind] += 1
    for kind, count in report.counts.items():
        if count > told[kind]:
            print(f"{kind:<22} and {count - told[kind]} more")
    for uri in report.pruned[:SHOWN_PER_KIND]:
        print(f"{'removed':<22} {uri}")
    if len(report.pruned) > SHOWN_PER_KIND:
        print(f"{'removed':<22} and {len(report.pruned) - SHOWN_PER_KIND} more")
    read = f"{report.files} files, {report.bytes_read / 1e6:.1f} MB"
    print(f"checked    {report.units} units, {report.videos} videos, {report.faces} faces, {read}")
    if not report.closed:
        print("unfinished no summary.json: the job has not come to its end here")
    print(
        "result     all holds"
        if report.ok
        else f"result     {sum(report.counts.values())} times something does not hold"
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    options = parse(VerifyOptions, "verify", __doc__, argv, _EXIT_CODES)
    return guarded(lambda: verify(options), "verify")


if __name__ == "__main__":
    raise SystemExit(main())
