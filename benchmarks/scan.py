"""The scan and the mixer around it on a CPU: against peers, against attention, and over lengths.

    python -m benchmarks.scan [--threads 1] [--repetitions 5] [--only SECTION ...] [--quick]

Six sections, each of which asks equality first where there is something to equal: the scan against
mamba-ssm's torch reference (it needs `make peers`; left out, and said so, where that is not there)
and transformers' fallback; the Hydra mixer against attention of equal width; the growth of its time
and the flatness of its memory over L; its projections' share of the machine's matrix-product peak;
the share of padding in a packed batch. Float32, about 16k packed tokens; medians of the
repetitions, rivals in turn. Exit status 1 where a figure misses its bar.

`--quick` runs everything at shapes so small that the ratios mean nothing.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks.harness import finish
from benchmarks.mixer_cases import growth_section, mixer_section, padding_section
from benchmarks.mixer_memory import memory_section
from benchmarks.projections import projections_section
from benchmarks.scan_cases import scan_section
from benchmarks.scan_report import Report, Setting

SECTIONS: dict[str, Callable[[Report, Setting], None]] = {
    "scan": scan_section,
    "mixer": mixer_section,
    "growth": growth_section,
    "memory": memory_section,
    "projections": projections_section,
    "padding": padding_section,
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the sections, print the checks and the JSON line; return the exit status."""
    arguments = _arguments(given)
    torch.set_num_threads(arguments.threads)
    make = Setting.quick if arguments.quick else Setting
    setting, report = make(arguments.threads, arguments.repetitions), Report()
    report.row(
        f"threads {setting.threads}, repetitions {setting.repetitions}, about {setting.tokens} "
        f"tokens, torch {torch.__version__}",
        section="setting", threads=setting.threads, repetitions=setting.repetitions,
        tokens=setting.tokens, torch=str(torch.__version__), quick=arguments.quick,
    )  # fmt: skip
    for name in arguments.only or SECTIONS:
        SECTIONS[name](report, setting)
    report.title("Checks")
    return finish("scan", report.checks, report.rows)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scan", description="the scan and the mixer around it, on a CPU"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, help="run these sections alone (all)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny shapes: to see that it runs")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
