"""Next-item pairs: what the item LLM learns from, and what it is checked on.

Legend: U rows of the corpus, E events, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.corpus import Corpus
from pipeline.histories import TRAIN, Ints, Roles
from pipeline.row_keys import person_key
from pipeline.stable_hash import UInt64Array, hash_texts, mixed


class PairsConfig(BaseModel):
    """How many pairs, and whose are held out. Our choice [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {"domains": None}

    held_out_users: float = Field(
        0.1, gt=0, lt=1, description="share of people whose pairs only check the item LLM"
    )
    max_train: int | None = Field(
        None, ge=1, description="training pairs of one domain at most; null: all"
    )
    max_held_out: int | None = Field(
        1000, ge=1, description="held-out pairs of one domain at most; null: all"
    )
    domains: tuple[str, ...] | None = Field(
        None,
        description="domains whose pairs tune the item LLM; null: all. Held-out pairs are of all",
    )


@dataclass(frozen=True, eq=False)
class ItemPairs:
    """An item and the next that the same person chose in the same domain.

    first, second: int64 [P], global item positions, never equal.
    domains: int16 [P], the domain's place in the corpus.
    users: int64 [P], the row in the corpus.
    """

    first: Ints
    second: Ints
    domains: NDArray[np.int16]
    users: Ints

    def __len__(self) -> int:
        return len(self.first)


def next_item_pairs(
    corpus: Corpus,
    roles: Roles,
    config: PairsConfig,
    *,
    seed: int,
    whole_histories: bool = False,
) -> tuple[ItemPairs, ItemPairs]:
    """(training pairs, held-out pairs): consecutive train-role events of one (user, domain).

    People are divided by a seeded hash of (platform, user id), so that nobody is on both sides
    and a corpus that grows moves nobody; so are pairs chosen where a domain has too many.

    Args:
        corpus: E events.
        roles: int8 [E], from `assign_roles`.
        config: shares and limits.
        seed: of both hashes.
        whole_histories: choose people and not pairs where a domain has too many training pairs,
            so that the pairs kept are whole histories (the last one may be cut).
    """
    people = hash_texts(person_key(key) for key in corpus.user_keys)
    held_out_U = mixed(seed, people) < np.uint64(config.held_out_users * 2**64)
    pairs, times = _all_pairs(corpus, roles)
    items = hash_texts(corpus.item_ids)
    rank = mixed(
        seed, people[pairs.users], items[pairs.first], items[pairs.second], times.view(np.uint64)
    )
    held_out = held_out_U[pairs.users]
    wanted = ~held_out
    if config.domains is not None:
        wanted &= np.isin(pairs.domains, [corpus.domain_number(name) for name in config.domains])
    train_rank = mixed(seed, people[pairs.users]) if whole_histories else rank
    return (
        _limited(pairs, train_rank, wanted, config.max_train),
        _limited(pairs, rank, held_out, config.max_held_out),
    )


def _all_pairs(corpus: Corpus, roles: Roles) -> tuple[ItemPairs, Ints]:
    """All pairs in (user, domain, time) order, and the time of each one's first event."""
    events = np.flatnonzero(roles == TRAIN)
    domains = corpus.event_domains[events]
    group = corpus.event_users[events] * np.int64(len(corpus.domains)) + domains
    order = np.argsort(group, kind="stable")
    events, group = events[order], group[order]
    items = corpus.items[events].astype(np.int64)
    kept = np.flatnonzero((group[1:] == group[:-1]) & (items[1:] != items[:-1]))
    users = corpus.event_users[events[kept]].astype(np.int64)
    pairs = ItemPairs(items[kept], items[kept + 1], domains[order][kept], users)
    return pairs, corpus.timestamps[events[kept]]


def _limited(
    pairs: ItemPairs, rank: UInt64Array, wanted: NDArray[np.bool_], most: int | None
) -> ItemPairs:
    """The wanted pairs, of each domain at most `most`, those of the lowest rank."""
    places = np.flatnonzero(wanted)
    if most is not None:
        by_rank = places[np.argsort(rank[places], kind="stable")]
        by_domain = by_rank[np.argsort(pairs.domains[by_rank], kind="stable")]
        domains = pairs.domains[by_domain]
        in_domain = np.arange(len(domains)) - np.searchsorted(domains, domains, side="left")
        places = np.sort(by_domain[in_domain < most])
    return ItemPairs(
        pairs.first[places], pairs.second[places], pairs.domains[places], pairs.users[places]
    )
