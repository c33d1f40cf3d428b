"""What all jobs have in common at the command line: how help looks, how a mistake is answered."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def job_parser(prog: str, description: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is written, and that guesses no option.

    Args:
        prog: the job as it is called, such as `jobs/report.py`.
        description: the job's docstring.
        options: further ones of ArgumentParser.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def refused(mistake: ValueError) -> int:
    """Say what the user has to mend; returns the exit status for it, 2."""
    print(f"error: {mistake}", file=sys.stderr, flush=True)
    return 2
