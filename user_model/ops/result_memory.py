"""Memory for the large results of the CPU kernels, kept from call to call.

Training makes results of the same sizes in every step. malloc gives memory of such sizes back to
the system when it is freed, so each call pays anew for every page it touches, which took up to
half of the scan's time where that was measured. Here a result's memory returns to a store when the
last tensor on it is gone, and the next result of about its size takes it. The store never holds
more than its results needed at one time; `release` empties it.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Buffer = NDArray[np.uint8]

# Bytes of a result from which on it pays: below it malloc's own heap keeps the pages.
SMALLEST = 1 << 20
# The system's large pages, where it has them: a five-hundredth of the page faults.
_LARGE_PAGE = 1 << 21
# A buffer is taken for a result that would need this part of its pages or more.
_LEAST_USE = 2 / 3


class ResultMemory:
    """Buffers that are lent to tensors and come back by themselves; safe to use from threads."""

    def __init__(self) -> None:
        self._idle: list[Buffer] = []
        # Filled by finalizers, which run at any moment and in any thread: they take no lock.
        self._returned: deque[Buffer] = deque()
        self._lock = threading.Lock()
        self._mapped = self._most_lent = 0

    @property
    def idle_bytes(self) -> int:
        """Bytes that wait for their next use."""
        with self._lock:
            self._collect()
            return sum(buffer.nbytes for buffer in self._idle)

    def release(self) -> None:
        """Give all idle memory back to the system, and forget how much was once needed."""
        with self._lock:
            self._collect()
            self._drop(len(self._idle))
            self._most_lent = self._mapped

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return what `like.new_empty(shape)` does; contiguous, of like's dtype, on the CPU."""
        size = int(np.prod(shape, dtype=np.int64)) * like.dtype.itemsize
        if size < SMALLEST:
            return like.new_empty(shape)
        return self._lend(size).view(like.dtype).view(*shape)

    def empty_like(self, values: Tensor) -> Tensor:
        """Return what `torch.empty_like(values)` does: a dense tensor keeps its strides."""
        if values.numel() * values.dtype.itemsize < SMALLEST:
            return torch.empty_like(values)
        strides = torch.empty_like(values, device="meta").stride()
        flat = self._lend(values.numel() * values.dtype.itemsize).view(values.dtype)
        return flat.as_strided(values.shape, strides)

    def _lend(self, size: int) -> Tensor:
        with self._lock:
            self._collect()
            buffer = self._fitting(size)
            if buffer is None:
                buffer = self._map(size)
            lent = self._mapped - sum(idle.nbytes for idle in self._idle)
            self._most_lent = max(self._most_lent, lent)
        # torch holds the view, the view's end gives the buffer back.
        view = buffer[:size]
        weakref.finalize(view, self._returned.append, buffer)
        return torch.from_numpy(view)

    def _collect(self) -> None:
        while self._returned:
            self._idle.append(self._returned.popleft())

    def _fitting(self, size: int) -> Buffer | None:
        """Take out the smallest idle buffer that holds `size` bytes and not many more."""
        size = _whole_pages(size)
        fits = [b for b in self._idle if size <= b.nbytes and b.nbytes * _LEAST_USE <= size]
        if not fits:
            return None
        best = min(fits, key=len)
        self._idle = [buffer for buffer in self._idle if buffer is not best]
        return best

    def _map(self, size: int) -> Buffer:
        """Map new memory; what has been idle longest makes room for it."""
        size = _whole_pages(size)
        too_many = self._mapped + size - self._most_lent
        n_dropped = 0
        while too_many > 0 and n_dropped < len(self._idle):
            too_many -= self._idle[n_dropped].nbytes
            n_dropped += 1
        self._drop(n_dropped)
        self._mapped += size
        memory = mmap.mmap(-1, size + _LARGE_PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, dtype=np.uint8)
        first = -whole.ctypes.data % _LARGE_PAGE
        return whole[first : first + size]

    def _drop(self, number: int) -> None:
        self._mapped -= sum(buffer.nbytes for buffer in self._idle[:number])
        del self._idle[:number]


def _whole_pages(size: int) -> int:
    return -(-size // _LARGE_PAGE) * _LARGE_PAGE


results = ResultMemory()
