"""Shards of recommendations on the cluster: many recommenders (Ray Data actors), a file a shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data

from pipeline.recommender.batches import Request, write_shard
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.group import dismiss_group


class _RecommendingActor:
    """One bundle, opened once and used for many shards."""

    def __init__(self, request: Request, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._request = request
        self._opened: Any = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        counts, mistake = [], None
        for number in batch["shard"].to_pylist():
            try:
                self._opened = self._opened or self._request.load()
                counts.append(write_shard(self._request, number, *self._opened))
            except ValueError as error:  # the user's to mend: Ray would show it as a traceback
                counts.append(0)
                mistake = str(error)
        mistakes = pa.array([mistake] * len(batch), pa.string())
        return pa.table({"users": pa.array(counts, pa.int64()), "mistake": mistakes})


def shards_on_cluster(
    request: Request, numbers: list[int], compute: ComputeConfig
) -> Iterator[int]:
    """Write shards; yields the users of each finished one, in no fixed order.

    Args:
        request: bundle, histories and output are folders that all workers see.
        numbers: of the shards.
        compute: how many actors, and of what size.

    Raises:
        ValueError: a mistake of the user's in a shard; the others of its block are written.
    """
    if not numbers:
        return
    write = _here if compute.in_process else _on_actors
    for batch in write(request, numbers, compute):
        for count, mistake in zip(*batch.to_pydict().values(), strict=True):
            if mistake is not None:
                raise ValueError(mistake)
            yield count


def _here(request: Request, numbers: list[int], compute: ComputeConfig) -> Iterator[pa.Table]:
    actor = _RecommendingActor(request, compute.cpus_per_worker)
    for number in numbers:
        yield actor(pa.table({"shard": [number]}))


def _on_actors(request: Request, numbers: list[int], compute: ComputeConfig) -> Iterator[pa.Table]:
    dismiss_group()  # Ray Data wants all workers, and some for tasks of its own
    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = min(compute.workers, len(numbers))
    blocks = [pa.table({"shard": [number]}) for number in numbers]
    yield from (
        ray.data.from_arrow(blocks)
        .map_batches(
            _RecommendingActor,
            fn_constructor_args=(request, compute.cpus_per_worker),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=compute.cpus_per_worker,
            num_gpus=compute.gpus_per_worker or None,
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
