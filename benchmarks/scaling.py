"""Time and memory of a run's stages, as functions of its sizes: fitted, and held against a run.

    python -m benchmarks.scaling [--quick] [--publish]

Five small runs of simulated shops, of different people, items, epochs, widths and fine-tuning, are
measured stage by stage (CPU seconds, memory at the peak) in one process without a Ray. Formulas are
fitted on them, and predict a sixth run that is larger than all of them in people, items and
interactions: its CPU time and its peak must come within 20%. Then the formulas, and counted FLOP
and bytes, say what 1,000 million interactions would take: estimates.

`--publish` writes docs/results/scaling.json and the tables of docs/scaling.md. `--quick` fits two
tiny runs, so that no figure means anything. Exit status 1 where a figure misses its bar.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import scaling_sizes
from benchmarks.harness import finish
from benchmarks.json_worker import ROOT, JsonWorker
from benchmarks.scaling_fit import Figure, Formula, MeasuredRun, fit, predicted
from benchmarks.scaling_forecast import Forecast, forecast
from benchmarks.scan_report import Report
from pipeline.config import RunConfig
from pipeline.results_page import markdown_table, put_section
from pipeline.whole_files import write_json

ERROR_BAR = 0.2
FIGURES: dict[Figure, str] = {"cpu_seconds": "CPU seconds", "extra_mib": "MiB above the level"}


@dataclass(frozen=True)
class Model:
    """What was fitted on what, and the run that it is held against."""

    runs: Sequence[MeasuredRun]
    held_back: MeasuredRun
    formulas: Sequence[Formula]

    def error(self, figure: Figure, stage: str) -> float:
        """Predicted over measured, less 1."""
        told = predicted(self.formulas, self.held_back.sizes, figure)[stage]
        return told / max(self.held_back.stages[stage][figure], 1e-9) - 1

    def total_error(self) -> float:
        """Of the CPU seconds of all stages together."""
        told = predicted(self.formulas, self.held_back.sizes, "cpu_seconds")
        return sum(told[stage] for stage in self.held_back.stages) / self.held_back.total() - 1

    def largest_error(self) -> tuple[str, float]:
        """The stage that takes most above its level, and the error of what is told of it."""
        stages = self.held_back.stages
        name = max(stages, key=lambda stage: stages[stage]["extra_mib"])
        return name, self.error("extra_mib", name)

    def peak_error(self) -> float:
        """Of the peak of the whole run: each stage's level, measured, and what is told above it."""
        told = predicted(self.formulas, self.held_back.sizes, "extra_mib")
        stages = self.held_back.stages
        peak = max(stage["peak_mib"] for stage in stages.values())
        levels = {n: s["peak_mib"] - s["extra_mib"] for n, s in stages.items()}
        return max(levels[name] + told[name] for name in stages) / peak - 1


def measure(configs: Sequence[RunConfig]) -> list[MeasuredRun]:
    """Run each, in one process that has warmed up."""
    with JsonWorker("benchmarks.scaling_worker", [], python=Path(sys.executable)) as worker:
        return [MeasuredRun.of(worker.ask(config.model_dump_json())) for config in configs]


def show(model: Model, report: Report) -> None:
    """The coefficients, the errors on the run that was held back, the checks."""
    report.title("Formulas: the sum of coefficient x term")
    for formula in model.formulas:
        terms = " + ".join(f"{v:.3g} x {t}" for t, v in formula.coefficients.items() if v) or "0"
        report.row(
            f"{formula.stage:<18} {FIGURES[formula.figure]:<20} {terms}",
            section="formula", stage=formula.stage, figure=formula.figure,
            coefficients=formula.coefficients,
        )  # fmt: skip
    report.title("The run that was held back")
    for stage in model.held_back.stages:
        for figure, name in FIGURES.items():
            got = model.held_back.stages[stage][figure]
            error = model.error(figure, stage)
            report.row(
                f"{stage:<18} {name:<20} measured {got:8.2f}, predicted {error:+.0%}",
                section="held_back", stage=stage, figure=figure, measured=got, error=error,
            )  # fmt: skip
    report.check(
        "|error| of the CPU time of all stages", abs(model.total_error()), ERROR_BAR, "most"
    )
    name, error = model.largest_error()
    report.check(
        f"|error| of {name}'s memory, the largest above a level", abs(error), ERROR_BAR, "most"
    )
    report.check("|error| of the run's peak memory", abs(model.peak_error()), ERROR_BAR, "most")


