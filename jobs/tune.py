#!/usr/bin/env python
"""Search the hyper-parameters of one user model: random values, ASHA, Ray Tune.

    python jobs/tune.py --config FILE --space FILE
    ray job submit --working-dir . -- python jobs/tune.py --config ...

The config is a run's; the space says which model, how many trials, and how
each field is drawn. Trials are judged by NDCG@10 on validation events alone.
OUT gets tune.json (all trials, the best, what it took) and best.yaml (the
config with the best values, for jobs/multidomain.py). A trial takes
compute.cpus-per-worker cores, and compute.workers trials run at once. After
Ctrl-C or a crash the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line import finished, job_parser
from pipeline.config import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    return finished(lambda: run(*_parser().parse_known_args(arguments)))


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Search, then print the best values, the budget, and where the results are."""
    from pipeline.progress import Progress
    from pipeline.search import BEST, TUNE, run_tuning
    from pipeline.search_results import described

    config = load(options.config, overrides)
    progress = Progress()
    outcome = run_tuning(config, options.space, options.out, progress)
    files = [f"{name}: {outcome.folder / name}" for name in (TUNE, BEST)]
    for line in (*described(outcome.results), *files):
        progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/tune.py",
        __doc__,
        usage="%(prog)s --config FILE --space FILE [--out DIR] [--FIELD ...]",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the run's YAML file"
    )
    parser.add_argument(
        "--space",
        type=Path,
        required=True,
        metavar="FILE",
        help="the search's YAML file; configs/search/ has an example",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results go; relative to the project (default: runs/NAME/tune/MODEL)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
