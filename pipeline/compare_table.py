"""The comparison of runs in the terminal: domains x models x runs, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.config_differences import FieldDifference, differing_fields
from pipeline.model_names import ORACLE, label
from pipeline.report_compare import stage_times, surroundings
from pipeline.report_differences import verdict
from pipeline.report_formats import ABSENT, duration
from pipeline.run_comparison import Run, RunComparison, RunDifference

_STAGES = 5  # the longest, of all runs
_WIDTH = 80
_MARKS = {"gain": ("\u25b2", "green"), "loss": ("\u25bc", "red"), "level": (" ", "")}


def compare_table(runs: Sequence[Run], comparisons: Sequence[RunComparison]) -> Group:
    """Everything that the terminal is told of a comparison.

    Args:
        runs: the first is what the others are compared with.
        comparisons: of each other run with the first.

    Returns:
        A rich renderable, at most 80 columns wide.
    """
    cards = [run.files.run for run in runs]
    names = [run.name for run in runs]
    parts: list[Table | Text] = []
    for found in comparisons:
        parts += [_results(found), *_notes(found)]
    fields = differing_fields([card.get("config") or {} for card in cards])
    parts += _fields("Config", names, fields, "The configs are equal in every field.")
    parts += _fields(
        "Software and hardware",
        names,
        surroundings(cards),
        "Revision, versions and hardware are equal.",
    )
    return Group(*parts, _times(runs))


def _results(comparison: RunComparison) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), width=_WIDTH)
    table.add_column("NDCG@10", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=14)
    for name in (comparison.first.name, comparison.other.name):
        table.add_column(Text(name), justify="right", overflow="fold", max_width=12)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    places = list(dict.fromkeys((row.place, row.is_group) for row in comparison.rows))
    for place, is_group in places:
        rows = [row for row in comparison.rows if row.place == place and row.model != ORACLE]
        for number, row in enumerate(rows):
            table.add_row(*_cells(row, place if number == 0 else ""), style="dim" * is_group)
        table.add_section()
    return table


def _cells(row: RunDifference, place: str) -> list[Text]:
    mark, colour, interval = " ", "", ABSENT
    if row.interval:
        low, high = row.interval.low, row.interval.high
        mark, colour = _MARKS[verdict((low, high))]
        interval = f"{low:+.4f} {high:+.4f}"
    return [
        Text(place),
        Text(label(row.model)),
        Text(f"{row.first:.4f}"),
        Text(f"{row.other:.4f}"),
        Text(f"{row.value:+.4f} {mark}", style=colour),
        Text(interval),
    ]


def _notes(comparison: RunComparison) -> list[Text]:
    first, other = comparison.first.name, comparison.other.name
    notes = [f"difference: {other} minus {first}; \u25b2 \u25bc interval above, below 0."]
    if comparison.unpaired:
        notes = [f"{other} minus {first}, without intervals, since {comparison.unpaired}."]
    return [Text(note, style="dim") for note in notes]


def _fields(
    title: str, names: Sequence[str], rows: Sequence[FieldDifference], none: str
) -> list[Table | Text]:
    if not rows:
        return [Text(none)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), width=_WIDTH)
    table.add_column(f"{title}: what differs", overflow="fold", ratio=2)
    for name in names:
        table.add_column(Text(name), overflow="fold", ratio=1)
    for row in rows:
        table.add_row(Text(row.field), *map(Text, row.values))
    return [table]


def _times(runs: Sequence[Run]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), width=_WIDTH)
    table.add_column("Time", no_wrap=True, overflow="ellipsis", ratio=2)
    for run in runs:
        table.add_column(Text(run.name), justify="right", overflow="fold", ratio=1)
    cards = [run.files.run for run in runs]
    table.add_row("in all", *(duration(card["seconds"]) for card in cards))
    for name, seconds in stage_times(cards)[:_STAGES]:
        table.add_row(Text(name), *map(duration, seconds), style="dim")
    return table
