#!/usr/bin/env python
"""Train and compare recommenders for N domains: raw data in, a report out.

    python jobs/multidomain.py --config configs/demo.yaml
    ray job submit --working-dir . -- python jobs/multidomain.py --config ...

Finished stages are kept in the run store and reused, so the same command again
does nothing, and after Ctrl-C or a crash it goes on where it stood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.command_line import finished, job_parser
from pipeline.config import RunConfig, load


class Options(NamedTuple):
    """What the command line asks for."""

    config: RunConfig
    run_dir: str | None
    plan: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    return finished(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.plan:
        plan(options)
    else:
        run(options)


def run(options: Options) -> None:
    """Run all stages; print the table of domains x models, the choices and the report's path."""
    from pipeline.progress import Progress
    from pipeline.report_choices import choice_lines
    from pipeline.results_table import results_table
    from pipeline.run import execute

    progress = Progress()
    outcome = execute(options.config, options.run_dir, progress)
    progress.console.print(results_table(outcome.metrics))
    for line in choice_lines(outcome.choices):
        progress.console.print(line, style="dim", highlight=False)
    progress.console.print(f"report: {outcome.folder.report}", highlight=False, soft_wrap=True)


def plan(options: Options) -> None:
    """Print what would be run."""
    from pipeline.plan import make_plan
    from pipeline.plan_text import plan_text

    print(plan_text(make_plan(options.config, options.run_dir)))


def parse(arguments: Sequence[str]) -> Options:
    """The config with its overrides, and the other options.

    Raises:
        ValueError: a mistake in the config or in the options.
        SystemExit: help was asked for (0).
    """
    parser = _parser()
    options, overrides = parser.parse_known_args(arguments)
    config = None if options.config is None else load(options.config, overrides)
    if options.help:
        from pipeline.config_help import config_help

        print(f"{parser.format_help()}\n{config_help(config)}")
        raise SystemExit(0)
    if config is None:
        raise ValueError("--config is required, for example --config configs/demo.yaml")
    return Options(config, options.run_dir, options.plan)


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/multidomain.py",
        __doc__,
        usage="%(prog)s --config FILE [--run-dir DIR] [--plan] [--FIELD ...]",
        add_help=False,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the run's YAML file; configs/ has examples (required)",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where results go: a folder, relative to the project, or s3://BUCKET/PREFIX "
        "(default: runs/NAME)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print stages, sizes and what is done already, and run nothing (default: run)",
    )
    parser.add_argument(
        "-h",
        "--help",
        action="store_true",
        help="print this and every field of the config; with --config, its values",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
