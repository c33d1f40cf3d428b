"""Compiled once on a machine: where numba keeps kernels on disk, and when they are out of date.

Numba's own cache stands beside the file of the outermost function, and looks at that file alone: it
would compile again in every copy of the project (a Ray job's working directory is one), and go on
running old code after a change in a file that is called. Here the name of the folder is a hash of
all files of the package that hold compiled code.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile


@functools.cache
def sources(package: Path | None = None) -> str:
    """Return the sha256 of all files of a package that hold compiled code, hexadecimal.

    Args:
        package: its folder; None: this one.
    """
    digest = hashlib.sha256()
    for file in sorted((package or Path(__file__).parent).glob("*.py")):
        content = file.read_bytes()
        if b"from numba" in content or b"kernel_cache import kernel" in content:
            digest.update(file.name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


@functools.cache
def folder(package: Path | None = None) -> Path:
    """Return where compiled kernels are kept: under NUMBA_CACHE_DIR, or the user's cache folder.

    Args:
        package: the folder of the package whose kernels they are; None: this one.

    Raises:
        RuntimeError: it cannot be made.
    """
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    base = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(user, "hydrarec")
    kept = Path(base) / "kernels" / sources(package)[:16]
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(
            f"kernel cache: {kept} cannot be made ({error}); set NUMBA_CACHE_DIR to a folder that "
            "can be written to"
        ) from error
    return kept


class _SourcesCache(FunctionCache):
    """Numba's cache of one function, in `folder()`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        package = Path(function.__code__.co_filename).parent
        self._cache_path = str(folder(package))
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=sources(package),
        )


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, without the GIL, and keep the code on disk.

    Raises:
        RuntimeError: no folder for the cache can be written to.
    """
    # Division by zero gives infinity or NaN, as everywhere in tensors: no exception in a thread.
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = _SourcesCache(function)
    compiled: Callable[..., Any] = dispatcher
    return compiled
