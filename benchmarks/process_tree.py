"""CPU seconds of a process and all that it has started, also of what has ended meanwhile.

Each process is looked at a few times a second, and the last figure of each is kept: what one uses
between the last look and its end is not seen. Linux only.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_EVERY_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessTree:
    """Watches the descendants of this process while the block runs.

    Attributes:
        seconds: CPU seconds (user and system) by process: (id, start) -> seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[int, int], float] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessTree:
        """Begin to watch; what is there already counts only from now on."""
        self._before = self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look a last time."""
        self._stop.set()
        self._thread.join()

    def total(self) -> float:
        """CPU seconds of all of them so far."""
        return sum(self._since().values())

    def by_name(self) -> Counter[str]:
        """CPU seconds by what the processes call themselves (their last name)."""
        found: Counter[str] = Counter()
        for process, seconds in self._since().items():
            found[self._names.get(process, "?")] += seconds
        return found

    def _since(self) -> dict[tuple[int, int], float]:
        return {key: s - self._before.get(key, 0.0) for key, s in list(self.seconds.items())}

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            self._look()
        self._look()

    def _look(self) -> dict[tuple[int, int], float]:
        parents: dict[int, int] = {}
        stats: dict[int, tuple[int, float]] = {}
        for name in os.listdir("/proc"):
            with suppress(OSError):  # it has ended meanwhile
                if name.isdigit():
                    fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                    parents[int(name)] = int(fields[1])
                    ticks = int(fields[11]) + int(fields[12])
                    stats[int(name)] = (int(fields[19]), ticks / _TICKS)
        for process in _descendants(os.getpid(), parents):
            start, seconds = stats[process]
            self.seconds[process, start] = seconds
            if name := _name(process):  # none while it ends
                self._names[process, start] = name
        return dict(self.seconds)


def _descendants(root: int, parents: dict[int, int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    found = list(children.get(root, []))
    for process in found:  # it grows while it is walked
        found += children.get(process, [])
    return found


def _name(process: int) -> str:
    """The program, or the script that Python runs; a Ray worker's own name; "" if it ended."""
    with suppress(OSError):
        words = Path("/proc", str(process), "cmdline").read_bytes().decode(errors="replace")
        parts = [word for word in words.split("\0") if word] or [""]
        if parts[0].startswith("ray::"):
            return parts[0] if parts[0] != "ray::IDLE" else ""
        script = next((part for part in parts if part.endswith(".py")), parts[0])
        return script.rpartition("/")[2]
    return ""
