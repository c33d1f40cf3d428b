"""What is kept of a domain, and the steps of cleaning it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.k_core import k_core
from pipeline.sources.tables import Order
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
class StepCounts:
    """Interactions as read, and after each step of cleaning.

    Attributes:
        read: As read, without the rows that were refused.
        sampled: Of the users that `max_users` keeps.
        distinct: Without duplicates.
        fitting: Of users within `max_history`.
        left: In the k-core, and of users with `min_history`.
        kcore_rounds: Rounds (users, then items) in which the k-core removed something.
    """

    read: int
    sampled: int
    distinct: int
    fitting: int
    left: int
    kcore_rounds: int


def chosen_users(
    users: pl.Series, platform: str, max_users: int | None, seed: int
) -> NDArray[np.bool_]:
    """Which users stay, bool [n]: those of the smallest hashes, in all domains the same.

    Args:
        users: String [n], each once.
        platform: of the user ids.
        max_users: users to keep at most; None for all.
        seed: of the choice.
    """
    kept = np.ones(len(users), dtype=bool)
    if max_users is not None and len(users) > max_users:
        rank = mixed(seed, hash_text(platform), hash_texts(users))
        kept[np.argsort(rank)[max_users:]] = False
    return kept


def clean_interactions(
    cleaning: CleaningConfig,
    interactions: pl.DataFrame,
    order: Order,
    *,
    platform: str,
    max_users: int | None,
    seed: int,
) -> tuple[pl.DataFrame, StepCounts]:
    """Choose users, drop duplicates and users with too long histories, take the k-core.

    Args:
        cleaning: the rules.
        interactions: user_id, item_id, timestamp.
        order: of the domain; a duplicate is an event equal in user, item and time, so with
            `sequence` there is none.
        platform: of the user ids.
        max_users: users to keep at most.
        seed: of the choice.

    Returns:
        What is left, same columns, in no order; and the counts.
    """
    users = interactions["user_id"].unique()
    kept = users.filter(pl.Series(chosen_users(users, platform, max_users, seed)))
    sampled = interactions.join(kept.to_frame(), on="user_id", how="semi")
    distinct = sampled.unique() if order == "time" else sampled
    longest = cleaning.max_history
    fits = pl.lit(True) if longest is None else pl.len().over("user_id") <= longest
    fitting = distinct.filter(fits)
    least = max(cleaning.k_core, cleaning.min_history)
    left, rounds = k_core(fitting, user_events=least, item_events=cleaning.k_core)
    counts = StepCounts(
        read=interactions.height,
        sampled=sampled.height,
        distinct=distinct.height,
        fitting=fitting.height,
        left=left.height,
        kcore_rounds=rounds,
    )
    return left, counts
