"""Locks between processes: files that the kernel unlocks when their holder ends, also by a kill."""

from __future__ import annotations

import fcntl
import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class BusyError(ValueError):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(
    path: Path, *, wait: bool, on_wait: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold a lock file (flock; it goes with the process, so a kill leaves nothing behind).

    Raises:
        BusyError: `wait` is False and another process holds it; the message names the owner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = _owner(path)
                if not wait:
                    raise BusyError(f"{path.parent} is in use by {owner}") from None
                if not told:
                    on_wait(owner)
                told = True
                time.sleep(0.5)
        stream.truncate(0)
        stream.write(_ourselves())
        stream.flush()
        yield


def _owner(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another process"


def _ourselves() -> str:
    try:
        user = f" of {getpass.getuser()}"
    except (KeyError, OSError):  # a container's user that has no name
        user = ""
    return f"process {os.getpid()}{user} on {socket.gethostname()}"
