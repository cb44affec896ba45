"""Data in, what a job on it will take out: hours, nodes, reading, requests and cost, from a measured sample.

fakesift plan preprocess s3://corpus/dfdc
fakesift submit --follow plan preprocess s3://corpus/dfdc     # measured on a node of the cluster
fakesift plan preprocess demo/corpus --videos 119000          # a laptop, for a corpus of that many such clips
fakesift plan train demo/faces --model cnn --epochs 10 --workers 4
fakesift plan score demo/model/bundle demo/bucket --items 20000
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import tyro

from jobs.console import Exit, guarded, parse
from jobs.plan_options import PreprocessPlan, ScorePlan, TrainPlan
from jobs.train_config import with_config

Command = (
    Annotated[PreprocessPlan, tyro.conf.subcommand("preprocess")]
    | Annotated[TrainPlan, tyro.conf.subcommand("train")]
    | Annotated[ScorePlan, tyro.conf.subcommand("score")]
)


def plan(options: PreprocessPlan | TrainPlan | ScorePlan) -> Exit:
    """Measures and prints. Raises `ValueError` or `AccessError` for what is wrong with the input."""
    match options:
        case PreprocessPlan():
            from jobs.plan_preprocess import plan_preprocess

            return plan_preprocess(options)
        case TrainPlan():
            from jobs.plan_train import plan_train

            return plan_train(options)
        case ScorePlan():
            from jobs.plan_score import plan_score

            return plan_score(options)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    given = sys.argv[1:] if argv is None else argv

    def run() -> Exit:
        # The type checker has no name for a union that is made of annotated types.
        known: Any = Command
        default = with_config(TrainPlan, given) if given[:1] == ["train"] else None
        return plan(parse(known, "plan", __doc__, given, default=default))

    return guarded(run, "plan")


if __name__ == "__main__":
    raise SystemExit(main())
