"""What all jobs have in common at the command line: how help looks, how a mistake is answered."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from pipeline.interrupts import Interrupted, interruptible, leave
from pipeline.storage.bucket import StorageError
from pipeline.storage.disk import disk_error


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


def refused(mistake: Exception) -> int:
    """Say what the user has to mend; returns the exit status for it, 2."""
    print(f"error: {mistake}", file=sys.stderr, flush=True)
    return 2


def finished(work: Callable[[], None]) -> int:
    """Do a job's work; returns the exit status: 0, or 2 where the user has something to mend.

    After Ctrl-C the process ends with status 130, after SIGTERM with 143; where what it prints is
    read no more (`... | head`), it ends without a word, with 141 as other programs do.
    """
    try:
        with interruptible():
            work()
            sys.stdout.flush()
    except (ValueError, StorageError) as error:
        return refused(error)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr, flush=True)
        leave(interrupted.status)
    except BrokenPipeError:
        if not _reader_has_left():
            raise  # another pipe: a worker's, or a server's
        return 141
    except OSError as error:
        told = disk_error(error, os.getcwd())
        if told is None:
            raise
        return refused(told)
    return 0


def _reader_has_left() -> bool:
    """Whether standard output is a pipe that nobody reads; then nothing is written to it again."""
    output = sys.stdout.fileno()
    polled = select.poll()
    polled.register(output, 0)  # an error or a hang-up is always told
    if not polled.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)  # else the interpreter's last flush fails aloud
    os.close(nowhere)
    return True
