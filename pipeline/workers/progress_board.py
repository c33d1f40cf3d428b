"""How far the workers are, told to the driver: a small actor that they write to and it reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray

from pipeline.progress import StageProgress

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
        self._complaint = ""
        self._facts: dict[str, Any] = {}

    def write(self, report: Report) -> None:
        self._latest = report

    def read(self) -> Report | None:
        return self._latest

    def complain(self, sentence: str) -> None:
        self._complaint = self._complaint or sentence

    def complaint(self) -> str:
        return self._complaint

    def keep(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def facts(self) -> dict[str, Any]:
        return self._facts


class Reporter:
    """What a worker is given: call it as often as you like, it writes twice a second at most."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._last = 0.0

    def __call__(self, done: float, total: float, unit: str, info: str = "") -> None:
        """Say how far the work is; never waits and never fails the work."""
        now = time.monotonic()
        if now - self._last >= _WRITE_EVERY_SECONDS or done >= total:
            self._last = now
            self._board.write.remote(Report(done, total, unit, info))

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
    while not stop.wait(_READ_EVERY_SECONDS):
        latest = ray.get(board.read.remote())
        if latest is not None and latest != shown:
            progress.update(*latest)
            shown = latest
