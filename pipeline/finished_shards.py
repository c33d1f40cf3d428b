"""Events as the corpus has them: only those left, by user and time, ties broken by a fixed hash."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.cleaning import CleanEvents
from pipeline.event_order import event_order
from pipeline.shards import Shard, starts_of
from pipeline.stable_hash import UInt64Array, mixed


@dataclass(frozen=True)
class Finish:
    """Takes what is left of shards into shards of their own, in the corpus's order.

    is_sequence: whether a user's events are numbered anew, from 0.
    domain_hash: of the domain's name.
    place: int32 [codes], of each item's code among those left.
    item_hashes: uint64 [I], of the ids of the items left.
    """

    is_sequence: bool
    domain_hash: int
    place: NDArray[np.int32]
    item_hashes: UInt64Array

    def all(self, clean: CleanEvents, folder: Path) -> tuple[Shard, ...]:
        """The shards that have events left; those before are removed."""
        finished = []
        for number, shard in enumerate(clean.shards):
            if shard.column("kept").any():
                finished.append(self._one(shard, folder / f"{number}"))
            shutil.rmtree(shard.folder)
        return tuple(finished)

    def _one(self, shard: Shard, folder: Path) -> Shard:
        kept = shard.column("kept")
        before = shard.column("lengths")
        lengths = np.add.reduceat(kept, starts_of(before), dtype=np.int64)
        present = lengths > 0
        keys = shard.keys().series(0, shard.n_users).filter(pl.Series(present))
        lengths, hashes = lengths[present], shard.column("hashes")[present]
        items = self.place[shard.column("items")[kept]]
        times = shard.column("timestamps")[kept]
        if self.is_sequence:
            times = np.arange(len(times)) - np.repeat(starts_of(lengths), lengths)
        ties = mixed(
            np.repeat(hashes, lengths),
            self.domain_hash,
            self.item_hashes[items],
            times.view(np.uint64),
        )
        order = event_order(np.repeat(np.arange(len(lengths)), lengths), times, ties, items)
        return Shard.write(
            folder,
            keys,
            lengths=lengths,
            items=items[order],
            timestamps=times[order],
            ties=ties[order],
        )
