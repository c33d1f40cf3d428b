#!/usr/bin/env python
"""Does training all domains together help, whom, and by how much?

    python jobs/evaluate_transfer.py --config configs/amazon2014.yaml
    python jobs/evaluate_transfer.py --config ... --seeds 0 --split.kind refit

Runs the config once for each training seed, on the same data, and compares the
models over all seeds: every domain and group, users with short histories, cold
targets and so on, with 95% intervals over users. Leaves runs/NAME/report.html,
and below --out a file for each domain, model and seed, as soon as it is there.
Finished stages are reused, so that the same command goes on where it stood.
With --out the ranks of a finished seed are kept in results/transfer.NAME/ranks,
and a seed whose ranks are there is not run again, on any machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command_line import finished, job_parser
from pipeline.config import RunConfig, load
from pipeline.paths import project_root, resolve

if TYPE_CHECKING:
    from pipeline.kept_ranks import KeptRanks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    return finished(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    from pipeline.kept_ranks import KeptRanks

    options, overrides = _parser().parse_known_args(arguments)
    config = load(options.config, overrides)
    out = resolve(options.out, project_root()) if options.out else None
    folder = None if out is None else out / "results" / f"transfer.{config.name}"
    kept = None if folder is None else KeptRanks(folder / "ranks")
    if options.plan:
        _plan(config, options.seeds, options.run_dir, kept)
        return

    from pipeline.progress import Progress
    from pipeline.results_table import results_table
    from pipeline.transfer import evaluate
    from pipeline.transfer_cells import CellFiles, command_of
    from pipeline.transfer_page import write_page

    command = command_of(_shown(options.config), options.seeds, overrides)
    on_ranked = _ignore if folder is None else CellFiles(folder, config, command).write
    outcome = evaluate(config, options.seeds, options.run_dir, Progress, on_ranked, kept)
    console = Progress().console
    console.print(results_table(outcome.metrics))
    if out is not None:
        page = write_page(out, config.name, outcome.metrics, outcome.seconds, command)
        console.print(f"tables: {page}", highlight=False, soft_wrap=True)
    if outcome.folder is None:
        console.print("report: none; every seed's ranks were kept, so nothing was run")
    else:
        console.print(f"report: {outcome.folder.report}", highlight=False, soft_wrap=True)


def _plan(
    config: RunConfig, seeds: Sequence[int], run_dir: Path | None, kept: KeptRanks | None
) -> None:
    """Print what would be run, seed by seed."""
    from pipeline.plan import make_plan
    from pipeline.plan_text import plan_text
    from pipeline.transfer import runs_of

    for run, folder in runs_of(config, seeds, run_dir):
        if kept is not None and kept.find(run) is not None:
            print(f"seed {run.seed}: its ranks are kept, so it would not be run\n")
        else:
            print(f"seed {run.seed}\n\n{plan_text(make_plan(run, folder))}\n")


def _shown(config: Path) -> Path:
    """A file of the project as its commands name it."""
    path, root = config.resolve(), project_root().resolve()
    return path.relative_to(root) if path.is_relative_to(root) else Path(config.name)


def _ignore(seed: int, ranked: object) -> None:
    """Without --out there are no files of cells."""


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/evaluate_transfer.py", __doc__, usage=_USAGE)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="the run's YAML file"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="N",
        default=[0, 1, 2],
        help="training seeds (default: 0 1 2)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where the report goes; relative to the project (default: runs/NAME)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of results.md and results/, relative to the project (default: none)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print each seed's stages, sizes and what is done already, and run nothing "
        "(default: run)",
    )
    return parser


_USAGE = """%(prog)s --config FILE
           [--seeds N ...] [--run-dir DIR] [--out DIR] [--plan] [--FIELD ...]"""


if __name__ == "__main__":
    sys.exit(main())
