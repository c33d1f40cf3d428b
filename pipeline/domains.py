"""Clean one domain: raw tables in, a checked and counted Domain out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.artifacts import write_text
from pipeline.sources import SourceConfig
from pipeline.sources.options import checked_name
from pipeline.sources.registry import read_source
from pipeline.sources.tables import Order, RawTables
from pipeline.sources.text import cut_text, normalise_text
from pipeline.stable_hash import hash_text, hash_texts, mixed


class CleaningConfig(BaseModel):
    """What is kept of a domain; by default all. Our choice [D]: the field's custom is a 5-core."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k_core: int = Field(
        1,
        ge=1,
        description="remove users and items with fewer interactions than this, again and again "
        "until none is left to remove; 1 removes nothing",
    )
    min_history: int = Field(
        1, ge=1, description="remove users with fewer interactions than this (with the k-core)"
    )
    max_history: int | None = Field(
        None,
        ge=1,
        description="remove users with more interactions than this, such as robots, before the "
        "k-core; null: nobody",
    )
    max_text_chars: int = Field(
        2000, ge=1, description="cut an item's text after this many characters, at a space"
    )
    max_bad_rows: int = Field(
        0,
        ge=0,
        description="stop if more rows than this cannot be read; those below it are listed in "
        "quarantine/DOMAIN.jsonl with file, line and reason",
    )

    @model_validator(mode="after")
    def _lengths_leave_somebody(self) -> CleaningConfig:
        least = max(self.k_core, self.min_history)
        if self.max_history is not None and self.max_history < least:
            raise ValueError(
                f"max_history {self.max_history} removes every user that k_core and min_history "
                f"keep ({least} interactions or more): raise it or lower them"
            )
        return self


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
    stages = _cleaned(config, raw.interactions, raw.order, seed)
    interactions = stages[-1].sort("user_id", "timestamp", "item_id")
    if interactions.is_empty():
        raise ValueError(_why_empty(config, stages))
    if raw.order == "sequence":
        number = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp")
        interactions = interactions.with_columns(number)
    items = _texts(interactions, raw.items, config.cleaning.max_text_chars)
    report = _report(config, raw, stages, items)
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


def _cleaned(
    config: DomainConfig, interactions: pl.DataFrame, order: Order, seed: int
) -> list[pl.DataFrame]:
    """The interactions as read, and after each of the four steps of cleaning."""
    cleaning = config.cleaning
    stages = [interactions]
    stages.append(_sampled(interactions, config.source.platform, config.source.max_users, seed))
    # Without times an event done twice is no duplicate: it may well have happened twice.
    stages.append(stages[-1].unique() if order == "time" else stages[-1])
    longest = cleaning.max_history
    fits = pl.lit(True) if longest is None else pl.len().over("user_id") <= longest
    stages.append(stages[-1].filter(fits))
    least = max(cleaning.k_core, cleaning.min_history)
    stages.append(k_core(stages[-1], user_events=least, item_events=cleaning.k_core))
    return stages


def _sampled(
    interactions: pl.DataFrame, platform: str, max_users: int | None, seed: int
) -> pl.DataFrame:
    users = interactions["user_id"].unique()
    if max_users is None or len(users) <= max_users:
        return interactions
    rank = mixed(seed, hash_text(platform), hash_texts(users))
    kept = users.gather(np.argsort(rank)[:max_users])
    return interactions.join(kept.to_frame(), on="user_id", how="semi")


def k_core(interactions: pl.DataFrame, *, user_events: int, item_events: int) -> pl.DataFrame:
    """Remove users and items with too few interactions, until none is left to remove.

    Repeated interactions of one user with one item count each. The result, the largest set in
    which everybody has enough, does not depend on the order of removal.

    Args:
        interactions: with user_id and item_id.
        user_events: interactions that a user must have.
        item_events: interactions that an item must have.
    """
    users, items = (
        interactions[name].rank("dense").to_numpy().astype(np.int64) - 1
        for name in ("user_id", "item_id")
    )
    kept = np.ones(len(users), dtype=bool)
    before = -1
    while (left := int(kept.sum())) != before and left > 0:
        before = left
        for codes, least in ((users, user_events), (items, item_events)):
            kept &= np.bincount(codes[kept], minlength=int(codes.max()) + 1)[codes] >= least
    return interactions.filter(pl.Series(kept, dtype=pl.Boolean))


def _texts(interactions: pl.DataFrame, items: pl.DataFrame, max_chars: int) -> pl.DataFrame:
    """One normalised text for each item that has interactions.

    Of several texts for one id the longest stays, of equally long ones the first by alphabet:
    whichever stands first in the file means nothing.
    """
    needed = interactions.select(pl.col("item_id").unique().sort())
    raw = items.join(needed, on="item_id", how="semi")
    texts = [cut_text(normalise_text(text or ""), max_chars) for text in raw["text"]]
    clean = raw.select("item_id", pl.Series("text", texts, dtype=pl.String))
    best = clean.sort(pl.col("text").str.len_chars(), "text", descending=[True, False])
    best = best.unique("item_id", keep="first", maintain_order=True)
    joined = needed.join(best, on="item_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("text").fill_null(""))


def _report(
    config: DomainConfig, raw: RawTables, stages: list[pl.DataFrame], items: pl.DataFrame
) -> DomainReport:
    lengths = stages[-1].group_by("user_id").len()["len"].to_numpy()
    read, sampled, distinct, fitting, left = (stage.height for stage in stages)
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


def _why_empty(config: DomainConfig, stages: list[pl.DataFrame]) -> str:
    read, sampled, distinct, fitting, left = (stage.height for stage in stages)
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
