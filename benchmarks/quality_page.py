"""A race in docs/: its cells as one JSON file, its chart, and its section of docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from benchmarks.harness import Check
from benchmarks.quality_chart import chart
from benchmarks.quality_summary import Clock
from benchmarks.quality_table import settings, table
from pipeline.results_page import put_section
from pipeline.whole_files import write_json, write_text

_CLOCKS: dict[Clock, str] = {
    "seconds": "Seconds are by the wall",
    "cpu_seconds": "Seconds are of CPU time, since other programs shared the core",
}
_CAUTION = (
    "Not trained to their end: {}. What is said against a SASRec among them holds for the best it "
    "has so far."
)


@dataclass(frozen=True)
class Race:
    """What is published of a race.

    Attributes:
        records: of the cells, all on the same data.
        rows: of the summary, one a record.
        checks: figures with bars.
        command: that made them.
        clock: that the table, the bars and the chart count.
    """

    records: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    checks: Sequence[Check]
    command: str
    clock: Clock = "seconds"

    @property
    def name(self) -> str:
        """Of its files and its section: the data's, and whose text vectors are read, if any."""
        texts = next((record["texts"] for record in self.records if record.get("texts")), None)
        encoder = "" if texts is None else f"_{texts['base']}"
        return f"time_to_quality_{self.records[0]['data']['name']}{encoder}"


def publish(docs: Path, race: Race) -> None:
    """Write results/NAME.json and results/NAME.svg below `docs`, and the section of results.md."""
    first, results = race.records[0], docs / "results"
    kept = {"command": race.command, "rows": race.rows, "cells": race.records}
    write_json(results / f"{race.name}.json", kept)
    title = f"{first['data']['name']}, strict split, seed {first['seed']}"
    write_text(results / f"{race.name}.svg", chart(race.records, title, race.clock))
    put_section(docs / "results.md", race.name, section(race))


def section(race: Race) -> str:
    """The section: what was run, the table, the bars, the chart, the settings."""
    first = race.records[0]
    data, hardware = first["data"], first["hardware"]
    notes = [note for row in race.rows if (note := _unfinished(row))]
    lines = [
        f"## Time to quality: {race.name.removeprefix('time_to_quality_').replace('_', ', ')}",
        "",
        f"`{race.command}`",
        "",
        f"{data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions; "
        f"strict split, length {data['split']['max_history']}, seen items masked, every user and "
        f"item ranked; NDCG@10 on validation, and on test at the best epoch; seed {first['seed']}; "
        f"{first['threads']} thread(s), {hardware['cores']} cores, {hardware['machine']}. The "
        f"models take turns, an epoch each. {_CLOCKS[race.clock]}, of training alone; a share is "
        "of what the model whose best it is needed itself. A curve goes on from call to call, so "
        "it may have come further than the --epochs of this one.",
        "",
        *table(race.rows, race.clock),
        "",
        *([_CAUTION.format("; ".join(notes)), ""] if notes else []),
        *_encoding(race.records),
        *[f"* {c.name}: {_verdict(c)} (bar {c.bar:g})" for c in race.checks],
        "",
        f"![NDCG@10 against seconds and against parameters](results/{race.name}.svg)",
        "",
        *settings(race.records),
    ]
    return "\n".join(lines)


def _encoding(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the text vectors cost, if a model of the race reads them: a line and an empty one."""
    cost = next((record["texts"] for record in records if record.get("texts")), None)
    if cost is None:
        return []
    return [
        f"Text vectors are of {cost['base']}, not tuned: {cost['texts']:,} distinct texts, encoded "
        f"once in {cost['seconds']:.1f} s ({cost['cpu_seconds']:.1f} s of CPU time), the encoder's "
        "loading included. That is on no clock of the table. The id vectors of `hydra_text` begin "
        "as their whitened principal components.",
        "",
    ]


def _unfinished(row: Mapping[str, Any]) -> str | None:
    if row["state"] != "training":
        return None
    return f"`{row['model']}` ({row['epochs']} of {row['of_epochs']} epochs)"


def _verdict(check: Check) -> str:
    if isnan(check.value):
        return "**not reached**"
    return f"**{check.value:.3g}**, {'met' if check.ok else 'missed'}"
