"""The process in which one external tracker runs, so that it can neither block nor break the run.

It reads calls as JSON lines from its standard input and answers each with a line: {"error": null}
or {"error": "..."}. What the tracker prints goes to a log file. When the run's process is gone, it
has `--grace` seconds to finish and then ends itself, even if the tracker is blocked for ever.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.tracking.records import Record, TrackedRun, Tracker

_NICENESS = 10  # the run's own workers come first
_LOOK_EVERY_SECONDS = 1.0


def main() -> None:
    """Serve one tracker until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", help="module:Class of the tracker")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--grace", type=float, required=True, help="seconds")
    options = parser.parse_args()
    os.nice(_NICENESS)
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent, options.grace), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    with options.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    serving = _Serving(options.place, options.settings)
    for line in sys.stdin:
        answers.write(json.dumps({"error": serving.answer(json.loads(line))}) + "\n")


class _Serving:
    """Carries out the calls; the tracker is made with the first of them."""

    def __init__(self, place: str, settings: Mapping[str, Any]) -> None:
        self._place, self._settings = place, settings
        self._tracker: Tracker | None = None

    def answer(self, call: Mapping[str, Any]) -> str | None:
        """Do one call; what the tracker raised, or None."""
        try:
            self._do(call)
        except Exception as error:  # whatever a tracker raises is told, and the run goes on
            return " ".join(f"{type(error).__name__}: {error}".split())
        return None

    def _do(self, call: Mapping[str, Any]) -> None:
        if call["event"] == "start":
            module, _, name = self._place.partition(":")
            tracker = getattr(importlib.import_module(module), name)(**self._settings)
            tracker.start(TrackedRun(call["name"], Path(call["folder"]), call["parameters"]))
            self._tracker = tracker
            return
        if self._tracker is None:
            raise RuntimeError("it did not start")
        if call["event"] == "log":
            self._tracker.log(Record.from_json(call))
        else:
            self._tracker.finish(call["status"], call["parameters"])


def _end_with(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_SECONDS)
    time.sleep(grace)
    os._exit(1)  # from a thread, while the main one may be blocked in the tracker


if __name__ == "__main__":
    main()
