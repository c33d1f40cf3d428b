#!/usr/bin/env python
"""Run a study: one model with a few settings changed at a time, a table out.

    python jobs/study.py recipe                 # configs/studies/recipe.yaml
    python jobs/study.py recipe --cells full no_ema --seeds 0 1 2
    python jobs/study.py poor_text              # whole runs, with item texts

Each cell's figures go to docs/results/STUDY.CELL.json as they are there, and
the table to docs/results.md or docs/studies/STUDY.md. Finished cells are not
run again, and after Ctrl-C or a crash the same command goes on where it stood.
Only studies of whole runs (kind: runs) start a Ray.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line import finished, job_parser
from pipeline.paths import data_root, project_root, resolve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    return finished(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    from pipeline.strict_yaml import load_mapping

    options = _parser().parse_args(arguments)
    root = project_root()
    path = _study_file(options.study, root)
    kinds = {"profile": _profile, "runs": _runs}
    run = kinds.get(str(load_mapping(path).get("kind")), _run)
    run(options, path, resolve(options.out, root), root)


def _run(options: argparse.Namespace, path: Path, out: Path, root: Path) -> None:
    """Train and rank the cells of a study."""
    from pipeline.study_cells import StudyRun
    from pipeline.study_config import load_study

    study = load_study(path)
    cells = [study.cell(name) for name in options.cells or [cell.name for cell in study.cells]]
    work = root / "runs" / "studies" / study.name
    run = StudyRun(study, out / "results", work, data_root(), _tell)
    page_command = f"python jobs/study.py {options.study}"
    for cell in [] if options.table else cells:
        seeds = tuple(options.seeds or study.seeds)
        result = run.run(cell, seeds, f"{page_command} --cells {cell.name}")
        figures = "  ".join(f"{m} {result.mean(m):.4f}" for m in study.metrics)
        _tell(f"{cell.name}: {figures}")
        run.write_page(out, page_command)
    run.write_page(out, page_command)


def _runs(options: argparse.Namespace, path: Path, out: Path, root: Path) -> None:
    """Go through all stages of a run for each cell and seed."""
    from pipeline.progress import Progress
    from pipeline.run_study import RunStudy, load_run_study
    from pipeline.run_study_page import write_run_study_page

    study, command = load_run_study(path), f"python jobs/study.py {options.study}"
    cells = [study.cell(name) for name in options.cells or [cell.name for cell in study.cells]]
    run = RunStudy(study, out / "results", root / "runs" / "studies" / study.name)
    for cell in [] if options.table else cells:
        for seed in options.seeds or study.seeds:
            run.run(cell, seed, f"{command} --cells {cell.name}", Progress)
            write_run_study_page(out, study, run.finished(), command)
    if finished := run.finished():
        _tell(f"page: {write_run_study_page(out, study, finished, command)}")


def _profile(options: argparse.Namespace, path: Path, out: Path, root: Path) -> None:
    """Measure the models of a profile at each length that its file of results lacks."""
    from pipeline.profile_page import read_measured, write_measured, write_profile_page
    from pipeline.profile_study import load_profile, measure

    if options.cells or options.seeds:
        raise ValueError("--cells, --seeds: a profile has neither; leave them out")
    config, command = load_profile(path), f"python jobs/study.py {options.study}"
    file = out / "results" / f"{config.name}.json"
    measured = read_measured(file, config)
    done = {(row.model, row.length) for row in measured}
    for length in [] if options.table else config.lengths:
        # The models take turns at a length, so that a slow hour hits all of them.
        for model in config.models:
            if (model, length) not in done:
                measured.append(measure(config, model, length))
                _tell(f"{model}, {length} events: {measured[-1].microseconds:.2f} us an event")
                write_measured(file, config, measured, command)
    if measured:
        write_profile_page(out, config, measured, command)


def _tell(line: str) -> None:
    print(line, flush=True)


def _study_file(name: str, root: Path) -> Path:
    """A study's file: one of configs/studies by its name, or a path."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return resolve(name, root)
    path = root / "configs" / "studies" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ValueError(f"study: got {name!r}, expected {', '.join(known)}, or a path")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/study.py", __doc__)
    parser.add_argument("study", help="a study of configs/studies by its name, or a YAML file")
    parser.add_argument(
        "--cells", nargs="+", metavar="CELL", help="cells to run (default: all, in order)"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="seeds (default: the study's)"
    )
    parser.add_argument(
        "--out",
        default="docs",
        metavar="DIR",
        help="folder of results.md, studies/ and results/, relative to the project (default: docs)",
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing, make the table again (default: run)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
