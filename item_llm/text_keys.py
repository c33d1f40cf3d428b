"""Keys of item texts: sha256 over the encoder's fingerprint and the normalised text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from item_llm.prompts import normalise_text

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES = hashlib.sha256().digest_size


def text_key(fingerprint: str, text: str) -> str:
    """Hex sha256 that a text's vector is stored under."""
    return hashlib.sha256(f"{fingerprint}\n{normalise_text(text)}".encode()).hexdigest()


def keys_of(fingerprint: str, texts: Iterable[str]) -> pa.Array:
    """The `text_key` of each text as 32 bytes: binary [n].

    Not fixed_size_binary: with keys of that type Lance does not notice that two writers at once
    insert the same one (measured, pylance 14: 280 to 692 duplicates of 715 keys; of this type 0).
    """
    import pyarrow as pa

    start = hashlib.sha256(f"{fingerprint}\n".encode())
    digests = bytearray()
    for text in texts:
        digest = start.copy()
        digest.update(normalise_text(text).encode())
        digests += digest.digest()
    offsets = np.arange(0, len(digests) + 1, KEY_BYTES, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bytes(digests))]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def order_of(keys: pa.Array) -> str:
    """Checksum over keys, as `keys_of` gives them, in their order, and so over their count."""
    start = KEY_BYTES * keys.offset
    data = memoryview(keys.buffers()[2])[start : start + KEY_BYTES * len(keys)]
    return hashlib.sha256(data).hexdigest()


def checked_fingerprint(fingerprint: str) -> str:
    """The fingerprint itself, which becomes the name of a folder.

    Raises:
        ValueError: it is no hexadecimal sha256.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise ValueError(f"fingerprint {fingerprint!r}: expected 64 hexadecimal digits")
    return fingerprint
