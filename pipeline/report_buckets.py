"""The report's buckets: the same models, for users with short histories, cold targets and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.model_names import JOINT, in_order, label
from pipeline.report_differences import difference, verdict
from pipeline.report_formats import Figure, pointer
from pipeline.report_order import by_size
from pipeline.report_results import Interval, Metrics, interval

_TITLES = {
    "history": ("Length of the history", "Events of the domain before the target"),
    "item": (
        "What was taken next",
        "Cold: an item without training events; head: the most taken items, which hold half of "
        "the training events; tail: the others",
    ),
    "taken": (
        "How often the next item was taken before",
        "Training events, of all people, of the item that was taken next: what the curves show",
    ),
    "tie": (
        "Ties in time",
        "Tied: the target has the time of the event before it, so that the data do not say which "
        "came first",
    ),
    "person": ("Shared people", "Shared: people with training events in other domains too"),
}


@dataclass(frozen=True)
class BucketRow:
    """The users of one bucket in one domain; of too few users there are no figures."""

    domain: str
    bucket: str
    users: Figure
    values: Sequence[Interval | None]  # of each model of the table
    delta: Interval | None
    verdict: str


@dataclass(frozen=True)
class BucketTable:
    """One way to split users, in every domain."""

    title: str
    note: str
    models: Sequence[str]
    rows: Sequence[BucketRow]
    has_delta: bool


def bucket_tables(metrics: Metrics) -> list[BucketTable]:
    """A table for each group of buckets; none in a run of a version that had no buckets."""
    domains = metrics["domains"]
    groups = {group: None for domain in domains.values() for group in domain.get("buckets", {})}
    models = in_order({model for domain in domains.values() for model in domain["models"]})
    tables = []
    for group in sorted(groups, key=[*_TITLES, *groups].index):
        rows = [
            _row(metrics, name, group, bucket, models)
            for name in by_size(metrics)
            for bucket in in_reading_order(domains[name].get("buckets", {}).get(group, {}))
        ]
        title, note = _TITLES.get(group, (group, ""))
        has_delta = any(row.delta for row in rows)
        tables.append(BucketTable(title, note, [label(m) for m in models], rows, has_delta))
    return tables


def _row(
    metrics: Metrics, domain: str, group: str, bucket: str, models: Sequence[str]
) -> BucketRow:
    where = ("domains", domain, "buckets", group, bucket)
    found: Mapping[str, Any] = metrics["domains"][domain]["buckets"][group][bucket]
    delta = found["deltas"].get(JOINT)
    return BucketRow(
        domain,
        bucket,
        Figure(found["users"], pointer(*where, "users"), "count"),
        [
            interval(metrics, (*where, "models", model)) if model in found["models"] else None
            for model in models
        ],
        difference(delta, (*where, "deltas", JOINT)) if delta else None,
        verdict(delta["ci95"]) if delta else "level",
    )


def in_reading_order(buckets: Mapping[str, Any]) -> list[str]:
    """metrics.json is sorted by name; readers want 6-20 before 51+, and cold, tail, head."""
    known = ["cold", "tail", "head", "tied", "untied"]
    return sorted(
        buckets, key=lambda name: (_least(name), known.index(name) if name in known else 99, name)
    )


def _least(bucket: str) -> int:
    """The least number of a bucket of numbers such as 6-20 or 51+; 0 of others."""
    first = bucket.rstrip("+").split("-")[0]
    return int(first) if first.isdecimal() else 0
