#!/usr/bin/env python
"""Make a run's report again, or compare runs with the first of them.

    python jobs/report.py runs/demo              # writes runs/demo/report.html
    python jobs/report.py runs/demo runs/frozen  # a table and runs/compare.html

Everything is read from the runs' folders; of the run store only the ranks are
read, so that users can be paired and differences have 95% intervals. Nothing
is trained and no Ray is started.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line import job_parser, refused
from pipeline.paths import project_root, resolve
from pipeline.whole_files import write_text

_COMPARISON = "compare.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status: 0, or 2 where the user has something to mend."""
    options = _parser().parse_args(arguments)
    try:
        folders = [resolve(run, project_root()) for run in options.run]
        out = None if options.out is None else resolve(options.out, project_root())
        path = compare_runs(folders, out) if folders[1:] else make_again(folders[0], out)
    except ValueError as error:
        return refused(error)
    print(f"report: {path}", flush=True)
    return 0


def make_again(folder: Path, out: Path | None) -> Path:
    """Make the report of one run again from its JSON files; returns where it stands."""
    from pipeline import report
    from pipeline.report_files import REPORT, RunFiles

    path = out or folder / REPORT
    write_text(path, report.render(RunFiles.read(folder)))
    return path


def compare_runs(folders: Sequence[Path], out: Path | None) -> Path:
    """Compare runs with the first: print the table, write the page, return where it stands."""
    from rich.console import Console

    from pipeline import report_compare
    from pipeline.compare_table import compare_table
    from pipeline.run_comparison import compare, read_runs

    runs = read_runs(folders)
    comparisons = [compare(runs[0], other) for other in runs[1:]]
    path = out or folders[0].parent / _COMPARISON
    write_text(path, report_compare.render(runs, comparisons))
    Console(highlight=False).print(compare_table(runs, comparisons))
    return path


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/report.py", __doc__)
    parser.add_argument(
        "run",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="the folder of a finished run; relative to the project",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where the page goes, relative to the project (default: RUN/report.html for one run, "
        "compare.html beside the first run's folder for several)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
