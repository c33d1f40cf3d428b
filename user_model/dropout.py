"""Dropout of the user models: by tokens' keys in training, torch's own elsewhere.

A token carries a 64-bit key made from (seed, epoch, step, global index), so one worker and many
drop the same units, and a resumed run needs no generator state.  Our choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from user_model import ops
from user_model.ops.dropout import mix, mix_integers


class TokenDropout(nn.Module):
    """Dropout of [T, d] activations, keyed by token inside `keyed_dropout`, torch's own outside.

    Args:
        p: share of the units dropped in training; in [0, 1).
    """

    keys: Tensor | None

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.keys = None

    def forward(self, x_Td: Tensor) -> Tensor:
        """Drop units of x [T, d] in training and scale the rest by 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x_Td
        if self.keys is None:
            return functional.dropout(x_Td, self.p)
        return ops.token_dropout(x_Td, self.keys, self.p)


@contextmanager
def keyed_dropout(module: nn.Module, keys_T: Tensor) -> Iterator[None]:
    """Give every TokenDropout inside `module` the tokens' int64 keys [T], another stream a site."""
    sites = [m for m in module.modules() if isinstance(m, TokenDropout)]
    try:
        for number, site in enumerate(sites):
            site.keys = mix(keys_T + mix_integers(number))
        yield
    finally:
        for site in sites:
            site.keys = None
