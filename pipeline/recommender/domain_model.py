"""A domain of a bundle: its items, its sequence model, and what a text becomes.

Shapes: n users, T events one after another, d model width, t columns of the channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.recommender.bundle import Bundle, Models
from pipeline.recommender.catalogue import Catalogue
from pipeline.recommender.top_items import TopItems, top_items
from pipeline.recommender.users import UserState
from pipeline.string_table import StringTable
from user_model.new_items import NewItems
from user_model.streamed_users import StreamedUsers, UserStream

if TYPE_CHECKING:
    from pipeline.recommender.item_index import ItemIndex

_STEPPED = 50  # events of one user up to which steps take less time than the pass over all of them


class DomainModel:
    """A domain of a bundle: its items, its sequence model, and what a text becomes."""

    def __init__(self, bundle: Bundle, name: str, models: Models) -> None:
        domain, place = bundle.config.domains[name], f"domains/{name}"
        self.stream: UserStream = bundle.stream(name, models)
        self.schema = bundle.state_schema(name)
        dim = self.stream.hydra.config.dim
        ids, texts = (
            StringTable.open(bundle.file(f"{place}/{part}.arrow")) for part in ("ids", "texts")
        )
        vectors = bundle.table(name, "vectors", self.stream.width)
        inputs = bundle.table(name, "inputs", dim) if domain.has_inputs else None
        if not len(ids) == len(texts) == len(vectors):
            raise ValueError(
                f"bundle {bundle.folder}: {name} has {len(vectors)} vectors for {len(ids)} ids and "
                f"{len(texts)} texts; export it again"
            )
        self.catalogue = Catalogue(name, ids, texts, vectors, inputs)
        self.new_items: NewItems | None = None
        if domain.takes_new_items:
            self.new_items = NewItems.from_dict(bundle.tensors(f"{place}/new_items.safetensors"))

    def item_rows(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What the sequence model reads of items, [T, d], and their channel's columns [T, t]."""
        inputs = self.catalogue.inputs(rows)
        if not self.stream.text_width:
            return inputs, inputs[:, :0]
        return inputs, self.catalogue.vectors(rows)[:, -self.stream.text_width :]

    def read(
        self,
        rows: Sequence[NDArray[np.int64]],
        times: Sequence[NDArray[np.int64]] | None,
        most: int | None,
    ) -> StreamedUsers:
        """The state after whole histories, of which the latest `most` events are read."""
        kept = [history if most is None else history[-most:] for history in rows]
        seams = torch.from_numpy(np.cumsum([0, *map(len, kept)], dtype=np.int64))
        items = np.concatenate([np.zeros(0, dtype=np.int64), *kept])
        when = None
        if times is not None:
            cut = [some if most is None else some[-most:] for some in times]
            when = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *cut]))
        inputs, texts = self.item_rows(items)
        start = self.stream.start(len(rows))
        if len(rows) == 1 and len(items) <= _STEPPED:
            for at in range(len(items)):
                one = slice(at, at + 1)
                now = None if when is None else when[one]
                start = self.stream.step(start, inputs[one], texts[one], now)
            return start
        return self.stream.extend(start, inputs, texts, seams, when)

    def best(
        self, state: UserState, k: int, *, exclude_seen: bool, index: ItemIndex | None
    ) -> TopItems:
        """The k best items of each user.

        Raises:
            ValueError: k below 1, or a user without events.
        """
        if k < 1:
            raise ValueError(f"k: got {k}, expected 1 or more")
        if len(empty := np.flatnonzero(state.events == 0)):
            raise ValueError(
                f"recommend: user {empty[0]} of {state.n_users} has no events, and the model knows "
                "users by their events alone; give one event first, or show what is popular"
            )
        seen = state.seen.users() if exclude_seen else None
        vectors = self.stream.vectors(state.model)
        k = min(k, len(self.catalogue))
        if index is not None:
            return index.top_items(vectors, k, seen)
        return top_items(vectors, self.catalogue.tables(), k, seen)
