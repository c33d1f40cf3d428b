"""States in this process's memory: bounded in bytes, least recently used first out, expiring."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from pipeline.serving.store import NOTHING, Counts, Kept, NewItem

# What Python holds for an entry beside the bytes of its key and value.
ENTRY_BYTES = 400


class _Entry(NamedTuple):
    kept: Kept
    used: float


class MemoryStore:
    """A `Store` in memory.

    Args:
        max_bytes: bound on keys and values together, with `ENTRY_BYTES` for each.
        seconds: how long a state is kept after it was last read or written.
        clock: seconds that only grow.
    """

    def __init__(
        self, max_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes, self._seconds, self._clock = max_bytes, seconds, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the one used last stands last
        self._items: list[NewItem] = []
        self._stamps = itertools.count(1)
        self._bytes = self._evicted = self._expired = 0
        self._lock = threading.Lock()

    def read(self, key: str) -> Kept | None:
        """The value of a key, which thereby counts as used."""
        with self._lock:
            self._expire()
            if (entry := self._entries.get(key)) is None:
                return None
            self._entries[key] = entry._replace(used=self._clock())
            self._entries.move_to_end(key)
            return entry.kept

    def replace(self, key: str, value: bytes, stamp: bytes) -> bool:
        """Write a value if the key's stamp is still `stamp`; other states may have to leave.

        Raises:
            ValueError: the value alone is larger than the store.
        """
        size = _size(key, value)
        if size > self._max_bytes:
            raise ValueError(
                f"state of {size} bytes: expected at most {self._max_bytes}, what the store holds "
                "altogether; give it more memory"
            )
        with self._lock:
            self._expire()
            before = self._entries.get(key)
            if (before.kept.stamp if before else NOTHING) != stamp:
                return False
            if before:
                self._remove(key)
            while self._bytes + size > self._max_bytes:
                self._remove(next(iter(self._entries)))
                self._evicted += 1
            fresh = next(self._stamps).to_bytes(8, "big")
            self._entries[key] = _Entry(Kept(value, fresh), self._clock())
            self._bytes += size
            return True

    def items_since(self, count: int) -> list[NewItem]:
        """All added items after the first `count`."""
        with self._lock:
            return self._items[count:]

    def append_item(self, item: NewItem, count: int) -> bool:
        """Append an item if there are still `count`."""
        with self._lock:
            if len(self._items) != count:
                return False
            self._items.append(item)
            return True

    def counts(self) -> Counts:
        """What is held, after what has expired has left."""
        with self._lock:
            self._expire()
            return Counts(len(self._entries), self._bytes, self._evicted, self._expired)

    def _expire(self) -> None:
        oldest = self._clock() - self._seconds
        while self._entries and next(iter(self._entries.values())).used < oldest:
            self._remove(next(iter(self._entries)))
            self._expired += 1

    def _remove(self, key: str) -> None:
        self._bytes -= _size(key, self._entries.pop(key).kept.value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
