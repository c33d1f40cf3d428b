"""Making and preparing up to 100M interactions in bounded memory, and the time beside RecBole's.

    python -m benchmarks.prepare [--size 10M] [--repetitions 5] [--only SECTION ...] [--quick]
    python -m benchmarks.prepare --sizes 1M 5M 20M --only growth
    python -m benchmarks.prepare --size 100M --folder DATA --only growth

growth   simulated shops, ten interactions a person and twenty an item. One process writes the
         shop's tables as Parquet files, a fresh one prepares them: from the files to the corpus on
         disk. The peak of resident memory of both is held to 2 GB at the largest size, and the CPU
         time for an interaction, which other programs disturb least, to 1.2 times that of the
         smallest (--size alone: of 1M). First a small shop must come out equal from the files, from
         the simulation itself, in one part, in many, and from the specification in memory.
         --folder keeps the tables and uses those that are there; work and corpus lie there too.
recbole  MovieLens-1M as RecBole's atomic files, loaded by RecBole (`create_dataset`: read, k-core,
         ids numbered) and prepared by us (that, and sorted, checked and written to disk), in turn.
         First both must count the same. It needs RecBole in .venv-recbole (`make peers`) and the
         data folder; left out, and said so, where one is absent.

One thread each. Starting a process, importing and compiling are not counted. Exit status 1 where a
figure misses its bar. `--quick` runs everything so small that the figures mean nothing. 100M take
about 20 minutes of one core and 12 GB of disk.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.atomic_files import movielens_1m, small_dataset
from benchmarks.harness import Timing, finish, median_ratio
from benchmarks.json_worker import ROOT, JsonWorker
from benchmarks.prepare_growth import growth_section
from benchmarks.scan_report import Report
from pipeline.paths import data_root

RECBOLE = ROOT / ".venv-recbole" / "bin" / "python"
RECBOLE_BAR = 2.0
K_CORE = 5
_SMALLEST, _LEAST = 1_000_000, 1_000


@dataclass(frozen=True)
class Setting:
    """How large and how often.

    sizes: interactions, increasing.
    repetitions: of the race with RecBole.
    quick: sizes mean nothing.
    folder: for the growth's tables; None: a temporary one.
    """

    sizes: tuple[int, ...]
    repetitions: int
    quick: bool
    folder: Path | None = None


def _growth(report: Report, setting: Setting) -> None:
    if setting.folder is not None:
        growth_section(report, setting.sizes, setting.folder)
        return
    with TemporaryDirectory() as folder:
        growth_section(report, setting.sizes, Path(folder))


def recbole_section(report: Report, setting: Setting) -> None:
    """Equal counts, then the times."""
    report.title("MovieLens-1M as atomic files, beside RecBole")
    if absent := [str(path) for path in _needed(setting) if not path.exists()]:
        report.row(f"left out: {' and '.join(absent)} absent", section="recbole", left_out=absent)
        return
    with TemporaryDirectory() as folder:
        write = small_dataset if setting.quick else movielens_1m
        name = write(Path(folder))
        _race(report, setting, Path(folder), name)


def _needed(setting: Setting) -> list[Path]:
    return [RECBOLE] if setting.quick else [RECBOLE, data_root() / "ml1m"]


def _race(report: Report, setting: Setting, folder: Path, name: str) -> None:
    source = {"format": "recbole", "path": f"{name}/{name}.inter"}
    config = {"name": name, "source": source, "cleaning": {"k_core": K_CORE}}
    arguments = [str(folder), name, str(K_CORE)]
    with (
        JsonWorker("benchmarks.prepare_worker", arguments[:1], python=Path(sys.executable)) as ours,
        JsonWorker("benchmarks.recbole_worker", arguments, python=RECBOLE) as theirs,
    ):
        rivals: dict[str, Callable[[], dict[str, Any]]] = {
            "ours": lambda: ours.ask(config),
            "recbole": theirs.ask,
        }
        answers = {name: [ask()] for name, ask in rivals.items()}  # to warm up, and to compare
        counts = ("interactions", "users", "items")
        ours_first, theirs_first = (answers[rival][0] for rival in rivals)
        differ = sum(ours_first[count] != theirs_first[count] for count in counts)
        report.check("counts that differ from RecBole's", differ, 0, "most")
        for _ in range(setting.repetitions):
            for rival, ask in rivals.items():
                answers[rival].append(ask())
    seconds = {rival: [a["seconds"] for a in given[1:]] for rival, given in answers.items()}
    for rival, taken in seconds.items():
        first, cpu = answers[rival][0], [a["cpu_seconds"] for a in answers[rival][1:]]
        report.row(
            f"{rival:<8} {Timing.of(taken)}, CPU {Timing.of(cpu)}; "
            + ", ".join(f"{first[count]:,} {count}" for count in counts),
            section="recbole", rival=rival, seconds=taken, cpu_seconds=cpu,
            **{count: first[count] for count in counts},
        )  # fmt: skip
    ratio = median_ratio(seconds["recbole"], seconds["ours"])
    report.check("RecBole's time / ours", ratio, RECBOLE_BAR, "least")


SECTIONS: dict[str, Callable[[Report, Setting], None]] = {
    "growth": _growth,
    "recbole": recbole_section,
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the sections, print the checks and the JSON line; return the exit status."""
    arguments = _arguments(given)
    sizes = tuple(sorted(arguments.sizes or {min(_SMALLEST, arguments.size), arguments.size}))
    if arguments.quick:
        sizes = (4_000, 8_000)
    setting = Setting(sizes, arguments.repetitions, arguments.quick, arguments.folder)
    report = Report()
    for name in arguments.only or SECTIONS:
        SECTIONS[name](report, setting)
    report.title("Checks")
    return finish("prepare", report.checks, report.rows)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare",
        description="making and preparing data: memory, time, and the time beside RecBole's",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        type=_count,
        default=_count("10M"),
        help="interactions, 500K or 100M, beside 1M (10M)",
    )
    sizes.add_argument("--sizes", type=_count, nargs="+", help="several sizes, such as 1M 5M 20M")
    parser.add_argument(
        "--folder", type=Path, help="keep the tables here, and use those that are there"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of the race with RecBole")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, help="run these sections alone (all)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser.parse_args(given)


def _count(text: str) -> int:
    units = {"k": 1_000, "K": 1_000, "M": 1_000_000}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if (count := int(float(number) * unit)) < _LEAST:
        raise argparse.ArgumentTypeError(f"{text} is too small: {_LEAST} interactions at least")
    return count


if __name__ == "__main__":
    sys.exit(main())
