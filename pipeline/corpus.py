"""All domains as one corpus: people with their histories, items with their texts.

Legend: U users (rows), E events, I items of all domains, D domains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.corpus_files import ARRAYS, TABLES, open_parts, save_parts
from pipeline.domains import Domain
from pipeline.sources.tables import Order
from pipeline.stable_hash import hash_text, hash_texts, mixed
from pipeline.string_table import StringTable

SizeGroup = Literal["large", "small"]


@dataclass(frozen=True)
class DomainInfo:
    """Where a domain stands in the corpus."""

    name: str
    first_item: int  # its items are first_item .. first_item + n_items - 1
    n_items: int
    order: Order
    platform: str
    source: str  # a short description


@dataclass(frozen=True, eq=False)
class Corpus:
    """Histories and items of all domains; immutable, memory-mapped when opened.

    A row holds the events of one person in all domains of a platform, in total order: by time,
    ties by a fixed hash of the event. A row of an `order: sequence` domain holds that domain
    alone. Rows are sorted by user key, items within a domain by id.

    domains: in the order of the config.
    item_ids: [I], by global position.
    texts: [I], normalised, "" if none.
    offsets: int64 [U+1]; row u's events are offsets[u] .. offsets[u+1] - 1.
    items: int32 [E], global item positions.
    timestamps: int64 [E], unix seconds; in an `order: sequence` domain the number in the row.
    user_keys: [U], see `user_key`.
    """

    domains: tuple[DomainInfo, ...]
    item_ids: StringTable
    texts: StringTable
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    user_keys: StringTable

    @property
    def n_users(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """Items of all domains."""
        return len(self.item_ids)

    @property
    def n_events(self) -> int:
        """Events of all domains."""
        return len(self.items)

    @cached_property
    def domain_starts(self) -> NDArray[np.int64]:
        """First global item position of each domain, and the number of items: int64 [D+1]."""
        return np.array([*(d.first_item for d in self.domains), self.n_items], dtype=np.int64)

    @cached_property
    def event_domains(self) -> NDArray[np.int16]:
        """The number of each event's domain, int16 [E]."""
        return (np.searchsorted(self.domain_starts, self.items, side="right") - 1).astype(np.int16)

    @cached_property
    def event_users(self) -> NDArray[np.int32]:
        """The row of each event, int32 [E]."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))

    def domain_number(self, name: str) -> int:
        """The place of a domain in `domains`.

        Raises:
            ValueError: there is none of this name.
        """
        names = [domain.name for domain in self.domains]
        if name not in names:
            raise ValueError(f"the corpus has no domain {name!r}: it has {', '.join(names)}")
        return names.index(name)

    def domain(self, name: str) -> DomainInfo:
        """The domain of this name; raises ValueError as `domain_number` does."""
        return self.domains[self.domain_number(name)]

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all contents; the same in memory and on disk."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(_canonical([asdict(domain) for domain in self.domains]))
        for name in ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data.cast("B"))
        for name in TABLES:
            digest.update(f"{name} {getattr(self, name).digest()}".encode())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write a folder, whole or not at all: see corpus_files.

        Raises:
            ValueError: `path` exists and is not an empty folder.
        """
        parts = {name: getattr(self, name) for name in (*ARRAYS, *TABLES)}
        save_parts(path, [asdict(domain) for domain in self.domains], self.fingerprint(), parts)

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """Map a saved corpus into memory; checksums are verified.

        Raises:
            ValueError: the folder is absent, of another format, or damaged.
        """
        manifest, parts = open_parts(path)
        corpus = cls(domains=tuple(DomainInfo(**d) for d in manifest["domains"]), **parts)
        corpus.__dict__["_fingerprint"] = manifest["fingerprint"]
        return corpus


def user_key(platform: str, user: str, sequence_domain: str | None = None) -> str:
    """The key of a row: `platform:user`, or `platform:domain:user` for an `order: sequence` domain.

    `%` and `:` in a user id are written %25 and %3A, so that no two people share a key.
    """
    user = user.replace("%", "%25").replace(":", "%3A")
    return ":".join([platform, *([sequence_domain] if sequence_domain else []), user])


