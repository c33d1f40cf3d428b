"""What every benchmark does alike: alternate the rivals, take medians, hold figures to bars.

The last line that a benchmark prints is one JSON object, with benchmark, threads, checks and rows.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """One figure and the bar that it is held to.

    Attributes:
        name: what was measured, with its unit.
        value: the figure; NaN fails.
        bar: the bar.
        at: "least": value >= bar is asked; "most": value <= bar.
    """

    name: str
    value: float
    bar: float
    at: Literal["least", "most"]

    @property
    def ok(self) -> bool:
        """Whether the figure meets the bar."""
        return self.value >= self.bar if self.at == "least" else self.value <= self.bar


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs: the median, and how far they spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Summarise repetitions."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))

    def __str__(self) -> str:
        return f"{1e3 * self.median:.1f} ms ({1e3 * self.low:.1f} .. {1e3 * self.high:.1f})"


def alternate(
    rivals: Mapping[str, Callable[[], Any]],
    repetitions: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the rivals in turn, so that the machine's noise hits all alike: seconds of each run.

    `clock` may be time.process_time, of all threads, where others work on the machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(-warmup, repetitions):
        for name, run in rivals.items():
            began = clock()
            run()
            if number >= 0:
                seconds[name].append(clock() - began)
    return seconds


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return the median over repetitions of slower / faster, paired by repetition."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def rms_ratio(got: Tensor, expected: Tensor) -> float:
    """Return |got - expected| / |expected|, in float64."""
    expected = expected.double()
    return float((got.double() - expected).norm() / expected.norm().clamp_min(1e-300))


def finish(name: str, checks: Sequence[Check], rows: Sequence[Mapping[str, Any]]) -> int:
    """Print the checks and, as the last line, the JSON object; return the exit status.

    Args:
        name: the benchmark, as in `python -m benchmarks.NAME`.
        checks: figures with bars.
        rows: all figures, as flat mappings.

    Returns:
        0, or 1 where a check is not ok.
    """
    width = max((len(c.name) for c in checks), default=0)
    for check in checks:
        sign = ">=" if check.at == "least" else "<="
        verdict = "ok" if check.ok else "SHORT OF THE BAR"
        print(f"{check.name:{width}}  {check.value:10.4g}  {sign} {check.bar:<8g} {verdict}")
    report = {
        "benchmark": name,
        "threads": torch.get_num_threads(),
        "checks": [
            {"name": c.name, "value": c.value, "bar": c.bar, "at": c.at, "ok": c.ok} for c in checks
        ],
        "rows": list(rows),
    }
    print(json.dumps(report, allow_nan=True))
    return 0 if all(c.ok for c in checks) else 1
