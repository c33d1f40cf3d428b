#!/usr/bin/env python
"""Tell what a file or folder of data is, what is in it, and the YAML for it.

    python jobs/ingest.py --check ratings/ml-1m
    python jobs/ingest.py --check Desks.json.gz meta_Desks.json.gz --name desks

Everything is read, so that what would be refused in a run is told here. Ids are
held in memory, interactions and texts are not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line import job_parser, refused
from pipeline.data_findings import findings
from pipeline.ingest import domain_yaml, read, recognise
from pipeline.paths import data_root
from pipeline.sources.options import checked_name
from pipeline.sources.registry import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status: 0, or 2 where the user has something to mend."""
    options = parse(arguments)
    try:
        check(options)
    except ValueError as error:
        return refused(error)
    return 0


def check(options: argparse.Namespace) -> None:
    """Recognise, read, print; write the YAML where it is asked for."""
    path, *others = (Path(os.path.abspath(given.expanduser())) for given in options.check)
    found = recognise(path, others, options.format)
    told = f"{path.name} is {found.format.name}: {found.why}"
    print(textwrap.fill(told, 80, break_long_words=False, break_on_hyphens=False), flush=True)
    for line in findings(read(found, data_root())):
        print(line)
    name = checked_name(options.name or name_of(path), "--name")
    text = domain_yaml(name, found.fields, found.format, data_root())
    print(f"\n{text}", end="")
    if options.out is not None:
        options.out.write_text(f"name: {name}\n{text}", encoding="utf-8")
        print(f"\nwritten to {options.out}; run: python jobs/multidomain.py --config {options.out}")


def name_of(path: Path) -> str:
    """A domain's name out of a file's.

    >>> name_of(Path("Toys_and_Games.txt")), name_of(Path("ratings.jsonl.gz"))
    ('toys_and_games', 'ratings')
    """
    plain = re.sub(r"[^a-z0-9_-]+", "-", path.name.split(".")[0].lower()).strip("-_")
    return plain or "data"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = job_parser("jobs/ingest.py", __doc__)
    parser.add_argument(
        "--check", type=Path, nargs="+", required=True, metavar="PATH",
        help="a file or folder, then files that belong to it, such as the one with the items",
    )  # fmt: skip
    parser.add_argument("--name", help="the domain's name (default: from the path)")
    parser.add_argument(
        "--format",
        choices=sorted(FORMATS),
        metavar="NAME",
        help=f"the format (default: found out): {', '.join(sorted(FORMATS))}",
    )
    parser.add_argument("--out", type=Path, help="write a run's config to this file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
