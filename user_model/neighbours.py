"""Item-kNN in a few hundred columns: vectors whose products are how near items stand in histories.

    similarity(i, j) = sum over i and j taken 1 to 5 events apart of 1 / distance
                       / sqrt(count(i) * count(j)),      similarity(i, i) = 0

is what `item_knn` scores by. Its leading eigenvectors times the roots of their values give, against
a decayed mean of the history's, nearly the same lists as the sparse matrix (docs/log.md), and a
user's part of it is a row of fixed size, as all else that is kept of a user. Our choice [D].

Shapes: V items, D domains, k columns, w columns worked on.
"""

from itertools import pairwise

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from user_model.batching import Histories, Int64
from user_model.cooccurrence import by_roots, near_others

_SPARE = 64  # columns beyond those wanted, which take up what is not yet told apart
_ROUNDS = 8  # of the block power iteration


def neighbour_vectors(histories: Histories, domain_starts: Int64, columns: int) -> Tensor:
    """Return the items' vectors, float32 [V, columns].

    In each domain the rows' mean length is 1; columns that it lacks are zeros, and so is the row of
    an item that stands near no other. The same histories give the same vectors.

    Args:
        histories: rows of items below V.
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items V.
        columns: how many.
    """
    counts, taken_V = near_others(histories, int(domain_starts[-1]))
    roots_V = np.sqrt(np.maximum(taken_V, 1))
    parts = []
    for first, end in pairwise(domain_starts):
        scale = sparse.diags_array(1.0 / roots_V[first:end])
        leading_Vk = _leading(scale @ counts[first:end, first:end] @ scale, columns)
        parts.append(np.pad(leading_Vk, ((0, 0), (0, columns - leading_Vk.shape[1]))))
    return torch.from_numpy(np.vstack(parts).astype(np.float32))


def _leading(similarity: sparse.csr_array, most: int) -> NDArray[np.float64]:
    """Eigenvectors with the largest positive values, times the values' roots: [V, k <= most]."""
    size = similarity.shape[0]
    if size <= 2 * (most + _SPARE):
        values_w, vectors_Vw = np.linalg.eigh(similarity.toarray())
    else:
        values_w, vectors_Vw = _block_power(similarity, most + _SPARE)
    scaled_Vk = by_roots(values_w, vectors_Vw, most)
    return scaled_Vk / max(float(np.linalg.norm(scaled_Vk, axis=1).mean()), 1e-30)


def _block_power(
    matrix: sparse.csr_array, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [w] and vectors [V, w] of a symmetric matrix, those of least size inexact.

    Halko, Martinsson and Tropp (2011). The values told apart last are close to each other, so that
    which combination of their vectors is taken matters little, and exact ones cost twenty times as
    much.
    """
    # The start is fixed, or each call would end in other vectors.
    block_Vw = np.random.default_rng(0).standard_normal((matrix.shape[0], width))
    for _ in range(_ROUNDS):
        block_Vw, _unused = np.linalg.qr(matrix @ block_Vw)
    values_w, turn_ww = np.linalg.eigh(block_Vw.T @ (matrix @ block_Vw))
    return values_w, block_Vw @ turn_ww
