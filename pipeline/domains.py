"""Clean one domain: raw tables in, a checked and counted Domain out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.cleaning import CleaningConfig, clean_interactions
from pipeline.domain_report import DomainReport, TextCounts, domain_report, why_empty
from pipeline.item_texts import best_texts
from pipeline.quarantine import Quarantine
from pipeline.sources import SourceConfig
from pipeline.sources.options import checked_name
from pipeline.sources.registry import read_source
from pipeline.sources.tables import Order


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
    cleaning, source = config.cleaning, config.source
    raw = read_source(source, data_root).whole()
    with Quarantine(quarantine_dir, config.name, cleaning.max_bad_rows) as quarantine:
        quarantine.take(raw.rows_read, raw.rejected)
    left, steps = clean_interactions(
        cleaning,
        raw.interactions,
        raw.order,
        platform=source.platform,
        max_users=source.max_users,
        seed=seed,
    )
    if left.is_empty():
        raise ValueError(why_empty(config.name, source.describe(), cleaning, steps))
    interactions = left.sort("user_id", "timestamp", "item_id")
    if raw.order == "sequence":
        number = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp")
        interactions = interactions.with_columns(number)
    items, texts = _items(interactions, raw.items, cleaning.max_text_chars)
    report = domain_report(
        source.describe(),
        raw.order,
        rows_read=quarantine.rows_read,
        rejected=quarantine.counts(),
        steps=steps,
        lengths=interactions["user_id"].rle().struct["len"].to_numpy(),
        n_items=items.height,
        texts=texts,
    )
    return Domain(config.name, source.platform, raw.order, interactions, items, report)


def _items(
    interactions: pl.DataFrame, raw: pl.DataFrame, max_chars: int
) -> tuple[pl.DataFrame, TextCounts]:
    needed = interactions.select(pl.col("item_id").unique().sort())
    best = best_texts(raw.join(needed, on="item_id", how="semi"), "item_id", max_chars)
    joined = needed.join(best, on="item_id", how="left", maintain_order="left")
    items = joined.select("item_id", pl.col("text").fill_null(""))
    counts = TextCounts(
        empty=int((items["text"] == "").sum()),
        html=int(joined["html"].sum()),
        cut=int(joined["cut"].sum()),
        without_events=raw.join(needed, on="item_id", how="anti")["item_id"].n_unique(),
        repeated=raw.height - raw["item_id"].n_unique(),
    )
    return items, counts
