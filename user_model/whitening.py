"""Text vectors with columns that are not correlated and all vary alike.

Shapes: V items, D domains, k columns kept.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Whitening:
    """What turns text vectors into whitened ones: those of a table, and of items that come later.

    Attributes:
        mean: of each column of the table, float64 [d_text].
        directions: float64 [d_text, k], scaled so that each component has deviation 1.
    """

    mean: Tensor
    directions: Tensor

    @classmethod
    def of(cls, vectors_Vt: Tensor, most: int) -> Self:
        """Find the leading principal components of vectors [V, d_text], `most` at most.

        Directions in which the vectors do not differ are left out. A component's sign, which no
        theory gives, is that of the largest weight.
        """
        mean_t = vectors_Vt.double().mean(0)
        centred_Vt = vectors_Vt.double() - mean_t
        variances_t, directions_tt = torch.linalg.eigh(centred_Vt.T @ centred_Vt / len(centred_Vt))
        variances_t, directions_tt = variances_t.flip(0)[:most], directions_tt.flip(1)[:, :most]
        kept = variances_t > 1e-9 * variances_t[:1].clamp_min(1e-30)
        variances_k, directions_tk = variances_t[kept], directions_tt[:, kept]
        largest = directions_tk.abs().argmax(0, keepdim=True)
        signs_k = directions_tk.gather(0, largest).sign()
        return cls(mean_t, directions_tk * signs_k / variances_k.sqrt())

    def __call__(self, vectors_Vt: Tensor) -> Tensor:
        """Return the components of vectors [V, d_text], float32 [V, k]."""
        return ((vectors_Vt.double() - self.mean) @ self.directions).float()


def whitened(vectors_Vt: Tensor, most: int) -> Tensor:
    """Return the leading principal components of vectors [V, d_text]: float32 [V, k <= most].

    Each column has mean 0 and deviation 1 over the V items, and no two are correlated. Starting
    ids from components of text vectors is of Harte et al. (2023); whitening them is our choice: it
    was better than their natural scale (docs/log.md).
    """
    return Whitening.of(vectors_Vt, most)(vectors_Vt)


def whitened_by_domain(text_Vt: Tensor, starts: Tensor) -> Tensor:
    """Return each domain's text vectors with columns of deviation 1 that are not correlated.

    Args:
        text_Vt: float [V, d_text].
        starts: int64 [D + 1], the first item of each domain, and the number of items.

    Returns:
        float32 [V, d_text]; zeros where a domain has fewer directions than columns.
    """
    width = text_Vt.shape[1]
    parts = [whitened(text_Vt[first:end], width) for first, end in pairwise(starts.tolist())]
    return torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in parts])
