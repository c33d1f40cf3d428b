"""Compiled once on a machine: numba's cache on disk, made to notice every file a kernel is made of.

Numba looks at the file of the outermost function alone, and would go on running old code after a
change in a file that it calls.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


@functools.cache
def sources() -> str:
    """Return the sha256 of all files of this package that hold compiled code, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        content = file.read_bytes()
        if b"from numba" in content:
            digest.update(file.name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


class _SourcesCache(FunctionCache):
    """Numba's cache of one function, with `sources()` in the key of each entry."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), sources())


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function on its first call, without the GIL, and keep the code on disk.

    Raises:
        RuntimeError: no folder for the cache can be written to; set NUMBA_CACHE_DIR to one.
    """
    # Division by zero gives infinity or NaN, as everywhere in tensors: no exception in a thread.
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = _SourcesCache(function)
    compiled: Callable[..., None] = dispatcher
    return compiled
