"""Bring the cache up to a catalogue, at the cost of what changed since the last time.

    keys of all texts -> compare with the items' table -> encode the texts without a vector
        -> commit vectors, block by block -> commit the items' keys

Killed at any moment, the next refresh finds what was committed and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from item_llm.cache import EmbeddingCache
from item_llm.item_keys import Catalogue, ItemChanges, ItemKeys
from item_llm.prompts import normalise_text
from item_llm.text_keys import keys_of

if TYPE_CHECKING:
    import pyarrow as pa

_COMMIT_TEXTS = 4096  # texts in one commit, and
_COMMIT_SECONDS = 20.0  # the time after which fewer will do: what a crash can lose


class Encoded(NamedTuple):
    """A batch from an encoder: float32 [n, d] vectors of n texts, and the texts it refused."""

    texts: Sequence[str]
    vectors: np.ndarray
    refused: Sequence[tuple[str, str]] = ()  # text, reason


Encode = Callable[[list[str]], Iterable[Encoded]]


@dataclass(frozen=True)
class RefreshPlan:
    """What a refresh would do.

    Attributes:
        changes: of the items.
        texts: distinct normalised texts without a vector.
        reused: distinct texts that have one.
    """

    changes: ItemChanges
    texts: list[str]
    reused: int


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    Attributes:
        plan: what there was to do.
        encoded: distinct texts that got a vector.
        quarantined: items (`DOMAIN/ID`) whose text could not be encoded: item, text and reason.
        version: of the vectors' table afterwards.
        seconds: of all of it.
    """

    plan: RefreshPlan
    encoded: int
    quarantined: list[dict[str, str]] = field(repr=False)
    version: int
    seconds: float


class CatalogueRefresh:
    """A cache and its items' table, brought up to catalogues."""

    def __init__(self, cache: EmbeddingCache) -> None:
        """Open the items' table beside the vectors.

        Raises:
            ValueError: the table cannot be read.
        """
        self.cache = cache
        with cache.locked():
            self.items = ItemKeys(cache.folder, cache.fingerprint)

    def plan(self, catalogue: Catalogue) -> RefreshPlan:
        """Compare a catalogue with what is there; writes nothing.

        Raises:
            ValueError: an item is there twice.
        """
        keys = keys_of(self.cache.fingerprint, catalogue.texts)
        changes = self.items.changes(catalogue, keys)
        absent = self.cache.absent(keys)
        texts = [normalise_text(catalogue.texts[int(place)]) for place in absent]
        return RefreshPlan(changes, texts, len(keys.unique()) - len(texts))

    def run(self, catalogue: Catalogue, plan: RefreshPlan, encode: Encode) -> Refreshed:
        """Encode and commit what a plan found.

        Args:
            catalogue: the plan's.
            plan: of this catalogue.
            encode: distinct texts -> batches of vectors, in any order.

        Raises:
            ValueError: a vector that is not finite or all zeros.
        """
        started = time.monotonic()
        refused: dict[str, str] = {}
        batches = in_blocks(_noting(encode(plan.texts), refused)) if plan.texts else ()
        encoded = self.cache.commit(batches)
        with self.cache.locked():
            if plan.changes:
                stored = self._stored(plan.changes.keys)
                self.items.commit(catalogue, plan.changes, stored)
                self.items.compact()
        if plan.texts:
            self.cache.compact()
        quarantined = self._quarantined(catalogue, plan.changes.keys, refused)
        seconds = time.monotonic() - started
        return Refreshed(plan, encoded, quarantined, self.cache.version, seconds)

    def collect_garbage(self) -> tuple[int, int]:
        """Delete vectors that no item has, items that are gone, and versions without a tag.

        Returns:
            Vectors that were deleted, and bytes that are free now.
        """
        with self.cache.locked():
            freed = self.items.drop_old_versions()
            removed = self.cache.keep_only(self.items.keys())
            return removed, freed + self.cache.drop_old_versions()

    def _stored(self, keys: pa.Array) -> np.ndarray:
        stored = np.ones(len(keys), dtype=bool)
        if len(absent := self.cache.absent(keys)):
            import pyarrow as pa
            import pyarrow.compute as pc

            without = pc.is_in(keys, value_set=keys.take(pa.array(absent)))
            stored = ~without.to_numpy(zero_copy_only=False)
        return stored

    def _quarantined(
        self, catalogue: Catalogue, keys: pa.Array, refused: dict[str, str]
    ) -> list[dict[str, str]]:
        """The items behind the refused texts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not refused:
            return []
        bad = keys_of(self.cache.fingerprint, refused)
        reasons = list(refused.items())
        place = pc.index_in(keys, value_set=bad)
        items = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
        return [
            {"item": item, "text": reasons[at][0], "reason": reasons[at][1]}
            for item, at in zip(
                catalogue.items.take(pa.array(items)).to_pylist(),
                place.drop_null().to_pylist(),
                strict=True,
            )
        ]


def in_blocks(batches: Iterable[Encoded]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Small batches put together to blocks that are worth a commit: texts and their vectors."""
    texts: list[str] = []
    vectors: list[np.ndarray] = []
    since = time.monotonic()
    for batch in batches:
        texts += batch.texts
        vectors.append(batch.vectors)
        if len(texts) >= _COMMIT_TEXTS or time.monotonic() - since >= _COMMIT_SECONDS:
            yield texts, np.concatenate(vectors)
            texts, vectors, since = [], [], time.monotonic()
    if texts:
        yield texts, np.concatenate(vectors)


def _noting(batches: Iterable[Encoded], refused: dict[str, str]) -> Iterator[Encoded]:
    for batch in batches:
        refused.update(batch.refused)
        yield batch
