"""A race in docs/: its cells as one JSON file, its chart, and its section of docs/results.md.

A section stands between two comments that carry its name, and only what is between them is
replaced, so that other sections of the page stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Check
from benchmarks.quality_chart import chart
from benchmarks.quality_summary import Clock
from pipeline.artifacts import write_json, write_text

Row = Mapping[str, Any]

_HEAD = "# Results\n\nEvery section is made by the command that it names.\n"


def publish(
    docs: Path,
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    checks: Sequence[Check],
    command: str,
    clock: Clock = "seconds",
) -> None:
    """Write results/NAME.json and results/NAME.svg below `docs`, and the section of results.md.

    Args:
        docs: the folder of the documentation.
        records: of the cells, all on the same data.
        rows: of the summary, one a record.
        checks: figures with bars.
        command: that made them.
        clock: that the bars and the chart count.
    """
    name = f"time_to_quality_{records[0]['data']['name']}"
    write_json(
        docs / "results" / f"{name}.json", {"command": command, "rows": rows, "cells": records}
    )
    title = f"{records[0]['data']['name']}, strict split, seed {records[0]['seed']}"
    write_text(docs / "results" / f"{name}.svg", chart(records, title, clock))
    page = docs / "results.md"
    before = page.read_text(encoding="utf-8") if page.exists() else _HEAD
    text = section(name, records, rows, checks, command)
    write_text(page, with_section(before, name, text))


def with_section(page: str, name: str, text: str) -> str:
    """The page with the section of this name replaced, or added at its end."""
    begin, end = f"<!-- {name}: begin, generated -->", f"<!-- {name}: end -->"
    block = f"{begin}\n{text.strip()}\n{end}"
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if found.search(page):
        return found.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def section(
    name: str,
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    checks: Sequence[Check],
    command: str,
) -> str:
    """The section: what was run, the table, the bars, the chart."""
    data, hardware = records[0]["data"], records[0]["hardware"]
    notes = [note for row in rows if (note := _unfinished(row))]
    lines = [
        f"## Time to quality: {data['name']}",
        "",
        f"`{command}`",
        "",
        f"{data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions; "
        f"strict split, length {data['split']['max_history']}, seen items masked, every user and "
        f"item ranked; seed {records[0]['seed']}, {records[0]['threads']} thread(s) of a machine "
        f"with {hardware['cores']} cores, {hardware['machine']}. Epochs alternate; seconds are of "
        "training alone, shares of what the reference needed to its own best.",
        "",
        *table(rows),
        "",
        *(["Not trained to their end: " + "; ".join(notes) + ".", ""] if notes else []),
        *[f"* {c.name}: **{c.value:.3g}** (bar {c.bar:g}{_verdict(c)})" for c in checks],
        "",
        f"![NDCG@10 against seconds and against parameters](results/{name}.svg)",
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """The summary's rows as lines of a Markdown table; a dash where a quality was not reached."""
    names = [key.removesuffix("_seconds_share") for key in rows[0] if _is_share(key)]
    heads = ["model", "parameters", "non-embedding", "epochs", "s/epoch", "best (epoch)", "test"]
    heads += [f"s to {name.replace('_', ' ')} (share; CPU)" for name in names]
    lines = [heads, ["---"] * len(heads)]
    lines += [[*_head(row), *_times(row, names)] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _is_share(key: str) -> bool:
    return key.endswith("_seconds_share") and not key.endswith("_cpu_seconds_share")


def _head(row: Row) -> list[str]:
    test = row["test_ndcg@10"]
    return [
        f"`{row['model']}`",
        f"{row['parameters']:,}",
        f"{row['non_embedding']:,}",
        f"{row['epochs']} of {row['of_epochs']}",
        f"{row['seconds'] / row['epochs']:.2f}",
        f"{row['best_ndcg@10']:.4f} ({row['best_epoch']})",
        "-" if test is None else f"{test:.4f}",
    ]


def _times(row: Row, names: Sequence[str]) -> list[str]:
    return [
        "-"
        if row[f"{name}_seconds"] is None
        else f"{row[f'{name}_seconds']:.1f} ({row[f'{name}_seconds_share']:.1%}; "
        f"{row[f'{name}_cpu_seconds_share']:.1%})"
        for name in names
    ]


def _unfinished(row: Row) -> str | None:
    if row["state"] != "training":
        return None
    return f"`{row['model']}` ({row['epochs']} of {row['of_epochs']} epochs)"


def _verdict(check: Check) -> str:
    return ", met" if check.ok else ", **missed**"
