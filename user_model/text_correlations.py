"""How well each direction of a domain's texts tells which items stand near each other.

Whitened, all directions of text vectors count the same, those that tell nothing of the next item as
much as those that tell most. Their canonical correlations over pairs of near items (Hotelling 1936)
tell them apart, in closed form: where x and y are the whitened texts, of length 1, of the two items
of a pair, and directions b solve

    E[x y'] b = r E[x x'] b,      b' E[x x'] b = 1

the products of texts become x' B diag(max(r, 0)) B' y: each direction counts by its correlation r.
A domain has t * t numbers of it, whatever its number of items, so that they hold what is common to
many pairs and hardly the pairs themselves. Our choice [D]; what it brings is in docs/log.md.

Shapes: V items, D domains, t columns of text.
"""

from itertools import pairwise

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from user_model.batching import Histories, Int64
from user_model.cooccurrence import near_others

SHRINKAGE = 0.03  # share of E[x x'] that is the mean of its diagonal, or few items would decide


def correlated_directions(columns_Vt: Tensor, histories: Histories, domain_starts: Int64) -> Tensor:
    """Return what turns the columns of each domain's texts, float32 [D, t, t].

    Products of turned columns are those of the columns, each direction by its correlation, those
    of the largest first. A domain without pairs keeps its columns as they are. The same histories
    give the same directions.

    Args:
        columns_Vt: float [V, t], whitened texts of length 1.
        histories: rows of items below V; near are those at most `cooccurrence.WINDOW` apart, each
            pair by 1 / distance; an item tells nothing of itself.
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items V.
    """
    counts, _taken_V = near_others(histories, int(domain_starts[-1]))
    columns = columns_Vt.double().numpy()
    turned = [
        _turned(columns[first:end], counts[first:end, first:end])
        for first, end in pairwise(domain_starts)
    ]
    return torch.from_numpy(np.stack(turned).astype(np.float32))


def _turned(columns_Vt: NDArray[np.float64], counts_VV: sparse.csr_array) -> NDArray[np.float64]:
    """B diag(sqrt(max(r, 0))) of one domain, [t, t]."""
    width = columns_Vt.shape[1]
    near_V = np.asarray(counts_VV.sum(1)).ravel()
    if not near_V.any():
        return np.eye(width)
    together_tt = columns_Vt.T @ (counts_VV @ columns_Vt) / near_V.sum()
    alone_tt = columns_Vt.T @ (near_V[:, None] * columns_Vt) / near_V.sum()
    even_tt = np.trace(alone_tt) / width * np.eye(width)
    alone_tt = (1.0 - SHRINKAGE) * alone_tt + SHRINKAGE * even_tt
    together_tt = (together_tt + together_tt.T) / 2  # but for rounding it is
    correlations_t, directions_tt = scipy.linalg.eigh(together_tt, alone_tt)
    directions_tt = directions_tt[:, ::-1] * np.sqrt(correlations_t[::-1].clip(min=0.0))
    # A direction's sign, which no theory gives, is that of its largest weight.
    largest_t = np.abs(directions_tt).argmax(0)
    return directions_tt * np.where(directions_tt[largest_t, range(width)] < 0.0, -1.0, 1.0)
