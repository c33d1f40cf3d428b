"""RUN/tracking.jsonl: a line for each start, record and end, appended as they come.

    {"event": "start", "name": ..., "parameters": {...}}
    {"event": "log", "stage": "train.sasrec.books", "step": 20, "epoch": 1, "values": {...}}
    {"event": "end", "status": "finished", "parameters": {...}, "trackers": {...}}

The file is never begun anew: a run that is resumed adds to it, and what stands after the last
start is the last attempt.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.tracking.records import Record, Status, TrackedRun

TRACKING = "tracking.jsonl"
EARLIER = "tracking.1.jsonl"
_MOST_BYTES = 8 << 20


class JsonlTracker:
    """Appends to the run's tracking.jsonl; safe to call from any thread."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock = threading.Lock()

    def start(self, run: TrackedRun) -> None:
        """Open the file, which may hold earlier attempts, and write the run's parameters."""
        self._path = run.folder / TRACKING
        run.folder.mkdir(parents=True, exist_ok=True)
        _make_room(self._path)
        _cut_torn_line(self._path)
        self._write(
            {
                "event": "start",
                "time": round(time.time(), 3),
                "name": run.name,
                "parameters": dict(run.parameters),
            }
        )

    def log(self, record: Record) -> None:
        """Write one record."""
        self._write(record.to_json())

    def finish(
        self,
        status: Status,
        parameters: Mapping[str, str],
        trackers: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the end, and what became of the other trackers."""
        self._write(
            {
                "event": "end",
                "time": round(time.time(), 3),
                "status": status,
                "parameters": dict(parameters),
                "trackers": dict(trackers or {}),
            }
        )

    def _write(self, content: Mapping[str, Any]) -> None:
        assert self._path is not None, "start comes first"
        line = json.dumps(content, sort_keys=True, allow_nan=False) + "\n"
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(line)


def read_records(path: Path) -> list[Record]:
    """All records of a tracking.jsonl, of all attempts, in the order in which they were written.

    Raises:
        ValueError: a line is not a record; the message names it.
    """
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                if content["event"] == "log":
                    records.append(Record.from_json(content))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number} is no line of tracking: {error!r}") from error
    return records


def _make_room(path: Path) -> None:
    """A long file of earlier attempts becomes tracking.1.jsonl, in the place of the one before."""
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        os.replace(path, path.with_name(EARLIER))


def _cut_torn_line(path: Path) -> None:
    """Remove the half of a line that a kill left at the file's end."""
    if not path.is_file():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        if not content.endswith(b"\n"):
            stream.truncate(content.rfind(b"\n") + 1)
