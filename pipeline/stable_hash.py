"""64-bit hashes that never change: not with Python's seed, a library's version or the machine."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]

_DIGESTS = 1 << 14
_ODD = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


def hash_text(text: str) -> int:
    """The hash of one text, 0 to 2**64 - 1: the first 8 bytes of its BLAKE2b."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def hash_texts(texts: Iterable[str]) -> UInt64Array:
    """`hash_text` of each text, uint64 [n]."""
    rest, hashes = iter(texts), [np.empty(0, dtype=np.uint64)]
    # Some at a time: a digest as Python's object is six times as large as what it holds.
    while some := list(islice(rest, _DIGESTS)):
        digests = [blake2b(text.encode("utf-8"), digest_size=8).digest() for text in some]
        hashes.append(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))
    return np.concatenate(hashes)


def mixed(*parts: UInt64Array | int) -> UInt64Array:
    """One hash out of several, element by element and in their order (splitmix64 steps).

    Args:
        parts: uint64 arrays that broadcast together, or numbers from 0 to 2**64 - 1.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _finish((state ^ np.asarray(part, dtype=np.uint64)) + _ODD)
    return np.asarray(state, dtype=np.uint64)


def uniform(hashes: UInt64Array) -> NDArray[np.float64]:
    """Hashes as numbers of [0, 1): who is below a share is below every larger one.

    >>> uniform(np.array([0, 1 << 63], np.uint64)).tolist()
    [0.0, 0.5]
    """
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finish(value: UInt64Array) -> UInt64Array:
    value = (value ^ (value >> np.uint64(30))) * _M1
    value = (value ^ (value >> np.uint64(27))) * _M2
    return value ^ (value >> np.uint64(31))
