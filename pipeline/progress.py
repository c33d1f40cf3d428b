"""Progress for people: live bars on a terminal, plain lines in a job's log.

`ray job submit` streams a log, not a terminal, so bars would be noise there: a line for each
stage every few seconds instead, with rate and time left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipeline.tracking.records import Figures

_LINE_EVERY_SECONDS = 5.0
_INDENT = "    "
_BAR_COLUMNS = 26 + 14 + 7 + 4  # name, bar, elapsed time and the blanks between them


class StageProgress:
    """How far one stage is; safe to call from any thread."""

    def __init__(self, owner: Progress, name: str) -> None:
        self._owner, self._name = owner, name
        self._started = time.monotonic()
        self._last_line = self._started
        self._first: tuple[float, float] | None = None
        self._unit = ""

    def update(self, done: float, total: float, unit: str, info: str = "") -> None:
        """Say that `done` of `total` units are finished; `info` is a short remark (a loss)."""
        now = time.monotonic()
        if self._first is None or done < self._first[1] or unit != self._unit:
            self._first, self._unit = (now, done), unit
        elapsed, gained = now - self._first[0], done - self._first[1]
        rate = gained / elapsed if elapsed > 0 else 0.0
        left = f"{clock((total - done) / rate)} left" if rate > 0 else ""
        speed = f"{_short(rate)} {unit}/s" if rate > 0 else ""
        parts = [part for part in (left, info, speed) if part]
        due = now - self._last_line >= _LINE_EVERY_SECONDS
        if due:
            self._last_line = now
        self._owner.show(self._name, done, total, parts, line=due)

    def log(self, figures: Figures) -> None:
        """Tell the trackers what was measured; nothing of it is shown."""
        self._owner.log(self._name, figures)

    def note(self, text: str) -> None:
        """Say something once."""
        self._owner.say(self._name, text)

    def finish(self, status: str, seconds: float) -> None:
        """Say how the stage ended."""
        self._owner.finished(self._name, status, seconds)


class Progress:
    """The progress of a whole run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(width=None if Console().is_terminal else 80)
        self._lock = threading.Lock()
        self._expected = self._finished = 0
        self._tasks: dict[str, TaskID] = {}
        self._followers: list[Callable[[str, Figures], None]] = []
        self._bars = Bars(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self.console,
        )

    @contextmanager
    def running(self) -> Iterator[Progress]:
        """Show live bars while the block runs (on a terminal)."""
        if not self.console.is_terminal:
            yield self
            return
        with self._bars:
            yield self

    def follow(self, follower: Callable[[str, Figures], None]) -> None:
        """Have `follower` told of each stage's figures; it must not raise or block."""
        self._followers.append(follower)

    def log(self, stage: str, figures: Figures) -> None:
        """Tell those who follow what a stage measured."""
        for follower in self._followers:
            follower(stage, figures)

    def expect(self, names: Sequence[str]) -> None:
        """Say how many stages there are, so that each can be numbered."""
        self._expected, self._finished = len(names), 0

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """The progress of one stage; its bar goes when the block ends."""
        if self.console.is_terminal:
            self._tasks[name] = self._bars.add_task(shortened(name, 26), total=None, text="")
        try:
            yield StageProgress(self, name)
        finally:
            if (task := self._tasks.pop(name, None)) is not None:
                self._bars.remove_task(task)

    def show(
        self, name: str, done: float, total: float, parts: Sequence[str], *, line: bool
    ) -> None:
        """Move the stage's bar, or print a line of it; the last parts go first where it is long."""
        if (task := self._tasks.get(name)) is not None:
            text = _fitting(parts, self.console.width - _BAR_COLUMNS)
            self._bars.update(task, completed=done, total=total, text=text)
        elif line:
            share = f"{100 * done / total:3.0f}%" if total else "    "
            room = self.console.width - len(_INDENT) - len(name) - 2
            self.say(name, _fitting([share, *parts], room))

    def say(self, name: str, text: str) -> None:
        """Print one line about a stage."""
        with self._lock:
            line = f"{_INDENT}[dim]{escape(name)}[/dim]  {escape(text)}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a sentence that is about no stage, in lines of the console's width."""
        with self._lock:
            self.console.print(f"[yellow]{escape(text)}[/yellow]", highlight=False)

    def finished(self, name: str, status: str, seconds: float) -> None:
        """Print the line that a stage is over."""
        with self._lock:
            self._finished += 1
            count = f"[{self._finished}/{self._expected}]"
            took = "" if status == "reused" else f" in {clock(seconds)}"
            self.console.print(
                f"{escape(count):>8} {escape(name)}: {status}{took}", highlight=False
            )


def _fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, from the first on."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text


def shortened(name: str, width: int) -> str:
    """The name of a stage in so many columns; its end tells candidates apart, so that stays.

    >>> shortened("try.hydra_single.instruments.dropout=0.3", 30)
    'try.hydra_single.i…dropout=0.3'
    """
    if len(name) <= width:
        return name
    end = name[name.rindex(".", 0, max(name.rfind("="), 0)) + 1 :] if "=" in name else ""
    return f"{name[: width - 1 - len(end)]}…{end}"


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )


def _short(number: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{suffix}"
    return f"{number:.1f}"
