"""The report's differences: the joint model minus another, by domain and group, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, in_order, label
from pipeline.report_formats import Figure, Kind, pointer
from pipeline.report_order import by_size
from pipeline.report_results import GROUP_TITLES, Interval, Metrics, Span, at, members, span

# title, note, where the difference stands in metrics.json, whether it is a group's
_Row = tuple[str, str, tuple[str, ...], bool]


@dataclass(frozen=True)
class Sizes:
    """How large a difference is, and how likely chance made it; None: not known of this one."""

    users: Figure | None = None
    relative: Figure | None = None
    effect: Figure | None = None
    p: Figure | None = None
    p_holm: Figure | None = None


@dataclass(frozen=True)
class Difference:
    """One model minus another in one domain, or over a group."""

    title: str
    note: str
    span: Span
    verdict: str  # "gain", "loss" or "level"
    is_group: bool
    sizes: Sizes = Sizes()


def transfers(metrics: Metrics) -> list[Difference]:
    """Joint minus single, by domain size and then by group, on one scale around 0."""
    rows: list[_Row] = []
    for name in by_size(metrics):
        domain = metrics["domains"][name]
        if domain["deltas"]:
            note = f"{domain['interactions']:,} interactions"
            rows.append((name, note, ("domains", name, "deltas", JOINT), False))
    if len(rows) > 1:
        rows += _group_rows(metrics, "group_deltas", JOINT)
    return _differences(metrics, rows)


def comparisons(metrics: Metrics) -> list[tuple[str, list[Difference]]]:
    """Joint minus each other model: the model's label, and its differences by domain size."""
    found = []
    compared = {
        other
        for domain in metrics["domains"].values()
        for other in domain["comparisons"].get(JOINT, {})
    }
    for other in in_order(compared):
        rows: list[_Row] = [
            (name, "", ("domains", name, "comparisons", JOINT, other), False)
            for name in by_size(metrics)
            if other in metrics["domains"][name]["comparisons"].get(JOINT, {})
        ]
        if len(rows) > 1:
            rows += _group_rows(metrics, "group_comparisons", other)
        found.append((label(other), _differences(metrics, rows)))
    return found


def _group_rows(metrics: Metrics, table: str, model: str) -> list[_Row]:
    """Rows of the groups of several domains, of which a table of metrics.json has a difference."""
    rows: list[_Row] = []
    for group in ("large", "small", "all"):
        size, found = len(members(metrics, group)), metrics.get(table, {}).get(group, {})
        if size > 1 and model in found:
            rows.append((GROUP_TITLES[group], f"mean of {size}", (table, group, model), True))
    return rows


def verdict(bounds: Sequence[float]) -> str:
    """What an interval says: "gain" above 0, "loss" below 0, else "level".

    >>> verdict([0.1, 0.2]), verdict([-0.2, -0.1]), verdict([-0.1, 0.0])
    ('gain', 'loss', 'level')
    """
    low, high = bounds
    return "gain" if low > 0 else "loss" if high < 0 else "level"


def plot_limit(bounds: Iterable[Sequence[float]]) -> float:
    """Where a plot around 0 ends on both sides, so that all these intervals fit."""
    return 1.04 * max((abs(bound) for pair in bounds for bound in pair), default=0.0) or 1.0


def _differences(metrics: Metrics, rows: Sequence[_Row]) -> list[Difference]:
    found = [at(metrics, where) for _, _, where, _ in rows]
    limit = plot_limit(delta["ci95"] for delta in found)
    return [
        Difference(
            title,
            note,
            span(difference(delta, where), -limit, limit),
            verdict(delta["ci95"]),
            is_group,
            _sizes(metrics, delta, where),
        )
        for delta, (title, note, where, is_group) in zip(found, rows, strict=True)
    ]


def _sizes(metrics: Metrics, delta: Mapping[str, Any], where: tuple[str, ...]) -> Sizes:
    def figure(name: str, kind: Kind = "plain") -> Figure | None:
        # An older version's run lacks them; a mean over domains has no p_holm and no effect size.
        value = delta.get(name)
        return None if value is None else Figure(value, pointer(*where, name), kind)

    users = ("domains", where[1], "evaluated_users")
    return Sizes(
        Figure(at(metrics, users), pointer(*users), "count") if where[0] == "domains" else None,
        figure("relative", "change"),
        figure("effect_size", "signed"),
        figure("p"),
        figure("p_holm"),
    )


def difference(delta: Mapping[str, Any], where: Sequence[str]) -> Interval:
    """A difference that stands at `where`, as {"ndcg@10": d, "ci95": [low, high]}."""
    kind: Kind = "signed"
    low, high = delta["ci95"]
    return Interval(
        Figure(delta[COMPARED_BY], pointer(*where, COMPARED_BY), kind),
        Figure(low, pointer(*where, "ci95", 0), kind),
        Figure(high, pointer(*where, "ci95", 1), kind),
    )
