"""The steps of cleaning one domain's raw tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.sources.tables import Order
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


@dataclass(frozen=True)
class CleaningSteps:
    """The interactions as read, and after each step: same columns, fewer rows."""

    read: pl.DataFrame
    sampled: pl.DataFrame
    distinct: pl.DataFrame
    fitting: pl.DataFrame
    left: pl.DataFrame

    def heights(self) -> tuple[int, int, int, int, int]:
        """Interactions as read, and after each step."""
        return (
            self.read.height,
            self.sampled.height,
            self.distinct.height,
            self.fitting.height,
            self.left.height,
        )


def clean_interactions(
    cleaning: CleaningConfig,
    interactions: pl.DataFrame,
    order: Order,
    *,
    platform: str,
    max_users: int | None,
    seed: int,
) -> CleaningSteps:
    """Choose users, drop duplicates and users with too long histories, take the k-core.

    Args:
        cleaning: the rules.
        interactions: user_id, item_id, timestamp.
        order: of the domain; a duplicate is an event equal in user, item and time, so with
            `sequence` there is none.
        platform: of the user ids.
        max_users: users to keep at most.
        seed: of the choice.
    """
    sampled = _sampled(interactions, platform, max_users, seed)
    distinct = sampled.unique() if order == "time" else sampled
    longest = cleaning.max_history
    fits = pl.lit(True) if longest is None else pl.len().over("user_id") <= longest
    fitting = distinct.filter(fits)
    least = max(cleaning.k_core, cleaning.min_history)
    left = k_core(fitting, user_events=least, item_events=cleaning.k_core)
    return CleaningSteps(interactions, sampled, distinct, fitting, left)


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


def item_texts(interactions: pl.DataFrame, items: pl.DataFrame, max_chars: int) -> pl.DataFrame:
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
