"""SIGKILL at one chosen touch of the file system, of the process itself and out of nothing.

Python tells an audit hook of every file that is opened to be written, renamed, made or removed,
before it happens. So a process can be killed at each of these points, one after the other, and no
code of the project is changed for it.
"""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IN_THE_MAKING = re.compile(r"\.work/(?P<name>.+)-[0-9a-f]{16}(?P<rest>/.*)?$")
COMMIT = "commit"  # the touch by which a whole output takes its place
RESULTS = "results"


def hear_touches(hear: Callable[[str, str], None]) -> None:
    """Have `hear` told of every change of the file system before it is made: event and path."""

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITES):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | Path):
            hear(event, str(path))

    sys.addaudithook(listen)


def die_at_touch(folder: Path, number: int) -> None:
    """Have this process killed before touch `number`, from 0, of what is below a folder."""
    left = [number]

    def hear(event: str, path: str) -> None:
        if path.startswith(str(folder)):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    hear_touches(hear)


def signal_at_write(file: str, which: int, number: int) -> None:
    """Send this process a signal once a file of that name is opened for the n-th time, from 1."""
    left = [which]

    def hear(event: str, path: str) -> None:
        if event == "open" and Path(path).name == file:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)

    hear_touches(hear)


class FirstStep:
    """Told of a training's steps: the number of the first, and the seconds until it was done."""

    def __init__(self) -> None:
        self._began, self.number, self.seconds = time.monotonic(), 0, 0.0

    def __call__(self, step: int) -> None:
        if not self.number:
            self.number, self.seconds = step, time.monotonic() - self._began


class Touches:
    """Counts the touches of each stage; kills the process at one of them.

    Args:
        store: the run store's folder.
        results: the run's folder.
        fatal: a stage (or `RESULTS`) and the number of its touch, from 0, or `COMMIT`; None: none.
        number: of the signal.
    """

    def __init__(
        self,
        store: Path,
        results: Path,
        fatal: tuple[str, int | str] | None,
        number: int = signal.SIGKILL,
    ) -> None:
        self._store, self._results, self._fatal = str(store), str(results), fatal
        self._number = number
        self.counts: Counter[str] = Counter()
        hear_touches(self._touch)

    def _touch(self, event: str, path: str) -> None:
        commits = False
        if found := _IN_THE_MAKING.search(path) if path.startswith(self._store) else None:
            stage = found["name"]
            commits = event == "os.rename" and not found["rest"]
        elif path.startswith(self._results) and not path.endswith((".lock", "tracking.jsonl")):
            stage = RESULTS
        else:
            return
        if self._fatal in ((stage, self.counts[stage]), (stage, COMMIT if commits else None)):
            os.kill(os.getpid(), self._number)
        self.counts[stage] += 1
