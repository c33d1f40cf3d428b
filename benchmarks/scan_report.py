"""What `benchmarks.scan` measures at, and what its sections write to."""

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.harness import Check, Timing


@dataclass(frozen=True)
class Setting:
    """Shapes and repetitions of a run; the defaults are those that the bars are meant for.

    Attributes:
        threads: torch threads of every side.
        repetitions: timed runs, of which the median counts.
        tokens: T; a section takes the whole sequences that come nearest.
        scan_lengths: L of the scan against the peers.
        mixer_lengths: L of the mixer against attention: the shortest, where it may be a little
            slower, then those where it must be faster, then the longest, where it must be far so.
        growth_lengths: L of the growth of time and of the flatness of memory; they divide T.
        square: rows and columns of the matrix product that the machine's peak is taken from.
        copied: bytes of the copy that the rate of its memory is taken from; beyond any cache.
    """

    threads: int = 1
    repetitions: int = 5
    tokens: int = 16_384
    scan_lengths: tuple[int, ...] = (50, 200, 1000, 4000)
    mixer_lengths: tuple[int, ...] = (50, 100, 200, 1000, 4000)
    growth_lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192, 16_384)
    square: int = 2048
    copied: int = 512 << 20

    @classmethod
    def quick(cls, threads: int, repetitions: int) -> "Setting":
        """Return shapes at which all runs in seconds and no ratio means anything."""
        return cls(threads, repetitions, 512, (8, 40), (8, 16, 128), (64, 512), 256, 1 << 20)

    def sequences(self, length: int) -> int:
        """Return how many sequences of this length make about T tokens."""
        return max(1, round(self.tokens / length))


@dataclass
class Report:
    """Checks and rows as they come; rows are printed at once, checks at the end of the run."""

    checks: list[Check] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def title(self, text: str) -> None:
        """Begin a section."""
        print(f"\n{text}", flush=True)

    def note(self, text: str) -> None:
        """Print a line that is no figure."""
        print(f"  {text}", flush=True)

    def row(self, line: str, **figures: Any) -> None:
        """Print a row and keep its figures."""
        self.note(line)
        self.rows.append(figures)

    def check(self, name: str, value: float, bar: float, at: Literal["least", "most"]) -> bool:
        """Hold a figure to its bar; return whether it is met."""
        self.checks.append(Check(name, value, bar, at))
        return self.checks[-1].ok


def milliseconds(timing: Timing) -> dict[str, float]:
    """Return a timing as figures of a row."""
    return {
        "median_ms": 1e3 * timing.median,
        "min_ms": 1e3 * timing.low,
        "max_ms": 1e3 * timing.high,
    }


def worst(ratios: dict[str, float]) -> tuple[str, float]:
    """Return the name and the value of the greatest ratio; NaN is greater than all."""
    name = max(ratios, key=lambda n: float("inf") if ratios[n] != ratios[n] else ratios[n])
    return name, ratios[name]
