"""How far the workers are, told to the driver: a small actor that they write to and it reads."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ray

from pipeline.progress import StageProgress
from pipeline.tracking.records import Figures
from pipeline.workers.driver_actor import on_drivers_node

_WRITE_EVERY_SECONDS = 0.5
_READ_EVERY_SECONDS = 1.0
_LOOK_EVERY_SECONDS = 0.1


class Report(NamedTuple):
    """`done` of `total` units, and a short remark such as the loss."""

    done: float
    total: float
    unit: str
    info: str


@dataclass
class _Post:
    """What is known of one piece of work.

    Attributes:
        latest: how far it is.
        figures: for the trackers, since the last reading.
        complaint: what a worker left for the user to mend.
        facts: what rank 0 found out; None while the work goes on.
        listening: whether the work asks if it is to stop, and is not over.
    """

    latest: Report | None = None
    figures: list[Figures] = field(default_factory=list)
    complaint: Exception | None = None
    facts: dict[str, Any] | None = None
    listening: bool = False


class _Board:
    """Posts by ticket: one actor serves a whole run, since each is a process to start."""

    def __init__(self) -> None:
        self._posts: dict[str, _Post] = defaultdict(_Post)
        self._over: set[str] = set()
        self._stopping = False

    def write(self, ticket: str, report: Report, figures: list[Figures]) -> None:
        if ticket not in self._over:
            self._posts[ticket].latest = report
            self._posts[ticket].figures.extend(figures)

    def read(self, ticket: str) -> tuple[Report | None, list[Figures]]:
        """The latest report, and all figures since the last reading."""
        post = self._posts[ticket]
        figures, post.figures = post.figures, []
        return post.latest, figures

    def settle(self) -> None:
        """Nothing: calls of one worker are done in order, so those before it are done too."""

    def complain(self, ticket: str, complaint: Exception) -> None:
        post = self._posts[ticket]
        post.complaint = post.complaint or complaint

    def complaint(self, ticket: str) -> Exception | None:
        return self._posts[ticket].complaint

    def keep(self, ticket: str, facts: dict[str, Any]) -> None:
        self._posts[ticket].facts = facts

    def facts(self, ticket: str) -> dict[str, Any] | None:
        return {} if ticket in self._over else self._posts[ticket].facts

    def listen(self, ticket: str) -> bool:
        """Whether it is to stop; who asks is waited for."""
        if ticket not in self._over:
            self._posts[ticket].listening = True
        return self._stopping

    def leave(self, ticket: str) -> None:
        if ticket not in self._over:
            self._posts[ticket].listening = False

    def stop(self) -> None:
        self._stopping = True

    def listening(self) -> bool:
        return any(post.listening for post in self._posts.values())

    def remove(self, ticket: str) -> None:
        self._over.add(ticket)
        self._posts.pop(ticket, None)


_boards: dict[str, Any] = {}
_boards_lock = threading.Lock()


def _board_of_this_job() -> Any:
    job: str = ray.get_runtime_context().get_job_id()
    with _boards_lock:
        if job not in _boards:
            _boards.clear()
            _boards[job] = on_drivers_node(_Board, max_restarts=-1, max_task_retries=-1)
        return _boards[job]


def stop_work(seconds: float) -> None:
    """Tell the work of this process's job to stop; wait until its checkpoints are written.

    Args:
        seconds: to wait at most.
    """
    deadline = time.monotonic() + seconds
    for board in list(_boards.values()):
        try:
            ray.get(board.stop.remote(), timeout=seconds)
            while ray.get(board.listening.remote(), timeout=seconds):
                if time.monotonic() > deadline:
                    return
                time.sleep(_LOOK_EVERY_SECONDS)
        except ray.exceptions.RayError:  # Ray is gone, and with it the workers
            return


class Reporter(Protocol):
    """What a worker is given, to say how far the work is."""

    def __call__(
        self, done: float, total: float, unit: str, info: str = "", figures: Figures | None = None
    ) -> None:
        """Say it as often as you like: it never waits and never fails the work."""

    def stopping(self) -> bool:
        """Whether the run was told to stop; ask as often as you like, it never waits."""


class BoardReporter:
    """Tells the driver's board: call it as often as you like, it writes twice a second at most.

    Figures for the trackers wait for the next writing; none is left out.
    """

    def __init__(self, board: Any, ticket: str) -> None:
        self._board, self._ticket = board, ticket
        self._last = 0.0
        self._report: Report | None = None
        self._figures: list[Figures] = []
        self._stopping = False
        self._asked: Any = None
        self._asked_at = 0.0

    def __call__(
        self, done: float, total: float, unit: str, info: str = "", figures: Figures | None = None
    ) -> None:
        """Say how far the work is; never waits and never fails the work."""
        self._report = Report(done, total, unit, info)
        if figures is not None:
            self._figures.append(figures)
        if time.monotonic() - self._last >= _WRITE_EVERY_SECONDS or done >= total:
            self._write()

    def stopping(self) -> bool:
        """Whether the run was told to stop; the answer is half a second old at most."""
        if self._asked is None:
            if time.monotonic() - self._asked_at >= _WRITE_EVERY_SECONDS:
                self._asked, self._asked_at = (
                    self._board.listen.remote(self._ticket),
                    time.monotonic(),
                )
        elif ray.wait([self._asked], timeout=0)[0]:
            self._stopping = self._stopping or ray.get(self._asked)
            self._asked = None
        return self._stopping

    def leave(self) -> None:
        """The work is over, in whichever way: nobody waits for it to stop."""
        self._board.leave.remote(self._ticket)

    def settle(self) -> None:
        """Write what waits, and wait until it is on the board; the work is over."""
        if self._figures:
            self._write()
        ray.get(self._board.settle.remote())

    def _write(self) -> None:
        self._last = time.monotonic()
        self._board.write.remote(self._ticket, self._report, self._figures)
        self._figures = []

    def complain(self, complaint: Exception) -> None:
        """Leave what the user is to mend; the first one counts."""
        ray.get(self._board.complain.remote(self._ticket, complaint))

    def complaint(self) -> Exception | None:
        """What a worker left to be mended, or None."""
        complaint: Exception | None = ray.get(self._board.complaint.remote(self._ticket))
        return complaint

    def keep(self, facts: dict[str, Any]) -> None:
        """Leave what rank 0 found out, for the driver."""
        ray.get(self._board.keep.remote(self._ticket, facts))

    def facts(self) -> dict[str, Any] | None:
        """What rank 0 left; None before it is done."""
        facts: dict[str, Any] | None = ray.get(self._board.facts.remote(self._ticket))
        return facts


@contextmanager
def reporter_to(progress: StageProgress) -> Iterator[BoardReporter]:
    """A reporter for workers, whose reports show up in `progress` while the block runs."""
    board, ticket = _board_of_this_job(), uuid.uuid4().hex
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(board, ticket, progress, stop), daemon=True)
    thread.start()
    try:
        yield BoardReporter(board, ticket)
    finally:
        stop.set()
        thread.join(timeout=5)
        board.remove.remote(ticket)


def _follow(board: Any, ticket: str, progress: StageProgress, stop: threading.Event) -> None:
    shown: Report | None = None
    over = False
    while not over:
        over = stop.wait(_READ_EVERY_SECONDS)  # and once more after the end
        latest, figures = ray.get(board.read.remote(ticket))
        for measured in figures:
            progress.log(measured)
        if latest is not None and latest != shown:
            progress.update(*latest)
            shown = latest
