#!/usr/bin/env python
"""Bring the item vectors up to the item tables: encode what is new or changed.

    python jobs/refresh_embeddings.py --config FILE --item-llm.adapter DIR
    ray job submit --working-dir . -- python jobs/refresh_embeddings.py ...

The config is a run's. Its encoder must be finished: item_llm.adapter names a
folder, or item_llm.lora is null. What is encoded is committed as it comes, so
after Ctrl-C or a crash the same command goes on. Where nothing is to be
encoded no Ray is started.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command_line import finished, job_parser
from pipeline.config import load

if TYPE_CHECKING:
    from pipeline.refresh import RefreshOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    return finished(lambda: run(*_parser().parse_known_args(arguments)))


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Refresh, then print the counts and where they are written."""
    from pipeline.progress import Progress
    from pipeline.refresh import refresh

    config = load(options.config, overrides)
    progress = Progress()
    report = refresh(config, _options(options), options.out, progress)
    for name, value in report.items():
        progress.console.print(f"{name:12} {value}", highlight=False, soft_wrap=True)


def _options(options: argparse.Namespace) -> RefreshOptions:
    from pipeline.refresh import RefreshOptions

    return RefreshOptions(
        dry_run=options.dry_run,
        verify=options.verify,
        gc=options.gc,
        max_quarantined=options.max_quarantined,
    )


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/refresh_embeddings.py",
        __doc__,
        usage="%(prog)s --config FILE [options] [--FIELD ...]",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the run's YAML file"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where refresh.json goes; relative to the project (default: runs/NAME/refresh)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be encoded, and encode nothing"
    )
    parser.add_argument(
        "--verify",
        type=int,
        nargs="?",
        const=256,
        default=0,
        metavar="N",
        help="encode N stored texts again and compare (default: none; without N: 256)",
    )
    parser.add_argument(
        "--gc",
        action="store_true",
        help="delete vectors that no item has, and versions that no run trained on",
    )
    parser.add_argument(
        "--max-quarantined",
        type=int,
        default=100,
        metavar="N",
        help="stop where more texts than this cannot be encoded (default: 100)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
