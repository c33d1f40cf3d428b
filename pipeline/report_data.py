"""The report's data tables: what each domain holds, and what was refused and removed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report_formats import Figure, listed, pointer
from pipeline.report_order import domain_order

# What readers call the counts of data.json (pipeline/domain_report.py describes each), in the
# order in which cleaning makes them. A count that is not listed here is shown by its own name.
_COUNTS = {
    "rows_read": "Rows read",
    "rejected": "Rows refused",
    "interactions_read": "Interactions read",
    "removed_by_sampling": "Left out by max_users",
    "removed_duplicates": "Duplicates removed",
    "removed_by_length": "Removed as too long",
    "removed_by_kcore": "Removed by k-core",
    "kcore_rounds": "Rounds of k-core",
    "empty_texts": "Items without text",
    "html_texts": "Texts with HTML",
    "cut_texts": "Texts cut",
    "repeated_items": "Item rows repeated",
    "items_without_events": "Items nobody took",
}
_ALWAYS = ("rows_read", "rejected")
_HISTORY = ("shortest_history", "median_history", "mean_history", "longest_history")
_SHOWN_ELSEWHERE = {"source", "order", "size_group", "users", "items", "interactions", *_HISTORY}


@dataclass(frozen=True)
class DomainRow:
    """One domain: where it comes from and how large it is."""

    name: str
    source: str
    order: str
    group: str
    sizes: Sequence[Figure]  # users, items, interactions
    history: Mapping[str, float | None]  # "shortest", "median", "mean", "longest"


@dataclass(frozen=True)
class CountsTable:
    """What was refused and removed: a column for each count that is not 0 everywhere."""

    titles: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int | None]]]  # domain, counts
    none_of: str  # the counts that are 0 in every domain, listed; "" if there are none


@dataclass(frozen=True)
class Refused:
    """Refused rows of one domain: how many for which reason, and the first of them."""

    name: str
    reasons: Sequence[tuple[str, int]]
    first: Sequence[Mapping[str, Any]]  # "file", "line", "reason", "row"

    @property
    def total(self) -> int:
        """Refused rows in all."""
        return sum(count for _, count in self.reasons)


def domain_rows(metrics: Mapping[str, Any], data: Mapping[str, Any]) -> list[DomainRow]:
    """The domains of a run, large ones first."""
    rows = []
    for name in domain_order(metrics):
        domain, facts = metrics["domains"][name], data["domains"].get(name, {})
        sizes = [
            Figure(domain[key], pointer("domains", name, key), "count")
            for key in ("users", "items", "interactions")
        ]
        history = {key.removesuffix("_history"): facts.get(key) for key in _HISTORY}
        source, order = facts.get("source", "\u2013"), facts.get("order", "\u2013")
        rows.append(DomainRow(name, source, order, domain["size_group"], sizes, history))
    return rows


def counts_table(metrics: Mapping[str, Any], data: Mapping[str, Any]) -> CountsTable:
    """Every count of data.json, whether or not this version of the report knows its name."""
    domains = {name: _counts(data["domains"].get(name, {})) for name in domain_order(metrics)}
    present = {key for counts in domains.values() for key in counts}
    known = [key for key in _COUNTS if key in present]
    keys = [*known, *sorted(present - set(known))]
    shown = [
        key for key in keys if key in _ALWAYS or any(counts.get(key) for counts in domains.values())
    ]
    none_of = [_title(key).lower() for key in keys if key not in shown]
    return CountsTable(
        titles=[_title(key) for key in shown],
        rows=[(name, [counts.get(key) for key in shown]) for name, counts in domains.items()],
        none_of=listed(none_of) if none_of else "",
    )


def refused(metrics: Mapping[str, Any], data: Mapping[str, Any]) -> list[Refused]:
    """Domains of which rows were refused, with reasons and the first rows of the quarantine."""
    found = []
    for name in domain_order(metrics):
        facts = data["domains"].get(name, {})
        if reasons := facts.get("rejected"):
            often = sorted(reasons.items(), key=lambda reason: (-reason[1], reason[0]))
            found.append(Refused(name, often, facts.get("first_refused", ())))
    return found


def _counts(facts: Mapping[str, Any]) -> dict[str, int]:
    counts = {
        key: value
        for key, value in facts.items()
        if isinstance(value, int) and key not in _SHOWN_ELSEWHERE
    }
    return counts | {
        key: sum(value.values())
        for key, value in facts.items()
        if isinstance(value, Mapping) and all(isinstance(n, int) for n in value.values())
    }


def _title(key: str) -> str:
    return _COUNTS.get(key, key.replace("_", " ").capitalize())
