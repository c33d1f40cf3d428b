"""The page that compares runs: what differs in results, settings and times, against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config_differences import ABSENT, FieldDifference, differing_fields
from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, ORACLE, in_order, label
from pipeline.report import page
from pipeline.report_differences import Difference, plot_limit, verdict
from pipeline.report_formats import Figure, listed, pointer
from pipeline.report_results import GROUP_TITLES, Interval, span
from pipeline.run_comparison import Run, RunComparison, RunDifference


@dataclass(frozen=True)
class ComparedRow:
    """A domain or group: the figure in the first run and in the other, and the difference."""

    first: Figure
    other: Figure
    difference: Difference | None  # None where the runs cannot be paired
    title: str
    is_group: bool
    plain: str  # the difference as text


@dataclass(frozen=True)
class ComparedModel:
    """One model in two runs."""

    label: str
    rows: Sequence[ComparedRow]


@dataclass(frozen=True)
class ComparedPair:
    """One run against the first."""

    name: str
    unpaired: str | None
    models: Sequence[ComparedModel]
    same: str  # models whose every figure is equal, listed


def render(runs: Sequence[Run], comparisons: Sequence[RunComparison]) -> str:
    """A whole HTML document.

    Args:
        runs: two or more; the first is what the others are compared with.
        comparisons: of each other run with the first, in the same order.
    """
    cards = [run.files.run for run in runs]
    return page(
        "report_compare.html.j2",
        runs=runs,
        finding=sentence(comparisons[0]),
        pairs=[_pair(number, found) for number, found in enumerate(comparisons, 1)],
        fields=differing_fields([card.get("config") or {} for card in cards]),
        surroundings=surroundings(cards),
        times=stage_times(cards),
    )


def sentence(comparison: RunComparison) -> str:
    """What the first comparison says of the joint model, or of the last one that both have."""
    rows = [row for row in comparison.rows if not row.is_group and row.model != ORACLE]
    names = (comparison.other.name, comparison.first.name)
    if not rows:
        return f"{names[0]} and {names[1]} have no model in common in any domain."
    models = in_order({row.model for row in rows})
    model = JOINT if JOINT in models else models[-1]
    rows = [row for row in rows if row.model == model]
    if all(row.first == row.other for row in rows):
        return f"{label(model)} of {names[0]} and of {names[1]} score the same in every domain."
    start = f"{label(model)} of {names[0]} against {names[1]}:"
    if comparison.unpaired:
        higher = sum(row.value > 0 for row in rows)
        return f"{start} higher in {higher} of {len(rows)} domains, but without intervals."
    verdicts = [_verdict(row) for row in rows]
    words = {"gain": "better", "loss": "worse", "level": "no clear difference"}
    parts = [
        f"{text} in {verdicts.count(key)} of {len(rows)}"
        for key, text in words.items()
        if key in verdicts
    ]
    return f"{start} {listed(parts)} domain{'s' * (len(rows) > 1)}."


def surroundings(cards: Sequence[Mapping[str, Any]]) -> list[FieldDifference]:
    """What differs beside the config: revision, versions, hardware."""
    return differing_fields(
        [
            {key: card.get(key) or ABSENT for key in ("git", "versions", "hardware")}
            for card in cards
        ]
    )


def stage_times(cards: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float | None]]]:
    """Seconds that each stage took when it was made, in each run; None where a run lacks it."""
    times = [
        {
            stage["name"]: stage.get("made_in_seconds") or stage["seconds"]
            for stage in card["stages"]
        }
        for card in cards
    ]
    names = dict.fromkeys(name for each in times for name in each)
    rows = [(name, [each.get(name) for each in times]) for name in names]
    return sorted(rows, key=lambda row: -max(value or 0.0 for value in row[1]))


def _pair(number: int, comparison: RunComparison) -> ComparedPair:
    rows = [row for row in comparison.rows if row.model != ORACLE]
    models = in_order({row.model for row in rows})
    same = [m for m in models if all(row.first == row.other for row in rows if row.model == m)]
    limit = plot_limit(_bounds(row) for row in rows if row.interval)
    return ComparedPair(
        name=comparison.other.name,
        unpaired=comparison.unpaired,
        models=[
            ComparedModel(
                label(model), [_row(number, row, limit) for row in rows if row.model == model]
            )
            for model in reversed(models)
            if model not in same
        ],
        same=listed([label(model) for model in same]) if same else "",
    )


def _row(number: int, row: RunDifference, limit: float) -> ComparedRow:
    where = ("groups", row.place) if row.is_group else ("domains", row.place, "models")
    title = GROUP_TITLES[row.place] if row.is_group else row.place
    found = Figure(row.value, "", "signed")
    difference = None
    if row.interval:
        low, high = (Figure(bound, "", "signed") for bound in _bounds(row))
        places = span(Interval(found, low, high), -limit, limit)
        difference = Difference(title, "", places, _verdict(row), row.is_group)
    return ComparedRow(
        first=Figure(row.first, pointer(0, *where, row.model, COMPARED_BY)),
        other=Figure(row.other, pointer(number, *where, row.model, COMPARED_BY)),
        difference=difference,
        title=title,
        is_group=row.is_group,
        plain=found.text,
    )


def _verdict(row: RunDifference) -> str:
    return verdict(_bounds(row))


def _bounds(row: RunDifference) -> tuple[float, float]:
    assert row.interval is not None, "only paired differences have bounds"
    return row.interval.low, row.interval.high
