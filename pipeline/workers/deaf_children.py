"""Child processes that do not heed SIGTERM, and their end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.interrupts import family

_LOOK_EVERY_SECONDS = 0.02


@contextmanager
def deaf_children() -> Iterator[None]:
    """Let processes that are started in the block, and theirs, not heed SIGTERM.

    They inherit the mask of this thread. A signal to this process is heeded after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ending_those_told_to() -> Iterator[None]:
    """End children that do not heed a SIGTERM that waits for them, and all that they have started.

    For the length of the block. `ray.shutdown` sends a SIGTERM to each of its processes and gives
    it a second to go, one after the other; without /proc it takes these seconds.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(_LOOK_EVERY_SECONDS):
            for child in family(os.getpid())[0]:
                if _told_to_go(child):
                    _end(child)

    thread = threading.Thread(target=work, name="deaf-children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _end(process: int) -> None:
    """End a process and all that it has started: Ray's agents would look for their Ray a minute."""
    children, others = family(process)
    for each in (process, *children, *others):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _told_to_go(process: int) -> bool:
    """Whether a SIGTERM waits for the process."""
    with suppress(OSError):  # it has ended meanwhile
        for line in Path("/proc", str(process), "status").read_text().splitlines():
            if line.startswith("ShdPnd:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
