"""Item vectors from which items stand near each other in histories, with nothing trained.

The leading eigenvectors of the positive pointwise mutual information of items that are near each
other: what a model of ids spends its first epochs to find (Levy, Goldberg and Dagan 2015, for
words). Windows, weights and smoothing are our choice (docs/log.md).

Shapes: V items, E events, U rows, k columns.
"""

from itertools import pairwise

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh
from torch import Tensor

from user_model.batching import Histories, Int64

WINDOW = 5  # items whose distance in a history is more have nothing to do with each other
SMOOTHING = 0.75  # of an item's share as the context of others, so that rare ones weigh less
_LEAST_ROW = 0.01  # root mean square of a row, below which it tells nothing; of all rows it is 1


def cooccurrence_vectors(
    histories: Histories, domain_starts: Int64, most: int
) -> tuple[Tensor, Tensor]:
    """Return a vector for each item, near for items that stand near each other in histories.

    Each domain has columns of its own: those of all domains together would be shared out among
    them, most of them to the ones with the fewest items. The same histories give the same vectors.
    200,000 items, 4.8 million events and 64 columns take 66 s of one core and 2.8 GB.

    Args:
        histories: U rows of items below V.
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items V.
        most: columns at most.

    Returns:
        float32 [V, k <= most], in each domain of root mean square 1, the columns with the largest
        eigenvalue first, none for one that is not above 0 (zeros where another domain has more);
        and bool [V], the items that it tells something of.
    """
    counts, _taken_V = near_counts(histories, int(domain_starts[-1]))
    parts = [_scaled(counts[first:end, first:end], most) for first, end in pairwise(domain_starts)]
    columns = max(part.shape[1] for part in parts)
    vectors_Vk = np.vstack([np.pad(p, ((0, 0), (0, columns - p.shape[1]))) for p in parts])
    told = [np.sqrt((part**2).sum(1) / max(part.shape[1], 1)) > _LEAST_ROW for part in parts]
    return torch.from_numpy(vectors_Vk).float(), torch.from_numpy(np.concatenate(told))


def _scaled(counts: sparse.csr_array, most: int) -> NDArray[np.float64]:
    """Eigenvectors of a domain's information times the square roots of their values, [V, k]."""
    scaled_Vk = by_roots(*_leading(_positive_information(counts), most), most)
    return scaled_Vk / max(np.sqrt(np.mean(scaled_Vk**2)) if scaled_Vk.size else 0.0, 1e-30)


def near_counts(histories: Histories, n_items: int) -> tuple[sparse.csr_array, Int64]:
    """How often items stand within WINDOW of each other, and how often each was taken.

    Args:
        histories: rows of items below V.
        n_items: V.

    Returns:
        float64 [V, V], symmetric, each time by 1 / distance; int64 [V].
    """
    offsets = np.asarray(histories.offsets, dtype=np.int64)
    items = np.asarray(histories.items, dtype=np.int64)
    row_E = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = sparse.csr_array((n_items, n_items))
    for distance in range(1, WINDOW + 1):
        first = np.flatnonzero(row_E[:-distance] == row_E[distance:])
        counts = counts + _pairs(items[first], items[first + distance], 1.0 / distance, n_items)
    return counts + counts.T, np.bincount(items, minlength=n_items)


def near_others(histories: Histories, n_items: int) -> tuple[sparse.csr_array, Int64]:
    """`near_counts` without those of an item near itself."""
    counts, taken_V = near_counts(histories, n_items)
    counts.setdiag(0.0)
    counts.eliminate_zeros()
    return counts, taken_V


def _pairs(one: Int64, other: Int64, weight: float, n_items: int) -> sparse.csr_array:
    weights = np.full(len(one), weight)
    return sparse.coo_array((weights, (one, other)), shape=(n_items, n_items)).tocsr()


def _positive_information(counts: sparse.csr_array) -> sparse.csr_array:
    """Positive pointwise mutual information, made symmetric: [V, V]."""
    totals_V = np.asarray(counts.sum(1)).ravel()
    smoothed_V = totals_V**SMOOTHING
    pairs = counts.tocoo()
    one, other = pairs.coords
    odds = pairs.data * smoothed_V.sum() / (totals_V[one] * smoothed_V[other])
    known = sparse.coo_array((np.maximum(np.log(odds), 0.0), (one, other)), shape=counts.shape)
    information = known.tocsr()
    return (information + information.T) * 0.5


def _leading(
    matrix: sparse.csr_array, most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues, `most` at least if there are so many, and their vectors [V, .]."""
    size = matrix.shape[0]
    if size <= 4 * most:
        values, vectors = np.linalg.eigh(matrix.toarray())
    else:
        # The start is fixed, or each call would end in other signs.
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(matrix, k=most, which="LA", v0=start)
    return values, vectors


def by_roots(
    values_w: NDArray[np.float64], vectors_Vw: NDArray[np.float64], most: int
) -> NDArray[np.float64]:
    """Eigenvectors with the largest values above 0, descending, times their roots: [V, k]."""
    order = np.argsort(-values_w, kind="stable")[:most]
    order = order[values_w[order] > 1e-9 * max(float(values_w.max(initial=0.0)), 1e-30)]
    return vectors_Vw[:, order] * np.sqrt(values_w[order])
