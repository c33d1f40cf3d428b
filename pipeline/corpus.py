"""All domains as one corpus: people with their histories, items with their texts.

Legend: U users (rows), E events, I items of all domains, D domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus_files import CorpusWriter, open_parts
from pipeline.corpus_fingerprint import ARRAYS, TABLES, memory_fingerprint
from pipeline.corpus_merge import RANGE_EVENTS, merged_rows
from pipeline.domains import Domain
from pipeline.sources.tables import Order
from pipeline.string_table import StringTable, file_batches

SizeGroup = Literal["large", "small"]

_BLOCK_EVENTS = 1 << 20  # looked at a time; our choice [D]


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
        numbers = np.empty(self.n_events, dtype=np.int16)
        for _, events in self.row_blocks():
            numbers[events] = self.domains_of(self.items[events])
        return numbers

    def domains_of(self, items: NDArray[np.int32]) -> NDArray[np.int16]:
        """The number of each item's domain, int16 like `items`."""
        return (np.searchsorted(self.domain_starts, items, side="right") - 1).astype(np.int16)

    @cached_property
    def event_users(self) -> NDArray[np.int32]:
        """The row of each event, int32 [E]."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))

    def row_blocks(self) -> Iterator[tuple[slice, slice]]:
        """All rows in order, some at a time, one at least, and where their events stand."""
        first = 0
        while first < self.n_users:
            enough = self.offsets[first] + _BLOCK_EVENTS
            stop = max(int(np.searchsorted(self.offsets, enough, side="right")) - 1, first + 1)
            yield slice(first, stop), slice(int(self.offsets[first]), int(self.offsets[stop]))
            first = stop

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
        parts = {name: getattr(self, name) for name in (*ARRAYS, *TABLES)}
        return memory_fingerprint([asdict(domain) for domain in self.domains], parts)

    def save(self, path: Path) -> None:
        """Write a folder, whole or not at all: see corpus_files.

        Raises:
            ValueError: `path` exists and is not an empty folder.
        """
        with CorpusWriter(path) as writer:
            writer.add_items(self.item_ids.batches(), self.texts.batches())
            keys = self.user_keys.series(0, self.n_users)
            writer.add_rows(keys, np.diff(self.offsets), self.items, self.timestamps)
            writer.finish([asdict(domain) for domain in self.domains])

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


def build_corpus(domains: Sequence[Domain], path: Path, most_events: int = RANGE_EVENTS) -> Corpus:
    """Merge domains. Adding one, or reordering a file, changes no order inside the others.

    Args:
        domains: each reads its files until this returns.
        path: of the corpus's folder, which is written whole or not at all: see corpus_files.
        most_events: to hold in memory at a time, about; changes nothing else.

    Raises:
        ValueError: there is no domain, two have the same name, or `path` exists and is not an
            empty folder.
    """
    names = [domain.name for domain in domains]
    if not names:
        raise ValueError("a corpus needs a domain: the config lists none under `domains`")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two domains are called {twice[0]!r}: rename one of them")
    starts = [0, *np.cumsum([domain.report.items for domain in domains]).tolist()]
    with CorpusWriter(path) as writer:
        for domain in domains:
            writer.add_items(file_batches(domain.item_ids), file_batches(domain.texts))
        for rows in merged_rows(domains, starts[:-1], most_events):
            writer.add_rows(rows.keys, rows.lengths, rows.items, rows.timestamps)
        writer.finish(
            [
                asdict(
                    DomainInfo(d.name, start, d.report.items, d.order, d.platform, d.report.source)
                )
                for d, start in zip(domains, starts, strict=False)
            ]
        )
    return Corpus.open(path)


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
    pairs = list(combinations(range(len(corpus.domains)), 2))
    counts = np.zeros(len(pairs), dtype=np.int64)
    for rows, events in corpus.row_blocks() if pairs else ():
        lengths = np.diff(corpus.offsets[rows.start : rows.stop + 1])
        present = np.zeros((len(lengths), len(corpus.domains)), dtype=bool)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        present[owner, corpus.domains_of(corpus.items[events])] = True
        counts += [(present[:, a] & present[:, b]).sum() for a, b in pairs]
    names = [domain.name for domain in corpus.domains]
    return {
        f"{names[a]} & {names[b]}": count
        for (a, b), count in zip(pairs, counts.tolist(), strict=True)
    }
