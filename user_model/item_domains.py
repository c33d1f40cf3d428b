"""What domains add to the vectors of their items: a vector of the domain, a projection of its own.

Both begin at zero, so that a fresh table is that of one catalogue. Our choice [D].
Shapes: D domains, M items asked for, d width of the model.
"""

import torch
from torch import Tensor, nn


class ItemDomains(nn.Module):
    """A vector, and a projection of the text, for each domain.

    Args:
        starts: int64 [D + 1], the first item of each domain, and the number of items.
        dim: width d of the item vectors.
        d_text: width of the text vectors, for projections; 0: none.
        embedding: whether each domain has a vector, which is added to its items'.
    """

    starts: Tensor

    def __init__(self, starts: Tensor, dim: int, *, d_text: int, embedding: bool) -> None:
        super().__init__()
        self.register_buffer("starts", starts.clone(), persistent=False)
        n_domains = len(starts) - 1
        self.vectors = nn.Parameter(torch.zeros(n_domains, dim)) if embedding else None
        shape = (n_domains, d_text, dim)
        self.projections = nn.Parameter(torch.zeros(shape)) if d_text else None

    def forward(self, items_M: Tensor, text_Mt: Tensor | None) -> Tensor:
        """What is added to the items' vectors, [M, d].

        Args:
            items_M: int64 [M], global item positions.
            text_Mt: [M, d_text], their standardised text vectors; needed for projections.
        """
        domains_M = torch.bucketize(items_M, self.starts[1:-1], right=True)
        added = [] if self.vectors is None else [self.vectors[domains_M]]
        if self.projections is not None:
            assert text_Mt is not None
            added.append(_by_group(text_Mt, domains_M, self.projections))
        return torch.stack(added).sum(0)


def _by_group(text_Mt: Tensor, domains_M: Tensor, projections_Dtd: Tensor) -> Tensor:
    """Each row times its own domain's matrix: one product a domain, [M, d]."""
    order = torch.argsort(domains_M, stable=True)
    sizes = torch.bincount(domains_M, minlength=len(projections_Dtd)).tolist()
    parts = torch.split(text_Mt[order], sizes)
    products = [part @ matrix for part, matrix in zip(parts, projections_Dtd, strict=True)]
    return torch.cat(products)[torch.argsort(order)]
