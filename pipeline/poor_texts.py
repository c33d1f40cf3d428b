"""Item texts made worse on purpose: what is a model worth where the texts are poor?

    cut      the last words of every text are gone: `share` of them
    drop     each word of every text is gone with the chance `share`
    shuffle  `share` of the domain's items have the text of another of these items
    empty    `share` of the domain's items have no text

All draws are hashes of the domain and the item's id, so that a text that is destroyed at a share
is destroyed at every larger one too, and nothing depends on what else is in the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.stable_hash import UInt64Array, hash_text, hash_texts, mixed, uniform
from pipeline.string_table import StringTable, StringTableWriter

_BATCH = 1 << 16


class PoorTextConfig(BaseModel):
    """How item texts are made worse, for studies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["cut", "drop", "shuffle", "empty"] = Field(
        description="cut: the last words of each text; drop: words at random; shuffle: items have "
        "each other's text; empty: items have none"
    )
    share: float = Field(ge=0, le=1, description="share of the words, or of the items")
    domains: tuple[str, ...] | None = Field(None, description="whose texts; null: all domains'")


def make_poor(texts: Path, item_ids: Path, domain: str, config: PoorTextConfig) -> int:
    """Replace a domain's texts by worse ones; returns how many differ from what they were.

    Args:
        texts: file of a StringTable, a text an item; it is replaced as a whole.
        item_ids: file of a StringTable, the items' ids in the same order.
        domain: its name.
        config: how.
    """
    found = StringTable.open(texts)
    hashes = mixed(hash_text(domain), hash_text(config.how), hash_texts(StringTable.open(item_ids)))
    aside = texts.with_name(f".{texts.name}.poor")
    changed = 0
    with StringTableWriter(aside) as writer:
        for before, after in _batches(found, hashes, config):
            changed += int((before != after).sum())
            writer.add(after)
    os.replace(aside, texts)
    return changed


def _batches(
    texts: StringTable, hashes: UInt64Array, config: PoorTextConfig
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """The texts before and after, some at a time."""
    sources = _exchanged(hashes, config.share) if config.how == "shuffle" else None
    for start in range(0, len(texts), _BATCH):
        before = texts.series(start, start + _BATCH)
        if sources is not None:
            yield before, texts.take(sources[start : start + _BATCH])
            continue
        pairs = zip(before.to_list(), hashes[start : start + _BATCH], strict=True)
        after = [_worse(text, int(item), config) for text, item in pairs]
        yield before, pl.Series(after, dtype=pl.String)


def _worse(text: str, item: int, config: PoorTextConfig) -> str:
    """One text after `cut`, `drop` or `empty`; `item` is its item's hash."""
    if config.how == "empty":
        return "" if uniform(np.array([item], np.uint64))[0] < config.share else text
    words = text.split()
    if config.how == "cut":
        return " ".join(words[: round((1 - config.share) * len(words))])
    places = np.arange(len(words), dtype=np.uint64)
    stays = uniform(mixed(item, places)) >= config.share
    return " ".join(word for word, kept in zip(words, stays, strict=True) if kept)


def _exchanged(hashes: UInt64Array, share: float) -> NDArray[np.int64]:
    """Whose text each item has: int64 [V]; the chosen ones pass theirs on in a circle."""
    sources = np.arange(len(hashes))
    chosen = np.flatnonzero(uniform(hashes) < share)
    circle = chosen[np.argsort(mixed(hashes[chosen], 1), kind="stable")]
    sources[circle] = np.roll(circle, 1)
    return sources
