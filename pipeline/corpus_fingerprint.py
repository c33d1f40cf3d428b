"""The fingerprint of a corpus: what it is made of, and the hash of all that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.string_table import file_digest

ARRAYS = {"offsets": np.int64, "items": np.int32, "timestamps": np.int64}
TABLES = ("user_keys", "item_ids", "texts")
_BLOCK = 1 << 22


def memory_fingerprint(domains: Sequence[Mapping[str, Any]], parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a corpus's contents.

    Args:
        domains: plain data, as in the manifest.
        parts: an array or a StringTable for each name in ARRAYS and TABLES.
    """
    arrays = {name: np.ascontiguousarray(parts[name]) for name in ARRAYS}
    return _fingerprint(
        domains,
        {name: (array, (array.data.cast("B"),)) for name, array in arrays.items()},
        {name: parts[name].digest() for name in TABLES},
    )


def file_fingerprint(domains: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The same of the files in a folder, which are read and not mapped."""
    arrays = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        arrays[name] = (array, _blocks(file, array.offset))
    return _fingerprint(
        domains, arrays, {name: file_digest(folder / f"{name}.arrow") for name in TABLES}
    )


def _fingerprint(
    domains: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, tuple[NDArray[Any], Iterable[bytes | memoryview]]],
    tables: Mapping[str, str],
) -> str:
    canonical = json.dumps(list(domains), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode())
    for name, (array, blocks) in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for block in blocks:
            digest.update(block)
    for name, table in tables.items():
        digest.update(f"{name} {table}".encode())
    return digest.hexdigest()


def _blocks(file: Path, offset: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(offset)
        while block := stream.read(_BLOCK):
            yield block
