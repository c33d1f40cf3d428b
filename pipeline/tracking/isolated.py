"""A tracker at arm's length: in a process of its own, behind a bounded queue.

The run never waits for it but at its end, and there for a bounded time. What it raises is counted,
what it is too slow for is dropped and counted, and one line says so.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.tracking.jsonl import TRACKING
from pipeline.tracking.records import Record, Status, TrackedRun
from pipeline.tracking.registry import External

_LOGS = "tracking"
_ANSWERS_SECONDS = 1.0  # to read what an ended process still said


class IsolatedTracker:
    """A `Tracker` whose work is done elsewhere; no method of it raises or blocks.

    Args:
        external: what runs in the process.
        queue_records: how many calls may wait for it.
        grace: seconds that its process has to end when this one is gone.
        warn: told one sentence, once, when something is lost.
    """

    def __init__(
        self,
        external: External,
        *,
        queue_records: int,
        grace: float,
        warn: Callable[[str], None],
    ) -> None:
        self.name = external.name
        self._external, self._grace, self._warn = external, grace, warn
        self._calls: queue.Queue[str | None] = queue.Queue(queue_records)
        self._sent = self._answered = self._failed = self._dropped = 0
        self._error: str | None = None
        self._warned = self._over = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, name=f"{self.name}-answers", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"{self.name}-calls", daemon=True)

    def start(self, run: TrackedRun) -> None:
        """Start the process and tell it of the run."""
        try:
            self._process = self._begin(run.folder / _LOGS / f"{self.name}.log")
        except OSError as error:
            self._trouble(f"its process did not start ({error})")
        else:
            self._reader.start()
            self._writer.start()
        self._send(
            {
                "event": "start",
                "name": run.name,
                "folder": str(run.folder),
                "parameters": dict(run.parameters),
            }
        )

    def log(self, record: Record) -> None:
        """Queue one record, or drop it where the queue is full."""
        self._send(record.to_json())

    def finish(self, status: Status, parameters: Mapping[str, str]) -> None:
        """Queue the end; `wait` waits for it."""
        self._send({"event": "end", "status": status, "parameters": dict(parameters)})
        self._over = True

    def wait(self, deadline: float) -> dict[str, Any]:
        """Wait until the process has done all of it, or until `deadline` (time.monotonic); end it.

        Returns:
            Calls: `sent`, of which `failed` raised and `lost` were never answered, and `dropped`
            ones; the first `error`; whether the process had to be `ended`.
        """
        ended = self._process is not None and not self._closed_by(deadline)
        if ended:
            self._kill()
            self._trouble("it did not finish in time and was ended")
        lost = self._sent - self._answered
        if lost:
            self._trouble("its process ended early")
        return {
            "sent": self._sent,
            "failed": self._failed,
            "lost": lost,
            "dropped": self._dropped,
            "error": self._error,
            "ended": ended,
        }

    def _begin(self, log: Path) -> subprocess.Popen[str]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "pipeline.tracking.process", self._external.place),
                    *("--settings", json.dumps(dict(self._external.settings))),
                    *("--log", str(log), "--grace", str(self._grace)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                bufsize=1,
                start_new_session=True,  # a Ctrl-C in the terminal is for the run to answer
            )

    def _closed_by(self, deadline: float) -> bool:
        assert self._process is not None
        try:
            self._calls.put(None, timeout=max(0.0, deadline - time.monotonic()))
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except (queue.Full, subprocess.TimeoutExpired):
            return False
        self._reader.join(_ANSWERS_SECONDS)
        return True

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._reader.join(_ANSWERS_SECONDS)

    def _send(self, call: Mapping[str, Any]) -> None:
        if self._over:  # stages that an interrupted run left behind may still speak
            return
        try:
            self._calls.put_nowait(json.dumps(call, allow_nan=False))
        except queue.Full:
            with self._lock:
                self._dropped += 1
            self._trouble(f"it is slow, {self._calls.maxsize} records wait, and more are dropped")
        else:
            with self._lock:
                self._sent += 1

    def _write(self) -> None:
        """Pass the queue on to the process, which may block here as long as it likes."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            while (call := self._calls.get()) is not None:
                self._process.stdin.write(call + "\n")
            self._process.stdin.close()
        except (BrokenPipeError, ValueError):
            self._trouble("its process ended early")
            while self._calls.get() is not None:  # so that nothing waits for a place in the queue
                pass

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            error = json.loads(line)["error"]
            self._answered += 1
            if error is not None:
                self._failed += 1
                self._error = self._error or error
                self._trouble(error)

    def _trouble(self, what: str) -> None:
        with self._lock:
            told, self._warned = self._warned, True
        if not told:
            self._warn(
                f"tracking by {self.name}: {what}. The run goes on; {TRACKING} has every record, "
                f"and {_LOGS}/{self.name}.log what {self.name} said."
            )
