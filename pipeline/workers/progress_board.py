"""How far the workers are, told to the driver: a small actor that they write to and it reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray

from pipeline.progress import StageProgress
from pipeline.tracking.records import Figures

_WRITE_EVERY_SECONDS = 0.5
_READ_EVERY_SECONDS = 1.0


class Report(NamedTuple):
    """`done` of `total` units, and a short remark such as the loss."""

    done: float
    total: float
    unit: str
    info: str


@ray.remote(num_cpus=0)
class _Board:
    def __init__(self) -> None:
        self._latest: Report | None = None
        self._figures: list[Figures] = []
        self._complaint = ""
        self._facts: dict[str, Any] = {}

    def write(self, report: Report, figures: list[Figures]) -> None:
        self._latest = report
        self._figures.extend(figures)

    def read(self) -> tuple[Report | None, list[Figures]]:
        """The latest report, and all figures since the last reading."""
        figures, self._figures = self._figures, []
        return self._latest, figures

    def settle(self) -> None:
        """Nothing: calls of one worker are done in order, so those before it are done too."""

    def complain(self, sentence: str) -> None:
        self._complaint = self._complaint or sentence

    def complaint(self) -> str:
        return self._complaint

    def keep(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def facts(self) -> dict[str, Any]:
        return self._facts


class Reporter:
    """What a worker is given: call it as often as you like, it writes twice a second at most.

    Figures for the trackers wait for the next writing; none is left out.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self._last = 0.0
        self._report: Report | None = None
        self._figures: list[Figures] = []

    def __call__(
        self, done: float, total: float, unit: str, info: str = "", figures: Figures | None = None
    ) -> None:
        """Say how far the work is; never waits and never fails the work."""
        self._report = Report(done, total, unit, info)
        if figures is not None:
            self._figures.append(figures)
        if time.monotonic() - self._last >= _WRITE_EVERY_SECONDS or done >= total:
            self._write()

    def settle(self) -> None:
        """Write what waits, and wait until it is on the board; the work is over."""
        if self._figures:
            self._write()
        ray.get(self._board.settle.remote())

    def _write(self) -> None:
        self._last = time.monotonic()
        self._board.write.remote(self._report, self._figures)
        self._figures = []

    def complain(self, sentence: str) -> None:
        """Leave the sentence that the user is to read; the first one counts."""
        ray.get(self._board.complain.remote(sentence))

    def complaint(self) -> str:
        """The sentence that a worker left, or "" if none did."""
        sentence: str = ray.get(self._board.complaint.remote())
        return sentence

    def keep(self, facts: dict[str, Any]) -> None:
        """Leave what rank 0 found out, for the driver."""
        ray.get(self._board.keep.remote(facts))

    def facts(self) -> dict[str, Any]:
        """What rank 0 left."""
        facts: dict[str, Any] = ray.get(self._board.facts.remote())
        return facts


@contextmanager
def reporter_to(progress: StageProgress) -> Iterator[Reporter]:
    """A reporter for workers, whose reports show up in `progress` while the block runs."""
    board = _Board.remote()  # type: ignore[attr-defined]
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(board, progress, stop), daemon=True)
    thread.start()
    try:
        yield Reporter(board)
    finally:
        stop.set()
        thread.join(timeout=5)
        ray.kill(board)


def _follow(board: Any, progress: StageProgress, stop: threading.Event) -> None:
    shown: Report | None = None
    over = False
    while not over:
        over = stop.wait(_READ_EVERY_SECONDS)  # and once more after the end
        latest, figures = ray.get(board.read.remote())
        for measured in figures:
            progress.log(measured)
        if latest is not None and latest != shown:
            progress.update(*latest)
            shown = latest
