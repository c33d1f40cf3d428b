"""The items of one domain: ids, texts and vectors, those of the bundle and those that were added.

Shapes: V items of the bundle, m added ones, M items asked for, d width that the sequence model
reads, w width of a score's vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.recommender.new_rows import NewRows
from pipeline.string_table import StringTable

_UNKNOWN_SHOWN = 5
_MOST_ITEMS = 2**31 - 1  # rows are int32 in states


class UnknownItemError(ValueError):
    """Items are asked for that the domain has not."""


class Catalogue:
    """The items of one domain. Rows below `n_trained` are the bundle's, the others were added.

    Args:
        domain: its name.
        ids: of the V items, in the order of the rows.
        texts: of them.
        vectors: float32 [V, w], as scores take them; mapped.
        inputs: float32 [V, d], as the sequence model reads them; None: the same.
    """

    def __init__(
        self,
        domain: str,
        ids: StringTable,
        texts: StringTable,
        vectors: NDArray[np.float32],
        inputs: NDArray[np.float32] | None,
    ) -> None:
        assert len(ids) == len(texts) == len(vectors) <= _MOST_ITEMS
        self.domain = domain
        self._ids, self._texts = ids, texts
        self._vectors, self._inputs = vectors, vectors if inputs is None else inputs
        self._own_inputs = inputs is not None
        self._new_ids: list[str] = []
        self._new_texts: list[str] = []
        self._new_vectors = NewRows(vectors.shape[1])
        self._new_inputs = NewRows(self._inputs.shape[1])
        self._new_places: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def n_trained(self) -> int:
        """Items V of the bundle."""
        return len(self._vectors)

    @property
    def n_items(self) -> int:
        """All items, those that were added too."""
        return self.n_trained + len(self._new_ids)

    def __len__(self) -> int:
        return self.n_items

    def id(self, row: int) -> str:
        """The id of the item in a row; raises IndexError."""
        return self._at(row, self._ids, self._new_ids)

    def texts(self, row: int) -> str:
        """The text of the item in a row, "" if it has none; raises IndexError."""
        return self._at(row, self._texts, self._new_texts)

    def row(self, item_id: str) -> int:
        """The row of an item.

        Raises:
            UnknownItemError: a ValueError that names it.
        """
        return int(self.rows([item_id])[0])

    def rows(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """The rows of items, int64 [M].

        Raises:
            UnknownItemError: a ValueError that names those that the domain has not.
        """
        places, new = self._places, self._new_places
        found = [places.get(one, -1) for one in item_ids]
        if -1 in found:
            found = [
                new.get(one, -1) if place < 0 else place
                for one, place in zip(item_ids, found, strict=True)
            ]
        if -1 in found:
            self._complain([one for one, place in zip(item_ids, found, strict=True) if place < 0])
        return np.array(found, dtype=np.int64)

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The ids of items in rows [M]."""
        return [self.id(int(row)) for row in rows]

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._places or item_id in self._new_places

    def search(self, text: str, k: int = 10) -> list[int]:
        """Rows of items whose text or id holds every word of `text`, whatever the case.

        Those whose text begins with it come first, then by row; at most k.
        """
        words = text.split()
        if not words or k < 1:
            return []
        hits = np.flatnonzero(self._holds_all(words)).tolist()
        hits += [
            self.n_trained + place
            for place, (item_id, said) in enumerate(
                zip(list(self._new_ids), list(self._new_texts), strict=False)
            )
            if all(word.casefold() in f"{item_id} {said}".casefold() for word in words)
        ]
        start = text.strip().casefold()
        first = [row for row in hits if self.texts(row).casefold().startswith(start)]
        others = set(first)
        return [*first, *(row for row in hits if row not in others)][:k]

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """What the sequence model reads of items, float32 [M, d]."""
        return _rows_of(self._inputs, self._new_inputs, rows)

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """The items' vectors as scores take them, float32 [M, w]."""
        return _rows_of(self._vectors, self._new_vectors, rows)

    def tables(self) -> Iterator[NDArray[np.float32]]:
        """All vectors as scores take them, in the order of the rows: [V, w], then [m, w]."""
        yield self._vectors
        if whole := len(self._new_ids):  # an item that is being added is not whole yet
            yield self._new_vectors.rows[:whole]

    def add(
        self, item_id: str, text: str, inputs: NDArray[np.float32], vector: NDArray[np.float32]
    ) -> int:
        """Append an item; returns its row.

        Args:
            item_id: new in the domain.
            text: of it.
            inputs: float32 [d].
            vector: float32 [w].

        Raises:
            ValueError: there is an item of this id.
        """
        with self._lock:
            self.refuse_known(item_id)
            self._new_inputs.append(inputs)
            self._new_vectors.append(vector)
            self._new_texts.append(text)
            self._new_ids.append(item_id)
            # Last: from here on it is found.
            self._new_places[item_id] = self.n_items - 1
            return self.n_items - 1

    def refuse_known(self, item_id: str) -> None:
        """Raise ValueError where there is an item of this id."""
        if item_id in self:
            raise ValueError(
                f"item {item_id!r}: {self.domain} has it already, in row {self.row(item_id)}; give "
                "a new item an id of its own"
            )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self._ids)}

    @cached_property
    def _searched(self) -> pa.ChunkedArray:
        """Id and text of each item in one string."""
        both = zip(self._ids, self._texts, strict=True)
        return pa.chunked_array([pa.array([f"{item_id} {text}" for item_id, text in both])])

    def _holds_all(self, words: Sequence[str]) -> NDArray[np.bool_]:
        held = np.ones(self.n_trained, dtype=bool)
        for word in words:
            found = pc.match_substring(self._searched, word, ignore_case=True)
            held &= found.to_numpy()
        return held

    def _at(self, row: int, trained: StringTable, new: Sequence[str]) -> str:
        if not 0 <= row < self.n_items:
            raise IndexError(f"row {row} of {self.domain}, which has {self.n_items} items")
        return trained[row] if row < self.n_trained else new[row - self.n_trained]

    def _complain(self, unknown: Sequence[str]) -> None:
        shown = ", ".join(repr(one) for one in unknown[:_UNKNOWN_SHOWN])
        more = f" and {len(unknown) - _UNKNOWN_SHOWN} more" if unknown[_UNKNOWN_SHOWN:] else ""
        raise UnknownItemError(
            f"{self.domain} has no item {shown}{more}; give ids of its {self.n_items:,} items, or "
            "add new ones with add_item"
        )


def _rows_of(table: NDArray[np.float32], new: NewRows, rows: NDArray[np.int64]) -> Tensor:
    if not len(rows) or rows.max() < len(table):
        return torch.from_numpy(table[rows])
    is_new = rows >= len(table)
    found = np.empty((len(rows), table.shape[1]), dtype=np.float32)
    found[~is_new] = table[rows[~is_new]]
    found[is_new] = new.rows[rows[is_new] - len(table)]
    return torch.from_numpy(found)
