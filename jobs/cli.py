"""The root command: `fakesift JOB ARGS...`. The one file that knows both jobs and cluster commands."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

COMMANDS = {
    "preprocess": ("jobs.preprocess", "video corpus to Parquet shards of face crops"),
    "train": ("jobs.train", "face shards to a model bundle with its report and card"),
    "tune": ("jobs.tune", "what every configuration of a grid reaches, and the best one's bundle"),
    "evaluate": ("jobs.evaluate", "a bundle on other faces, with intervals and slices"),
    "score": ("jobs.score", "what is new in buckets, scored with a model bundle; each night"),
    "status": ("jobs.status", "what an output holds, what is left, which files are faults"),
    "verify": ("jobs.verify", "re-read an output and find whatever does not hold in it"),
    "purge": ("jobs.purge", "take a source and all that came from it out of outputs"),
    "plan": ("jobs.plan", "what a corpus will take: hours, nodes, requests and cost, from a measured sample"),
    "submit": ("cluster.submit", "send a job to a Ray cluster, follow it, end with its exit code"),
    "jobs": ("cluster.manage", "jobs on a cluster: list, logs, attach, stop"),
    "cluster": ("cluster.local", "a real cluster on this machine: up, down, status, env"),
    "demo-corpus": ("jobs.demo_corpus", "draw a corpus with the shape of DFDC, without photographs"),
    "demo": ("jobs.demo", "draw a corpus and run the jobs on it"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; loads no other."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"fakesift: no command {name!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if os.environ.get("RAY_JOB_STOP_SIGNAL") == "SIGINT":
        # A cluster that was started in the background of a shell hands on that this signal is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code: int = import_module(COMMANDS[name][0]).main(rest)
    return code


def _usage() -> str:
    rows = [f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fakesift COMMAND ARGS...",
            "",
            *rows,
            "",
            "fakesift COMMAND --help shows a command's options.",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
