"""The item LLM's loss at each step, kept beside its checkpoints: a resumed curve is whole."""

from __future__ import annotations

import json
from pathlib import Path


class FinetuningCurve:
    """Steps appended to a JSONL file; a step that is done again after a kill counts once.

    Args:
        path: the file; what an earlier attempt wrote there is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, loss: float, rate: float) -> None:
        """Add one step (from 1), with the batch's loss and the learning rate."""
        line = json.dumps({"step": step, "loss": round(loss, 6), "lr": rate})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}")  # the break first: a torn line before it stays alone

    def read(self) -> list[dict[str, float]]:
        """All steps in order; of a step that was done twice the later one."""
        if not self._path.is_file():
            return []
        steps: dict[int, dict[str, float]] = {}
        for line in self._path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):  # others are what a kill left half-written: that step came again
                point = json.loads(line)
                steps[point["step"]] = point
        return [steps[number] for number in sorted(steps)]