def publish(model: Model, lines: Sequence[Forecast], report: Report, docs: Path) -> None:
    """Write results/scaling.json and the tables of scaling.md below `docs`."""
    kept = {
        "command": "python -m benchmarks.scaling --publish",
        "runs": [asdict(run) for run in model.runs],
        "held_back": asdict(model.held_back),
        "rows": report.rows,
        "checks": [asdict(check) for check in report.checks],
    }
    write_json(docs / "results" / "scaling.json", kept)
    page = docs / "scaling.md"
    put_section(page, "fit", fit_section(model, report))
    put_section(page, "forecast", forecast_section(lines))


def fit_section(model: Model, report: Report) -> str:
    """The measured sizes, the coefficients and the errors, as Markdown."""
    sizes = asdict(model.held_back.sizes)
    runs = [run.sizes for run in model.runs]
    ranges = [
        [name, f"{min(found):,} .. {max(found):,}", f"{held:,}"]
        for name, held in sizes.items()
        for found in [[getattr(run, name) for run in runs]]
    ]  # fmt: skip
    formulas = [
        [f"`{f.stage}`", FIGURES[f.figure],
         " + ".join(f"{v:.3g} × {t}" for t, v in f.coefficients.items() if v) or "0",
         f"{model.held_back.stages[f.stage][f.figure]:.2f}",
         f"{model.error(f.figure, f.stage):+.0%}"]
        for f in model.formulas
        if f.stage in model.held_back.stages
    ]  # fmt: skip
    checks = [
        f"* {c.name}: **{c.value:.3f}**, {'met' if c.ok else 'missed'} (bar {c.bar:g})"
        for c in report.checks
    ]
    return "\n".join(
        [
            f"Made by `python -m benchmarks.scaling --publish`, from {len(model.runs)} runs.",
            "",
            markdown_table(["size", "fitted on", "held back"], ranges),
            "",
            markdown_table(
                ["stage", "figure", "formula", "held back, measured", "error"], formulas
            ),
            "",
            *checks,
        ]
    )


def forecast_section(lines: Sequence[Forecast]) -> str:
    """The estimates, as Markdown."""
    rows = [[f.what, f.where, f"{f.value:,.3g} {f.unit}", f.reckoned] for f in lines]
    return markdown_table(["what", "where", "estimate", "reckoned from"], rows)


def main(given: Sequence[str] | None = None, docs: Path = ROOT / "docs") -> int:
    """Measure, fit, predict; print the tables, the checks and the JSON line."""
    arguments = _arguments(given)
    fitted, held_back = scaling_sizes.FITTED, scaling_sizes.HELD_BACK
    if arguments.quick:
        fitted, held_back = scaling_sizes.TINY_FITTED, scaling_sizes.TINY_HELD_BACK
    *runs, last = measure((*fitted, held_back))
    report, model = Report(), Model(runs, last, fit(runs))
    show(model, report)
    lines = forecast(model.formulas)
    report.title("A thousand million interactions on 64 GPUs: estimates")
    for line in lines:
        report.row(str(line), section="forecast", **asdict(line))
    if arguments.publish:
        publish(model, lines, report, docs)
    report.title("Checks")
    return finish("scaling", report.checks, report.rows)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--publish", action="store_true", help="write docs/ (print only)")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
