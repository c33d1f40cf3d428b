"""Run compiled kernels that release the GIL on as many threads as torch has.

The kernels write disjoint memory and sum by work item, so the number of threads changes no bit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

# Below this many tokens a second thread costs more than it brings.
TOKENS_A_THREAD = 512


def spread(run: Callable[[int, int], None], weights: NDArray[np.int64], *, n_tokens: int) -> None:
    """Call `run(first, last)` on contiguous ranges that cover all work items, in parallel.

    Args:
        run: does the items first .. last - 1; called from several threads at once.
        weights: int64 [I], the cost of each item.
        n_tokens: tokens of the batch, which decide how many threads are worth it.
    """
    if not len(weights):
        return
    threads = max(1, min(torch.get_num_threads(), n_tokens // TOKENS_A_THREAD, len(weights)))
    if threads == 1:
        run(0, len(weights))
        return
    ends = np.cumsum(weights)
    shares = np.arange(1, threads) * (int(ends[-1]) / threads)
    # Each share ends where an item does that is nearest: an item goes where its middle lies.
    cuts = [0, *np.searchsorted(ends - weights / 2, shares).tolist(), len(weights)]
    ranges = [(first, last) for first, last in pairwise(cuts) if last > first]
    waiting = [_pool(threads, os.getpid()).submit(run, *part) for part in ranges[1:]]
    run(*ranges[0])
    for future in waiting:
        future.result()


def spread_parts(run: Callable[[int, int], None], part_tokens: int, *, n_tokens: int) -> None:
    """Call `run(first, last)` as `spread` does, for parts of `part_tokens` tokens each."""
    begins = np.arange(0, n_tokens, part_tokens)
    spread(run, np.minimum(part_tokens, n_tokens - begins), n_tokens=n_tokens)


@functools.lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # The process's id is part of the key: a fork inherits no threads.
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="hydrarec-ops")
