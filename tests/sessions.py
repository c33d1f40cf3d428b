"""Processes of a session: all that a command has started which was given a session of its own."""

import subprocess
import time

import pytest


def processes_of(session: int) -> dict[int, str]:
    """Process id -> its command line; those that nobody has waited for do not count."""
    command = ["ps", "-o", "pid=,stat=,args=", "-s", str(session)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = (line.split(maxsplit=2) for line in listed.splitlines())
    return {int(pid): args for pid, state, args in found if not state.startswith("Z")}


def expect_none_left(session: int, but: str | None = None) -> None:
    """All of a session's processes end within half a minute.

    Args:
        session: the process id of its first process.
        but: a word in the command lines of processes that may stay a while.
    """
    deadline = time.monotonic() + 30
    alive = ["not looked at yet"]
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = [args for args in processes_of(session).values() if but is None or but not in args]
    if alive:
        pytest.fail(f"still there: {alive}")
