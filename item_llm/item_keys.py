"""Which text key every item of every domain has: what a refresh compares a catalogue with.

    items.lance     item "DOMAIN/ID" (primary key), domain, key (null: the item is gone)

Vectors are committed before the keys that lead to them, so an item in this table has its vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from item_llm.lance_table import PRIMARY_KEY, LanceTable, sql_literal

if TYPE_CHECKING:
    import pyarrow as pa

_COMPARED_AT_ONCE = 1 << 16  # keys


@dataclass(frozen=True)
class Catalogue:
    """All items of some domains, and their texts.

    Attributes:
        domains: their names, without `/`; a domain without items is one that lost all of them.
        of: the domain of each item, as its place in `domains`, int [n].
        ids: [n], each once in its domain.
        texts: [n], "" where an item has none.
    """

    domains: tuple[str, ...]
    of: np.ndarray
    ids: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def items(self) -> pa.Array:
        """`DOMAIN/ID` of each item, string [n].

        Raises:
            ValueError: an item is there twice, or a domain's name has a `/`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for name in self.domains:
            if "/" in name:
                raise ValueError(f"the domain name {name!r} holds a `/`: rename the domain")
        items = pc.binary_join_element_wise(self.domain_names, pa.array(self.ids, pa.string()), "/")
        if pc.count_distinct(items).as_py() < len(items):
            counts = pc.value_counts(items)
            twice = counts.filter(pc.greater(counts.field("counts"), 1))
            raise ValueError(f"the item {twice[0]['values'].as_py()!r} is there twice; drop one")
        return items

    @cached_property
    def domain_names(self) -> pa.Array:
        """The name of each item's domain, string [n]."""
        import pyarrow as pa

        codes = pa.array(self.of, pa.int32())
        names = pa.array(self.domains, pa.string())
        return pa.DictionaryArray.from_arrays(codes, names).cast(pa.string())


@dataclass(frozen=True)
class ItemChanges:
    """How a catalogue differs from the table, as positions in it; ascending int64.

    Attributes:
        new: items that the table has not.
        changed: items with another text.
        removed: item (`DOMAIN/ID`) and domain of those that its domains had and have not now.
        keys: of the catalogue's texts, binary [n].
    """

    new: np.ndarray
    changed: np.ndarray
    removed: pa.Table
    keys: pa.Array

    def __bool__(self) -> bool:
        return bool(len(self.new) or len(self.changed) or len(self.removed))


class ItemKeys:
    """The table; writing needs the cache's lock."""

    def __init__(self, folder: str, fingerprint: str) -> None:
        """Open the table in the cache's folder of `fingerprint`, or make an empty one."""
        self._table = LanceTable(f"{folder}/items.lance", _schema())
        self._table.open({"fingerprint": fingerprint})

    def changes(self, catalogue: Catalogue, keys: pa.Array) -> ItemChanges:
        """Compare.

        Args:
            catalogue: all items of some domains; other domains are left alone.
            keys: of its texts, binary [n].

        Raises:
            ValueError: an item is there twice.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        self._table.reopen()
        items = catalogue.items
        # Arrow's pool keeps what finding a duplicate took, five times the names themselves.
        pa.default_memory_pool().release_unused()
        known = self._of_domains(catalogue.domains)
        place = pc.index_in(items, value_set=known["item"])
        there = place.is_valid().to_numpy(zero_copy_only=False)
        positions = np.flatnonzero(there)
        found = place.drop_null()
        same = _equal_keys(keys, positions, known["key"].combine_chunks(), found)
        gone = np.ones(len(known), dtype=bool)
        gone[found.to_numpy()] = False
        return ItemChanges(
            new=np.flatnonzero(~there),
            changed=positions[~same],
            removed=known.filter(pa.array(gone)).select(["item", "domain"]),
            keys=keys,
        )

    def commit(self, catalogue: Catalogue, changes: ItemChanges, stored: np.ndarray) -> None:
        """Write what changed, in one commit.

        Args:
            catalogue: as it was compared.
            changes: as `changes` gave them.
            stored: bool [n], whether the item's text has a vector; an item without one gets no
                key, and loses the one of its text before.
        """
        import pyarrow as pa

        rows = np.concatenate([changes.new[stored[changes.new]], changes.changed])
        kept, gone = pa.array(rows), changes.removed
        keys = changes.keys.take(pa.array(rows, mask=~stored[rows]))
        columns = [
            [catalogue.items.take(kept), *gone["item"].chunks],
            [catalogue.domain_names.take(kept), *gone["domain"].chunks],
            [keys, pa.nulls(len(gone), pa.binary())],
        ]
        if len(rows) + len(gone):
            arrays = [pa.chunked_array(parts).combine_chunks() for parts in columns]
            self._table.upsert(pa.table(arrays, schema=self._table.schema))

    def keys(self) -> pa.Array:
        """The distinct keys that any item of any domain has."""
        self._table.reopen()
        return self._table.read(["key"])["key"].combine_chunks().drop_null().unique()

    def compact(self) -> None:
        """Merge many small files into few, once there are enough of them."""
        self._table.compact()

    def drop_old_versions(self) -> int:
        """Delete items that are gone and all versions but the newest; returns the bytes freed."""
        self._table.delete_where("key IS NULL")
        return self._table.drop_old_versions()

    def _of_domains(self, domains: Sequence[str]) -> pa.Table:
        listed = ", ".join(map(sql_literal, domains))
        where = f"key IS NOT NULL AND domain IN ({listed})" if domains else "false"
        return self._table.read(["item", "domain", "key"], where).combine_chunks()


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("item", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("domain", pa.string()),
            pa.field("key", pa.binary()),
        ]
    )


def _equal_keys(
    now: pa.Array, positions: np.ndarray, before: pa.Array, places: pa.Array
) -> np.ndarray:
    """Whether now[positions[i]] is before[places[i]], bool.

    Block by block: a copy of a million keys is 36 MB, and both sides would be copied.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    same = np.empty(len(positions), dtype=bool)
    for start in range(0, len(positions), _COMPARED_AT_ONCE):
        block = slice(start, start + _COMPARED_AT_ONCE)
        mine = now.take(pa.array(positions[block]))
        theirs = before.take(places[block])
        same[block] = pc.equal(mine, theirs).to_numpy(zero_copy_only=False)
    return same
