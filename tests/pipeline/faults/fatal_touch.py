"""SIGKILL at one chosen touch of the file system, of the process itself and out of nothing.

Python tells an audit hook of every file that is opened to be written, renamed, made or removed,
before it happens. So a process can be killed at each of these points, one after the other, and no
code of the project is changed for it.
"""

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IN_THE_MAKING = re.compile(r"\.work/(?P<name>.+)-[0-9a-f]{16}(?P<rest>/.*)?$")
COMMIT = "commit"  # the touch by which a whole output takes its place
RESULTS = "results"


class Touches:
    """Counts the touches of each stage; kills the process at one of them.

    Args:
        store: the run store's folder.
        results: the run's folder.
        fatal: a stage (or `RESULTS`) and the number of its touch, from 0, or `COMMIT`; None: none.
    """

    def __init__(self, store: Path, results: Path, fatal: tuple[str, int | str] | None) -> None:
        self._store, self._results, self._fatal = str(store), str(results), fatal
        self.counts: Counter[str] = Counter()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITES):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | Path):
            self._touch(event, str(path))

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
            os.kill(os.getpid(), signal.SIGKILL)
        self.counts[stage] += 1
