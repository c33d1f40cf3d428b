"""Clean one domain: raw tables in, a checked and counted Domain out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.artifacts import write_text
from pipeline.cleaning import CleaningConfig, CleaningSteps, clean_interactions, item_texts
from pipeline.sources import SourceConfig
from pipeline.sources.options import checked_name
from pipeline.sources.registry import read_source
from pipeline.sources.tables import Order, RawTables


class DomainConfig(BaseModel):
    """One domain: its name, where its data come from, what is kept of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the domain's name: a-z, 0-9, `_` and `-`; unique in a run")
    source: SourceConfig = Field(description="where the data come from")
    cleaning: CleaningConfig = Field(
        default_factory=lambda: CleaningConfig.model_validate({}),
        description="what is kept of the data",
    )

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, value: str) -> str:
        return checked_name(value, "the domain name")


@dataclass(frozen=True)
class DomainReport:
    """Counts of one domain: what came in, what went and why, what is left."""

    source: str
    order: Order
    rows_read: int
    rejected: Mapping[str, int]  # reason -> rows
    interactions_read: int
    removed_by_sampling: int  # interactions of users beyond max_users
    removed_duplicates: int  # events equal in user, item and time
    removed_by_length: int  # interactions of users beyond max_history
    removed_by_kcore: int  # interactions, with min_history
    users: int
    items: int
    interactions: int
    mean_history: float
    median_history: float
    empty_texts: int  # items left without a text
    items_without_events: int  # items of the source that nobody left interacts with
    repeated_items: int  # rows of items whose id stood there before


@dataclass(frozen=True)
class Domain:
    """One clean domain.

    interactions: user_id String, item_id String, timestamp Int64 (unix seconds; for order
        `sequence` the event's number in the user's row, from 0), sorted by user_id, timestamp
        and item_id.
    items: item_id String, text String (normalised, "" if none); exactly the items that have
        interactions, sorted by item_id.
    """

    name: str
    platform: str
    order: Order
    interactions: pl.DataFrame = field(repr=False)
    items: pl.DataFrame = field(repr=False)
    report: DomainReport


def build_domain(
    config: DomainConfig, data_root: Path, quarantine_dir: Path, *, seed: int = 0
) -> Domain:
    """Read and clean one domain.

    Rejected rows go to quarantine_dir/DOMAIN.jsonl, which is written only if there are any.

    Args:
        config: the domain.
        data_root: the folder that relative paths start from.
        quarantine_dir: made if absent.
        seed: of the choice of users under `max_users`; one for all domains of a run.

    Raises:
        ValueError: a file or column is absent, more rows are bad than max_bad_rows, or nothing
            is left after cleaning; the message says what, where and what to do.
    """
    raw = read_source(config.source, data_root)
    _quarantine(config, raw, quarantine_dir)
    steps = clean_interactions(
        config.cleaning,
        raw.interactions,
        raw.order,
        platform=config.source.platform,
        max_users=config.source.max_users,
        seed=seed,
    )
    interactions = steps.left.sort("user_id", "timestamp", "item_id")
    if interactions.is_empty():
        raise ValueError(_why_empty(config, steps))
    if raw.order == "sequence":
        number = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp")
        interactions = interactions.with_columns(number)
    items = item_texts(interactions, raw.items, config.cleaning.max_text_chars)
    report = _report(config, raw, steps, items)
    name, platform = config.name, config.source.platform
    return Domain(name, platform, raw.order, interactions, items, report)


def _quarantine(config: DomainConfig, raw: RawTables, folder: Path) -> None:
    if not raw.rejected:
        return
    path = folder / f"{config.name}.jsonl"
    rows = [
        {"file": row.file.name, "line": row.line, "reason": row.reason, "row": row.row}
        for row in raw.rejected
    ]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    allowed = config.cleaning.max_bad_rows
    if len(rows) > allowed:
        raise ValueError(
            f"domain {config.name}: {len(rows)} of {raw.rows_read} rows cannot be read, and "
            f"cleaning.max_bad_rows is {allowed}; the first is {raw.rejected[0]}; mend the file "
            "or raise max_bad_rows"
        )


def _report(
    config: DomainConfig, raw: RawTables, steps: CleaningSteps, items: pl.DataFrame
) -> DomainReport:
    lengths = steps.left.group_by("user_id").len()["len"].to_numpy()
    read, sampled, distinct, fitting, left = steps.heights()
    known = raw.items["item_id"].n_unique()
    return DomainReport(
        source=config.source.describe(),
        order=raw.order,
        rows_read=raw.rows_read,
        rejected=dict(sorted(Counter(row.reason for row in raw.rejected).items())),
        interactions_read=read,
        removed_by_sampling=read - sampled,
        removed_duplicates=sampled - distinct,
        removed_by_length=distinct - fitting,
        removed_by_kcore=fitting - left,
        users=len(lengths),
        items=items.height,
        interactions=left,
        mean_history=float(lengths.mean()),
        median_history=float(np.median(lengths)),
        empty_texts=int((items["text"] == "").sum()),
        items_without_events=raw.items.join(items, on="item_id", how="anti")["item_id"].n_unique(),
        repeated_items=raw.items.height - known,
    )


def _why_empty(config: DomainConfig, steps: CleaningSteps) -> str:
    read, sampled, distinct, fitting, left = steps.heights()
    if read == 0:
        return (
            f"domain {config.name}: {config.source.describe()} holds no interactions: check "
            "that it is the right file"
        )
    return (
        f"domain {config.name} is empty after cleaning: of {read} interactions {sampled} are left "
        f"after max_users, {distinct} without duplicates, {fitting} after max_history and {left} "
        f"after k_core {config.cleaning.k_core} and min_history {config.cleaning.min_history}: "
        "lower k_core and min_history, or raise max_users"
    )
