"""Random numbers of the invented marketplace: each a hash of what it is for, in no order.

So a person's numbers depend on nobody else: not on how many people there are, not on how many
are drawn at a time, not on other shops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.stable_hash import UInt64Array, hash_text, mixed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def key(*labels: object) -> int:
    """The key of one purpose, 0 to 2**64 - 1, for example `key(seed, "books", "share")`."""
    return hash_text("/".join(map(str, labels)))


def stream(*labels: object) -> np.random.Generator:
    """A generator of its own for one purpose: for what is drawn once and as a whole."""
    return np.random.Generator(np.random.PCG64(key(*labels)))


def bits(*parts: UInt64Array | Ints | int) -> UInt64Array:
    """64 random bits for each combination of parts, which broadcast together; no part below 0."""
    return mixed(*(part.view(np.uint64) if isinstance(part, np.ndarray) else part
                   for part in parts))  # fmt: skip


def uniform(*parts: UInt64Array | Ints | int) -> Floats:
    """The bits as a number, 0 <= x < 1."""
    fraction = (bits(*parts) >> np.uint64(11)).astype(np.float64)
    return fraction * 2.0**-53
