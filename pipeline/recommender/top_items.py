"""Exact top k of a whole catalogue: blocks of scores in a buffer that is used again.

All scores are computed, none is kept but the best: memory is a block's, whatever the catalogue.
Equal scores are ordered by row, so the answer is the same every time, and for every block size.

Shapes: b users, V items, w width of their vectors, m items of a block, k items kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.recommender.top_items_kernels import keep_best, leave_best

_BLOCK_SCORES = 1 << 18  # 1 MB of float32, about what a core has of cache; our choice [D]
_FEWEST_COLUMNS = 256
_MOST_USERS = 1024
# Places of a list for the k best: rarely full, and little to look through when it is.
_ROOM, _LEAST_ROOM = 4, 32


@dataclass(frozen=True, eq=False)
class TopItems:
    """The best items of b users, best first.

    Attributes:
        rows: int64 [b, k]; beyond a user's count they mean nothing.
        scores: float32 [b, k].
        counts: int64 [b]: fewer than k where a user has seen nearly all.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]


@torch.inference_mode()
def top_items(
    users_bw: Tensor,
    tables: Iterable[NDArray[np.float32]],
    k: int,
    seen: Sequence[NDArray[np.int64]] | None = None,
) -> TopItems:
    """The k items of highest inner product with each user.

    Args:
        users_bw: float32, the users' vectors.
        tables: float32 [*, w] each, the items' vectors, in the order of the rows.
        k: items wanted, 1 or more.
        seen: rows, int64, of items that each user is not to get; None: none.

    Raises:
        ValueError: a user's vector is not finite.
    """
    tables = list(tables)
    if len(users_bw) > _MOST_USERS:
        parts = [slice(at, at + _MOST_USERS) for at in range(0, len(users_bw), _MOST_USERS)]
        return _joined(
            [top_items(users_bw[p], tables, k, None if seen is None else seen[p]) for p in parts]
        )
    if not bool(torch.isfinite(users_bw).all()):
        raise ValueError("users: got vectors that are not finite; the model or its state is broken")
    lists = _Lists.empty(len(users_bw), k)
    hidden = None if seen is None else _Hidden.of(seen)
    columns = block_columns(len(users_bw), max(map(len, tables), default=0))
    buffer, first = torch.empty(len(users_bw) * columns), 0
    for table in tables:
        for at in range(0, len(table), columns):
            block_mw = torch.from_numpy(table[at : at + columns])
            shape = len(users_bw), len(block_mw)
            scores_bm = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(users_bw, block_mw.T, out=scores_bm)
            scores = scores_bm.numpy()
            if hidden is not None:
                hidden.hide(scores, first + at)
            lists.take(scores, first + at)
        first += len(table)
    return lists.best()


def block_columns(n_users: int, n_items: int) -> int:
    """Items whose scores are computed at a time, for so many users."""
    return min(max(_FEWEST_COLUMNS, _BLOCK_SCORES // max(n_users, 1)), n_items)


@dataclass(frozen=True, eq=False)
class _Lists:
    """What may be among the best of b users: see top_items_kernels."""

    k: int
    scores: NDArray[np.float32]
    rows: NDArray[np.int32]
    kept: NDArray[np.int64]
    bars: NDArray[np.float32]

    @classmethod
    def empty(cls, b: int, k: int) -> _Lists:
        shape = b, _ROOM * k + _LEAST_ROOM
        scores = np.zeros(shape, dtype=np.float32)
        bars = np.full(b, -np.inf, dtype=np.float32)
        rows, kept = np.zeros(shape, dtype=np.int32), np.zeros(b, dtype=np.int64)
        return cls(k, scores, rows, kept, bars)

    def take(self, scores_bm: NDArray[np.float32], first_row: int) -> None:
        keep_best(scores_bm, first_row, self.k, self.scores, self.rows, self.kept, self.bars)

    def best(self) -> TopItems:
        """The k best of each list, best first, equal ones by row."""
        leave_best(self.k, self.scores, self.rows, self.kept)
        scores, rows = self.scores[:, : self.k], self.rows[:, : self.k]
        scores[np.arange(self.k) >= self.kept[:, None]] = -np.inf
        order = np.lexsort((rows, -scores))
        return TopItems(
            np.take_along_axis(rows, order, 1).astype(np.int64),
            np.take_along_axis(scores, order, 1),
            self.kept,
        )


@dataclass(frozen=True, eq=False)
class _Hidden:
    """Seen items in the order of their rows, with whose they are."""

    rows: NDArray[np.int64]
    users: NDArray[np.int64]

    @classmethod
    def of(cls, seen: Sequence[NDArray[np.int64]]) -> _Hidden:
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *seen])
        users = np.repeat(np.arange(len(seen)), [len(one) for one in seen])
        order = np.argsort(rows, kind="stable")
        return cls(rows[order], users[order])

    def hide(self, scores_bm: NDArray[np.float32], first_row: int) -> None:
        """Make the scores of the block's seen items -inf, in place."""
        end_row = first_row + scores_bm.shape[1]
        low, high = np.searchsorted(self.rows, [first_row, end_row])
        scores_bm[self.users[low:high], self.rows[low:high] - first_row] = -np.inf


def _joined(parts: Sequence[TopItems]) -> TopItems:
    return TopItems(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
