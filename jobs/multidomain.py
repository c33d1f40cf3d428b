#!/usr/bin/env python
"""Train and compare recommenders for N domains: raw data in, a report for every domain out.

    python jobs/multidomain.py --config configs/demo.yaml
    ray job submit --working-dir . -- python jobs/multidomain.py --config configs/demo.yaml

Finished stages are kept in the run store and reused, so the same command again does nothing, and
after a crash it goes on where it stood. Fields of the config can be overridden:
--user-model.layers 4 --models popularity hydra_joint; --config F --help lists them all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import RunConfig, load
from pipeline.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status: 0, or 2 where the user has something to mend."""
    progress = Progress()
    try:
        config, run_dir = parse(sys.argv[1:] if arguments is None else arguments)
        run(config, run_dir, progress)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def run(config: RunConfig, run_dir: Path | None, progress: Progress) -> None:
    """Run all stages, then print the table of domains x models and the report's path."""
    from pipeline.results_table import results_table
    from pipeline.run import execute

    outcome = execute(config, run_dir, progress)
    progress.console.print(results_table(outcome.metrics))
    progress.console.print(f"report: {outcome.folder.report}", highlight=False, soft_wrap=True)


def parse(arguments: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """The config with its overrides, and the run folder (None: runs/NAME)."""
    parser = argparse.ArgumentParser(
        prog="jobs/multidomain.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="the run's YAML file; configs/ has examples")
    parser.add_argument("--run-dir", type=Path, help="where results go (default: runs/NAME)")
    options, overrides = parser.parse_known_args(arguments)
    if options.config is None:
        parser.print_help()
        if {"-h", "--help"} & set(overrides):
            raise SystemExit(0)
        raise ValueError("--config is required, for example --config configs/demo.yaml")
    return load(options.config, overrides, prog=f"{parser.prog} --config F"), options.run_dir


if __name__ == "__main__":
    sys.exit(main())