def person_key(key: str) -> str:
    """The person behind a row's key, `platform:user`, whichever domain the row is of."""
    platform, *_, user = key.split(":")
    return f"{platform}:{user}"


def build_corpus(domains: Sequence[Domain]) -> Corpus:
    """Merge domains. Adding one, or reordering a file, changes no order inside the others.

    Raises:
        ValueError: there is no domain, or two have the same name.
    """
    names = [domain.name for domain in domains]
    if not names:
        raise ValueError("a corpus needs a domain: the config lists none under `domains`")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two domains are called {twice[0]!r}: rename one of them")
    starts = np.cumsum([0, *(domain.items.height for domain in domains)])
    events = pl.concat(
        _events(domain, int(start)) for domain, start in zip(domains, starts, strict=False)
    ).sort("user_key", "timestamp", "tie", "item")
    rows = events["user_key"].rle().struct.unnest()
    infos = (
        DomainInfo(d.name, int(start), d.items.height, d.order, d.platform, d.report.source)
        for d, start in zip(domains, starts, strict=False)
    )
    items = pl.concat(domain.items for domain in domains)
    return Corpus(
        domains=tuple(infos),
        item_ids=StringTable.of(items["item_id"]),
        texts=StringTable.of(items["text"]),
        offsets=np.concatenate([[0], rows["len"].to_numpy().astype(np.int64).cumsum()]),
        items=events["item"].to_numpy(),
        timestamps=events["timestamp"].to_numpy(),
        user_keys=StringTable.of(rows["value"]),
    )


def _events(domain: Domain, first_item: int) -> pl.DataFrame:
    """A domain's events: user_key String, item Int32 (global), timestamp Int64, tie UInt64."""
    events = domain.interactions
    users = events["user_id"].unique()
    own = domain.name if domain.order == "sequence" else None
    keys = pl.DataFrame(
        {
            "user_id": users,
            "user_key": [user_key(domain.platform, user, own) for user in users],
            "user_hash": mixed(hash_text(domain.platform), hash_texts(users)),
        },
        schema_overrides={"user_key": pl.String, "user_hash": pl.UInt64},
    )
    items = domain.items.select(
        "item_id",
        (pl.int_range(pl.len(), dtype=pl.Int32) + first_item).alias("item"),
        pl.Series("item_hash", hash_texts(domain.items["item_id"]), dtype=pl.UInt64),
    )
    joined = events.join(keys, on="user_id").join(items, on="item_id")
    tie = mixed(
        joined["user_hash"].to_numpy(),
        hash_text(domain.name),
        joined["item_hash"].to_numpy(),
        joined["timestamp"].to_numpy().view(np.uint64),
    )
    return joined.select("user_key", "item", "timestamp", pl.Series("tie", tie, dtype=pl.UInt64))


def size_groups(corpus: Corpus, large: Sequence[str] | None = None) -> dict[str, SizeGroup]:
    """Which domains are large: those with at least total / D interactions, or those listed.

    Raises:
        ValueError: a listed domain is not in the corpus.
    """
    if large is None:
        counts = np.bincount(corpus.event_domains, minlength=len(corpus.domains))
        is_large = counts * len(corpus.domains) >= corpus.n_events
    else:
        numbers = [corpus.domain_number(name) for name in large]
        is_large = np.isin(np.arange(len(corpus.domains)), numbers)
    return {
        domain.name: "large" if it_is else "small"
        for domain, it_is in zip(corpus.domains, is_large, strict=True)
    }


def shared_users(corpus: Corpus) -> dict[str, int]:
    """People with events in both domains, for each pair as `a & b`; pairs that share none too."""
    n_domains = len(corpus.domains)
    present = np.zeros((corpus.n_users, n_domains), dtype=bool)
    present[corpus.event_users, corpus.event_domains] = True
    return {
        f"{corpus.domains[a].name} & {corpus.domains[b].name}": int(
            (present[:, a] & present[:, b]).sum()
        )
        for a, b in combinations(range(n_domains), 2)
    }


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
