"""A run in one process that is told to stop: its work is asked to write a checkpoint first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.interrupts import Interrupted

_stopping = threading.Event()
_listening: set[int] = set()  # the threads whose work asks whether it is to stop


@contextmanager
def stopped_here(seconds: float) -> Iterator[None]:
    """Hold `Interrupted` up, for so many seconds at most, until the checkpoints are written."""
    _stopping.clear()
    _listening.clear()
    try:
        yield
    except Interrupted:
        _stopping.set()
        deadline = time.monotonic() + seconds
        while _listening and time.monotonic() < deadline:
            time.sleep(0.05)
        raise


@contextmanager
def listened_here() -> Iterator[None]:
    """Nobody waits for the work of this thread once the block is over."""
    try:
        yield
    finally:
        _listening.discard(threading.get_ident())


def stopping_here() -> bool:
    """Whether the work of this thread is to stop; who asks is waited for."""
    _listening.add(threading.get_ident())
    return _stopping.is_set()
