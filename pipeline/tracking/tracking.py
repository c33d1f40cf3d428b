"""All trackers of a run, as the run sees them: one that is told, and never troubles it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.isolated import IsolatedTracker
from pipeline.tracking.jsonl import TRACKING, JsonlTracker
from pipeline.tracking.records import Figures, Record, Status, TrackedRun
from pipeline.tracking.registry import External

# After Ctrl-C people wait, and after SIGTERM a SIGKILL follows soon.
_INTERRUPTED_SECONDS = 5.0


class Tracking:
    """Tells tracking.jsonl and the external trackers; safe to call from any thread.

    Args:
        config: how much time and how many records the external trackers get.
        externals: which ones, by `registry.wanted`.
        warn: told a sentence where a tracker loses something, once for each.
    """

    def __init__(
        self, config: TrackingConfig, externals: Iterable[External], warn: Callable[[str], None]
    ) -> None:
        self._seconds, self._warn = config.finish_seconds, warn
        self._jsonl, self._jsonl_failed = JsonlTracker(), False
        self._others = [
            IsolatedTracker(
                external,
                queue_records=config.queue_records,
                grace=config.finish_seconds,
                warn=warn,
            )
            for external in externals
        ]
        self._logged: set[tuple[str, int | None, str]] = set()  # stage, step, name of a value
        self._parameters: dict[str, str] = {}
        self._over = False

    @contextmanager
    def following(self, run: TrackedRun) -> Iterator[Tracking]:
        """Follow a run for the length of the block; how it ends is what the trackers are told."""
        self._safely(lambda: self._jsonl.start(run))
        for tracker in self._others:
            tracker.start(run)
        status: Status = "interrupted"
        try:
            yield self
            status = "finished"
        except Exception:
            status = "failed"
            raise
        finally:
            self._finish(status)

    def log(self, stage: str, figures: Figures) -> None:
        """Tell all trackers what a stage measured; nothing once the run is over."""
        if self._over:  # an interrupted run does not wait for its stages
            return
        record = Record(stage, figures, time.time())
        self._logged |= {(stage, figures.step, name) for name in figures.values}
        self._safely(lambda: self._jsonl.log(record))
        for tracker in self._others:
            tracker.log(record)

    def complete(self, stage: str, curve: Iterable[Figures]) -> None:
        """Log what of a stage's curve was not logged: a stage that was reused or resumed."""
        for figures in curve:
            if not any((stage, figures.step, name) in self._logged for name in figures.values):
                self.log(stage, figures)

    def describe(self, parameters: Mapping[str, str]) -> None:
        """Keep what only the run's end can tell, for the trackers' end."""
        self._parameters |= parameters

    def _finish(self, status: Status) -> None:
        self._over = True
        seconds = self._seconds
        if status == "interrupted":
            seconds = min(seconds, _INTERRUPTED_SECONDS)
        deadline = time.monotonic() + seconds
        for tracker in self._others:
            tracker.finish(status, self._parameters)
        became: dict[str, Any] = {t.name: t.wait(deadline) for t in self._others}
        self._safely(lambda: self._jsonl.finish(status, self._parameters, became))

    def _safely(self, write: Callable[[], None]) -> None:
        """Write to tracking.jsonl; a full disk there is said once."""
        if self._jsonl_failed:
            return
        try:
            write()
        except OSError as error:
            self._jsonl_failed = True
            self._warn(f"{TRACKING} cannot be written ({error}); the run goes on without it")
