"""Dropout whose mask is a pure function of (key of the token, site in the model).

torch's generator gives a mask that depends on how the batch was cut over workers and on all that
was drawn before. Here a token carries a 64-bit key made from (seed, epoch, step, global index), so
one worker and many drop the same units, and a resumed run needs no generator state.  Our choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

# Multipliers of splitmix64's finaliser, as signed 64-bit integers.
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MASK_64 = (1 << 64) - 1


def mix(x: Tensor) -> Tensor:
    """Scramble int64 values by splitmix64's finaliser, in place."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch's shift repeats the sign bit; zeros must come in, or the top bits lose their entropy.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix_integers(*values: int) -> int:
    """Hash a tuple of integers to one signed 64-bit key."""
    state = 0
    for value in values:
        state = (state + value + (_GOLDEN & _MASK_64)) & _MASK_64
        state = ((state ^ (state >> 30)) * (_MIX_1 & _MASK_64)) & _MASK_64
        state = ((state ^ (state >> 27)) * (_MIX_2 & _MASK_64)) & _MASK_64
        state ^= state >> 31
    return state - (1 << 64) if state >> 63 else state


def uniform_bits(keys_M: Tensor, width: int) -> Tensor:
    """Return int16 [M, width], uniform over its 65,536 values, a pure function of keys [M]."""
    lanes = torch.arange(1, -(-width // 4) + 1, device=keys_M.device) * _GOLDEN
    words = mix(keys_M[:, None] + lanes)
    return words.view(torch.int16)[:, :width]


def keep_mask(keys_M: Tensor, width: int, p: float) -> Tensor:
    """Return bool [M, width]: False with probability p (to 1/65,536)."""
    return uniform_bits(keys_M, width) >= round(p * 65536) - 32768


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
        assert len(self.keys) == len(x_Td)
        kept = keep_mask(self.keys, x_Td.shape[1], self.p)
        return x_Td * kept.to(x_Td.dtype).mul_(1.0 / (1.0 - self.p))


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
