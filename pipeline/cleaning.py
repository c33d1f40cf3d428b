"""What is kept of a domain, and the steps of cleaning it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.coding import Coding
from pipeline.event_order import event_order
from pipeline.k_core import k_core
from pipeline.row_keys import user_keys
from pipeline.shards import Shard
from pipeline.spill import Spill
from pipeline.stable_hash import UInt64Array, hash_text, hash_texts, mixed


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


@dataclass(frozen=True)
class CleaningRules:
    """What cleaning needs to know of a domain, but for its events.

    sequence_domain: the domain's name if its `order` is `sequence`, else None. A duplicate is an
        event equal in user, item and time, so in such a domain there is none.
    max_users: users to keep at most, those of the smallest hashes, in all domains the same; None
        for all.
    seed: of that choice.
    """

    cleaning: CleaningConfig
    platform: str
    sequence_domain: str | None
    max_users: int | None
    seed: int


@dataclass(frozen=True)
class CleanEvents:
    """What is left, in `kept` of the shards.

    item_counts: int64 [codes], events left of each item, by its code.
    """

    shards: tuple[Shard, ...]
    item_counts: NDArray[np.int64]
    steps: StepCounts


def clean_events(
    rules: CleaningRules, events: Spill, folder: Path, tell: Callable[[str], None]
) -> CleanEvents:
    """Choose users, drop duplicates and users with too long histories, take the k-core.

    Args:
        rules: what is kept.
        events: user_id String, item Int32 (a code), timestamp Int64.
        folder: of the shards.
        tell: is told what is being done.
    """
    limit = _largest_rank(rules, events)
    shards: list[Shard] = []
    totals = np.zeros(4, dtype=np.int64)
    for number, rows in enumerate(events.partitions()):
        tell(f"{totals[0]:,} interactions cleaned")
        shard, counts = _clean(rules, rows, limit, folder / f"{number}")
        totals += counts
        if shard.n_events:
            shards.append(shard)
    tell("k-core")
    item_counts, rounds = k_core(
        shards,
        user_events=max(rules.cleaning.k_core, rules.cleaning.min_history),
        item_events=rules.cleaning.k_core,
    )
    read, sampled, distinct, fitting = totals.tolist()
    steps = StepCounts(read, sampled, distinct, fitting, int(item_counts.sum()), rounds)
    return CleanEvents(tuple(shards), item_counts, steps)


@dataclass(frozen=True)
class _Users:
    """The users of a partition, sorted by key.

    keys: String [u].
    hashes: uint64 [u], of their ids.
    rows: int64 [events], the place of each event's user.
    """

    keys: pl.Series
    hashes: UInt64Array
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, rules: CleaningRules, user_ids: pl.Series) -> _Users:
        """The users of events."""
        coding = Coding()
        codes = coding.codes(user_ids)
        ids = coding.strings()
        keys = user_keys(rules.platform, ids, rules.sequence_domain)
        by_key = keys.arg_sort().to_numpy()
        place = np.empty(len(ids), dtype=np.int64)
        place[by_key] = np.arange(len(ids))
        return cls(keys[by_key], hash_texts(ids[by_key]), place[codes])


def _clean(
    rules: CleaningRules, rows: pl.DataFrame, limit: int | None, folder: Path
) -> tuple[Shard, list[int]]:
    """The events of some users as a shard, and how many were left after each step."""
    users = _Users.of(rules, rows["user_id"])
    items, times = rows["item"].to_numpy(), rows["timestamp"].to_numpy()
    # Each step is the places of the events that it leaves.
    sampled = np.arange(rows.height)
    if limit is not None:
        sampled = np.flatnonzero((_ranks(rules, users.hashes) <= limit)[users.rows])
    distinct = sampled[event_order(users.rows[sampled], times[sampled], items[sampled])]
    if rules.sequence_domain is None:
        distinct = distinct[_is_new(users.rows[distinct], times[distinct], items[distinct])]
    lengths = np.bincount(users.rows[distinct], minlength=len(users.keys))
    if (most := rules.cleaning.max_history) is not None:
        lengths[lengths > most] = 0
    left = distinct[lengths[users.rows[distinct]] > 0]
    present = lengths > 0
    shard = Shard.write(
        folder,
        users.keys.filter(pl.Series(present)),
        lengths=lengths[present],
        hashes=mixed(hash_text(rules.platform), users.hashes[present]),
        items=items[left],
        timestamps=times[left],
    )
    return shard, [rows.height, len(sampled), len(distinct), len(left)]


def _is_new(*columns: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether a row differs from the one before it."""
    new = np.zeros(len(columns[0]), dtype=bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def _ranks(rules: CleaningRules, hashes: UInt64Array) -> UInt64Array:
    """What decides who stays, of the hashes of user ids."""
    return mixed(rules.seed, hash_text(rules.platform), hashes)


def _largest_rank(rules: CleaningRules, events: Spill) -> int | None:
    """The rank of the last user who stays; None if all do."""
    if rules.max_users is None:
        return None
    users, smallest = 0, np.empty(0, dtype=np.uint64)
    for rows in events.partitions():
        ranks = _ranks(rules, hash_texts(rows["user_id"].unique()))
        users += len(ranks)
        smallest = np.sort(np.concatenate([smallest, ranks]))[: rules.max_users]
    return int(smallest[-1]) if users > rules.max_users else None
