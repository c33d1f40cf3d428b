"""Preparing a corpus: memory and growth up to 10M interactions, and the time beside RecBole's.

    python -m benchmarks.prepare [--size 10M] [--repetitions 5] [--only SECTION ...] [--quick]

growth   simulated domains of 1M, 2M, 5M ... interactions, each prepared in a fresh process: from
         the source to the corpus on disk. The simulation's time is told apart from the rest, whose
         growth is held to a bar in CPU time, which other programs disturb least, as is the peak of
         resident memory at the largest size. First the same domain must give the same corpus in
         one part and in many.
recbole  MovieLens-1M as RecBole's atomic files, loaded by RecBole (`create_dataset`: read, k-core,
         ids numbered) and prepared by us (that, and sorted, checked and written to disk), in turn.
         First both must count the same. It needs RecBole in .venv-recbole (`make peers`) and the
         data folder; left out, and said so, where one is absent.

One thread each. Starting a process, importing and compiling are not counted. Exit status 1 where a
figure misses its bar. `--quick` runs everything so small that the figures mean nothing.
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
from benchmarks.mixer_cases import log_log_slope
from benchmarks.prepare_worker import prepared
from benchmarks.scan_report import Report
from pipeline.domains import DomainConfig
from pipeline.paths import data_root

RECBOLE = ROOT / ".venv-recbole" / "bin" / "python"
PEAK_MIB_BAR = 1.5 * 1000**3 / (1 << 20)
SLOPE_BAR = 0.1
RECBOLE_BAR = 2.0
K_CORE = 5
_SIZES = (1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000)


@dataclass(frozen=True)
class Setting:
    """How large and how often; interactions of `sizes`, of which the first is the smallest."""

    sizes: tuple[int, ...]
    repetitions: int
    quick: bool


def growth_section(report: Report, setting: Setting) -> None:
    """Equality, then time and peak memory over the number of interactions."""
    report.title("Simulated domains, from the source to the corpus on disk")
    small = shop(20_000)
    whole = prepared(small, ROOT)
    parts = prepared(small, ROOT, working_bytes=100_000, most_events=5_000)
    differ = whole["fingerprint"] != parts["fingerprint"] or parts["shards"] < 2
    report.check("one part and many differ (0: no)", float(differ), 0, "most")
    figures = []
    for size in setting.sizes:
        worker = JsonWorker("benchmarks.prepare_worker", [str(ROOT)], python=Path(sys.executable))
        with worker:
            answer = worker.ask(shop(size).model_dump(mode="json"))
        wall = answer["seconds"] - answer["source_seconds"]
        cpu = answer["cpu_seconds"] - answer["source_cpu_seconds"]
        figures.append(answer | {"prepare_s": wall, "prepare_cpu_s": cpu})
        report.row(
            f"{size:>11,}  {cpu:6.2f} s CPU ({1e6 * cpu / answer['read']:.2f} us each), "
            f"{wall:6.2f} s by the wall, and {answer['source_cpu_seconds']:.1f} s CPU to simulate; "
            f"peak {answer['peak_mib']:.0f} MiB (at first {worker.hello['level_mib']:.0f}); left "
            f"{answer['interactions']:,}, {answer['users']:,} users, {answer['items']:,} items",
            section="growth", size=size, **figures[-1], **worker.hello,
        )  # fmt: skip
    report.check(f"peak MiB at {size:,}", figures[-1]["peak_mib"], PEAK_MIB_BAR, "most")
    read = [f["read"] for f in figures]
    slopes = {
        kind: log_log_slope(read, [f[kind] for f in figures])
        for kind in ("prepare_cpu_s", "prepare_s")
    }
    report.row(
        f"log-log slope {slopes['prepare_cpu_s']:.3f} of the CPU time, {slopes['prepare_s']:.3f} "
        "by the wall",
        section="slope", **slopes,
    )  # fmt: skip
    slope = slopes["prepare_cpu_s"]
    report.check("|log-log slope of CPU time - 1|", abs(slope - 1), SLOPE_BAR, "most")


def shop(interactions: int) -> DomainConfig:
    """A simulated domain of about so many interactions: ten a person, twenty an item.

    Beyond 20M more an item, since a simulated shop has a million items at most.
    """
    source = {
        "format": "simulated",
        "catalogue": "books",
        "population": interactions // 10,
        "share": 1.0,
        "mean_history": 10,
        "items": min(interactions // 20, 1_000_000),
    }
    cleaning = {"k_core": K_CORE}
    return DomainConfig.model_validate({"name": "books", "source": source, "cleaning": cleaning})


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
    "growth": growth_section,
    "recbole": recbole_section,
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the sections, print the checks and the JSON line; return the exit status."""
    arguments = _arguments(given)
    sizes = (*(size for size in _SIZES if size < arguments.size), arguments.size)
    if arguments.quick:
        sizes = (4_000, 8_000)
    setting, report = Setting(sizes, arguments.repetitions, arguments.quick), Report()
    for name in arguments.only or SECTIONS:
        SECTIONS[name](report, setting)
    report.title("Checks")
    return finish("prepare", report.checks, report.rows)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare",
        description="preparing a corpus: memory, growth, and the time beside RecBole's",
    )
    parser.add_argument(
        "--size", type=_count, default=_count("10M"), help="most interactions: 10M, 500k (10M)"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of the race with RecBole")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, help="run these sections alone (all)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser.parse_args(given)


def _count(text: str) -> int:
    units = {"k": 1_000, "M": 1_000_000}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    return int(float(number) * unit)


if __name__ == "__main__":
    sys.exit(main())
