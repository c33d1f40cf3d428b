"""Seconds and parameters that each model needs to reach SASRec's own best quality.

    python -m benchmarks.time_to_quality --data ids/Beauty [--models NAME ...] [--epochs 60]

SASRec as published, SASRec with sampled softmax and Hydra at several sizes train in one process, an
epoch each in turn, so that the machine's noise hits all alike; each has its own clock, which stops
while it is validated. NAME is a model, or one with fields: `hydra:dim=24,ffn_dim=24,epochs=12`
(benchmarks/quality_rivals.py); `epochs` there is the length of the schedule, `--epochs` where this
run stops. `hydra_text` reads the items' texts (`--data amazon2014/beauty`). Quality is NDCG@10 on
all validation targets, strict split, full ranking, seen masked.

Each curve is one file below --out and goes on where it stopped: run the command again, with more
epochs or other models. `--publish` writes docs/results/, and the section of docs/results.md. Exit
status 1 where a figure misses its bar. `--quick` runs made-up data: no figure means anything.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.harness import finish
from benchmarks.quality_cells import Cell
from benchmarks.quality_data import RaceData, find_data
from benchmarks.quality_page import Race, publish
from benchmarks.quality_rivals import DEFAULT_RIVALS, TEXT_KIND, Rival
from benchmarks.quality_summary import checks, row, targets, validated
from benchmarks.quality_table import table
from pipeline.paths import data_root, project_root

_QUICK_RIVALS = (
    "sasrec_bce:dim=16,epochs=3",
    "sasrec_ss:dim=16,epochs=3",
    "hydra:dim=8,epochs=3",
    "hydra:dim=16,epochs=3",
)


def main(given: Sequence[str] | None = None) -> int:
    """Race, print the table and the JSON line; return the exit status."""
    options = _options(given)
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as name:
        work = Path(name)
        try:
            cells = _prepared(options, work)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        run_race(cells, options.epochs)
        for cell in cells:
            cell.test()
    records = [cell.record for cell in cells if validated(cell.record)]
    wanted = targets(records)
    rows = [row(record, wanted) for record in records]
    found = checks(records, options.clock)
    print("\n".join(["", *table(rows, options.clock), ""]))
    if options.publish:
        race = Race(records, rows, found, _command(given), options.clock)
        publish(project_root() / "docs", race)
    return finish("time_to_quality", found, [*rows, *_configs(records)])


def run_race(cells: Sequence[Cell], epochs: int | None) -> None:
    """Train all cells to their ends, or to so many epochs: an epoch each in turn."""
    running = [cell for cell in cells if not _done(cell, epochs)]
    for cell in running:
        cell.warm_up()
    while running:
        for cell in running:
            point = cell.advance()
            print(_line(cell, point), flush=True)
        running = [cell for cell in running if not _done(cell, epochs)]


def _line(cell: Cell, point: dict[str, Any]) -> str:
    quality = "" if point["ndcg@10"] is None else f"{point['ndcg@10']:.4f}"
    return (
        f"{cell.rival.name:28} epoch {point['epoch']:3}  loss {point['loss']:.3f}  ndcg@10 "
        f"{quality:6}  {point['seconds']:7.1f} s  {point['cpu_seconds']:7.1f} s CPU"
    )


def _done(cell: Cell, epochs: int | None) -> bool:
    return cell.ended or (epochs is not None and cell.epochs >= epochs)


def _prepared(options: argparse.Namespace, work: Path) -> list[Cell]:
    names = options.models or (_QUICK_RIVALS if options.quick else DEFAULT_RIVALS)
    rivals = [Rival.parse(name) for name in dict.fromkeys(names)]
    path = _made_up(work) if options.quick else find_data(options.data, options.root or data_root())
    data = RaceData.prepare(path, work / "corpus", options.seed)
    out = options.out or (work / "out" if options.quick else _default_out(data, options.seed))
    out.mkdir(parents=True, exist_ok=True)
    texts = out / f"texts-{options.text}"
    if any(rival.kind == TEXT_KIND for rival in rivals):
        data = data.with_texts(options.text, texts)
    # Curves that read texts lie beside their vectors: those of another encoder are others.
    return [
        Cell(rival, data, texts if rival.kind == TEXT_KIND else out, options.seed)
        for rival in rivals
    ]


def _default_out(data: RaceData, seed: int) -> Path:
    return project_root() / "runs" / "time_to_quality" / f"{data.name}-{seed}"


def _made_up(folder: Path) -> Path:
    """80 users who each walk on through 40 items in a circle."""
    file = folder / "circle.txt"
    walks = [[(3 * user + step) % 40 for step in range(5 + user % 7)] for user in range(80)]
    lines = (" ".join([f"u{user}", *(f"i{i}" for i in walk)]) for user, walk in enumerate(walks))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _configs(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings of each model, as rows of the JSON line."""
    kept = ("name", "config", "config_hash", "seed", "data")
    return [{"section": "config", **{key: record[key] for key in kept}} for record in records]


def _command(given: Sequence[str] | None) -> str:
    arguments = sys.argv[1:] if given is None else given
    return shlex.join(["python", "-m", "benchmarks.time_to_quality", *arguments])


def _options(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality",
        description="seconds and parameters that each model needs to reach SASRec's own best",
    )
    parser.add_argument(
        "--data", default="ids/Beauty",
        help="file of ids, or folder with texts: a path, or a name below --root (ids/Beauty)",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, help="folder of data (HYDRAREC_DATA)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="models, with fields or not")
    parser.add_argument("--text", default="minilm", help="encoder of hydra_text: minilm, static")
    parser.add_argument("--epochs", type=int, help="stop each after so many (to its end)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches, negatives (0)")
    parser.add_argument(
        "--out", type=Path, help="folder of the curves (runs/time_to_quality/DATA-SEED)"
    )
    parser.add_argument(
        "--clock", choices=("seconds", "cpu_seconds"), default="seconds",
        help="what the bars and the chart count; cpu_seconds where the core is shared (seconds)",
    )  # fmt: skip
    parser.add_argument("--publish", action="store_true", help="write docs/results")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser.parse_args(given)


if __name__ == "__main__":
    raise SystemExit(main())
