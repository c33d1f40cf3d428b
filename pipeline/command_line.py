"""What all jobs have in common at the command line: how help looks, how a mistake is answered."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from pipeline.interrupts import Interrupted, interruptible, leave


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


def finished(work: Callable[[], None]) -> int:
    """Do a job's work; returns the exit status: 0, or 2 where the user has something to mend.

    After Ctrl-C the process ends with status 130, after SIGTERM with 143.
    """
    try:
        with interruptible():
            work()
    except ValueError as error:
        return refused(error)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr, flush=True)
        leave(interrupted.status)
    return 0
