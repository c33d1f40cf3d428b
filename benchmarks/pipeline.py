"""What Ray costs a run: the demo's stages inside a Ray, and the same stages in one process.

    python -m benchmarks.pipeline [--config FILE] [--domains N] [--epochs N] [--repetitions N]
                                  [--quick] [--FIELD ...]

Both ways are `jobs/multidomain.py` in a process of its own with an empty run store and one worker:
once without a Ray (`compute.in_process`), once submitted to a Ray that is started for it and ended
after it. They take turns. First metrics.json must be the same, byte for byte. Then come the seconds
of each stage, of Ray's start and end, and of what stands around the run: the submission, imports
and the report. Seconds are medians by the wall, with the least and the most of all repetitions;
those of the CPU are of all processes, Ray's own too. The bars are for the wall, what people wait,
and for the least of the repetitions, the one that was disturbed least; the share is that of a run
of ten minutes, since that overhead does not grow with the work. That of CPU time does: Ray's own
processes go on beside the work, on cores that are free, as long as it lasts. A wall says something
only where nobody else is at work, so the one process must not have waited for its core.

`--FIELD` is any field of the config, as for jobs/multidomain.py. `--quick` runs two tiny shops, so
that no share means anything. Exit status 1 where a figure misses its bar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import finish
from benchmarks.json_worker import ROOT
from benchmarks.pipeline_runs import Measured, in_one_process, in_ray
from benchmarks.scan_report import Report
from pipeline.config import RunConfig, load

OVERHEAD_BAR = 45.0
SHARE_BAR = 8.0
# One process computes on one thread: on a machine that nobody else uses it never waits.
QUIET_BAR = 1.06
TEN_MINUTES = 600.0
_LARGEST = 8
_SHOP = {"format": "simulated", "population": 400, "items": 60, "mean_history": 6}
_BRIEF = {"dim": 16, "training": {"epochs": 2, "negatives": 32}}
TINY: dict[str, Any] = {
    "name": "tiny",
    "domains": [
        {"name": "books", "source": _SHOP | {"catalogue": "books", "share": 0.8}},
        {"name": "garden", "source": _SHOP | {"catalogue": "garden", "share": 0.4}},
    ],
    "models": ["popularity", "sasrec", "hydra_single", "hydra_joint"],
    "item_llm": {
        "encoder": {"base": "minilm", "max_tokens": 16},
        "lora": {"r": 4},
        "finetuning": {"max_steps": 8, "pairs_per_step": 16, "zero_stage": 2},
    },
    "user_model": _BRIEF,
    "sasrec": _BRIEF,
}
WAYS: dict[str, Callable[[RunConfig, Path], Measured]] = {
    "one process": in_one_process,
    "Ray": in_ray,
}
Runs = Mapping[str, Sequence[Measured]]


def compare(config: RunConfig, repetitions: int, report: Report) -> None:
    """Run both ways in turn; equality, then the table, then the overhead."""
    config = config.model_copy(
        update={"compute": config.compute.model_copy(update={"workers": 1, "max_failures": 0})}
    )
    runs: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(repetitions):
        for way, run in WAYS.items():
            with tempfile.TemporaryDirectory(prefix="hydrarec-overhead-") as folder:
                runs[way].append(run(config, Path(folder)))
            told = runs[way][-1]
            report.row(
                f"{number + 1}. {way:<12} {told.seconds:7.1f} s, CPU {told.cpu_seconds:7.1f} s; "
                f"load of the machine {os.getloadavg()[0]:.1f}",
                section="run", way=way, seconds=told.seconds, cpu_seconds=told.cpu_seconds,
                load=os.getloadavg()[0],
            )  # fmt: skip
    contents = {run.metrics for measured in runs.values() for run in measured}
    report.check("metrics.json that differ", len(contents) - 1, 0, "most")
    _stages(runs, report)
    _processes(runs["Ray"], report)
    _overhead(runs, report)


def _stages(runs: Runs, report: Report) -> None:
    report.title("Seconds by the wall: median (least .. most)")
    report.note(f"{'':34}{'in one process':>24}{'in Ray':>24}{'difference':>12}")
    parts: dict[str, Callable[[Measured], float]] = {
        stage: lambda run, stage=stage: run.stages[stage]  # type: ignore[misc]
        for stage in runs["Ray"][0].stages
    }
    parts |= {
        "between stages (joining Ray)": lambda run: run.between,
        "submission, imports, report": lambda run: run.around,
        "Ray's start": lambda run: run.start,
        "Ray's end": lambda run: run.end,
        "all": lambda run: run.seconds,
        "all, CPU of all processes": lambda run: run.cpu_seconds,
    }
    for name, seconds in parts.items():
        here, there = ([seconds(run) for run in runs[way]] for way in WAYS)
        more = statistics.median(there) - statistics.median(here)
        report.row(
            f"{name:<34}{_spread(here):>24}{_spread(there):>24}{more:12.2f}",
            section="part", part=name, one_process=here, ray=there, difference=more,
        )  # fmt: skip


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} .. {max(seconds):.2f})"


def _processes(runs: Sequence[Measured], report: Report) -> None:
    report.title("CPU seconds of the processes in Ray, the largest; least disturbed run")
    run = min(runs, key=lambda run: run.cpu_seconds)
    for process, seconds in run.cpu_by_process.most_common(_LARGEST):
        report.row(
            f"{seconds:7.1f} {process}", section="process", process=process, cpu_seconds=seconds
        )


def _overhead(runs: Runs, report: Report) -> None:
    report.title("Overhead")
    for clock, name in (("seconds", "by the wall"), ("cpu_seconds", "of CPU time, no bar")):
        here, there = (min(getattr(run, clock) for run in runs[way]) for way in WAYS)
        more = there - here
        share = 100 * more / TEN_MINUTES
        report.row(
            f"{more:.1f} s {name}: {100 * more / here:.0f}% of this run, "
            f"{share:.1f}% of one of ten minutes",
            section="overhead", clock=clock, seconds=more, share_of_this_run=more / here,
        )  # fmt: skip
        if clock == "seconds":
            report.check(f"overhead {name}, s", more, OVERHEAD_BAR, "most")
            report.check(f"overhead {name}, % of ten minutes", share, SHARE_BAR, "most")
    waited = min(run.seconds / run.cpu_seconds for run in runs["one process"])
    report.check("one process, seconds by the wall a CPU second", waited, QUIET_BAR, "most")


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print the table, the checks and the JSON line; return the exit status."""
    arguments, overrides = _parser().parse_known_args(given)
    report = Report()
    config = chosen(arguments, overrides)
    report.title(f"{config.name}: {len(config.domains)} domains, {', '.join(config.models)}")
    compare(config, arguments.repetitions, report)
    report.title("Checks")
    return finish("pipeline", report.checks, report.rows)


def chosen(arguments: argparse.Namespace, overrides: Sequence[str]) -> RunConfig:
    """The config that the command line asks for.

    Raises:
        ValueError: a mistake in the config.
    """
    if arguments.quick:
        return RunConfig.model_validate(TINY)
    if arguments.epochs is not None:
        of_all = (f"--{model}.training.epochs={arguments.epochs}" for model in _EPOCHS_OF)
        overrides = [*of_all, *overrides]
    config = load(arguments.config, overrides)
    return config.model_copy(update={"domains": config.domains[: arguments.domains]})


_EPOCHS_OF = ("user_model", "sasrec")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    demo = ROOT / "configs" / "demo.yaml"
    parser.add_argument(
        "--config", type=Path, default=demo, help="the run's YAML file (configs/demo.yaml)"
    )
    parser.add_argument("--domains", type=int, metavar="N", help="the first N domains (all)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of every user model (the config's)"
    )
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="of each way (3)")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
