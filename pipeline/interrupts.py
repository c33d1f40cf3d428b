"""Ctrl-C and SIGTERM: the run stops where it is, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was told to stop. No Exception, so that nothing takes it for a stage's failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        return (
            f"stopped by {signal.Signals(self.number).name}; what is finished is kept, "
            "training with its checkpoint.\nGive the same command again to go on."
        )


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread at the first signal; the second one ends at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda again, _: os._exit(128 + again))
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(status: int) -> NoReturn:
    """End an interrupted process at once, and with it its workers and a Ray of its own.

    Threads still wait for the workers. A shutdown of Ray under them ends the process with status 1
    now and then; without one, the kernel ends Ray's own processes when their driver is gone. What
    these have started is ended here: Ray's agents would look for their Ray for a minute.
    """
    try:
        for process in family(os.getpid())[1]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # whatever happens on the way, the status is what was promised
        os._exit(status)


def family(process: int) -> tuple[list[int], list[int]]:
    """Return a process's children, and all that these have started; none where /proc is absent."""
    parents = {}
    # Not by a pattern of paths: pathlib raises where a process ends while it is looked at.
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with suppress(OSError):  # it has ended meanwhile
            if name.isdigit():
                stat = Path("/proc", name, "stat").read_text()
                parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    children = [each for each, parent in parents.items() if parent == process]
    found = list(children)
    for ancestor in found:  # it grows while it is walked
        found += [each for each, parent in parents.items() if parent == ancestor]
    return children, found[len(children) :]


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back the handlers that a library sets in the block (Ray's exits without a word)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
