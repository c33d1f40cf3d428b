"""Dropout whose mask is a pure function of a token's key, and the keys' hash.

torch's generator gives a mask that depends on how the batch was cut over workers and on all that
was drawn before. A mask of keys is the same for one worker and many, and needs no state to go on
from. Our choice.

Shapes: T tokens, M keys, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from user_model.ops.backends import runs_compiled_if

# Bytes of a result from which on the compiled form is the faster one, to 4.5 times (a Zen 4).
LEAST_COMPILED = 1 << 19
# Multipliers of splitmix64's finaliser, as signed 64-bit integers.
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MASK_64 = (1 << 64) - 1


def token_dropout(x: Tensor, keys: Tensor, p: float, *, backend: str = "auto") -> Tensor:
    """Return x without the units that its tokens' keys drop, the others times 1 / (1 - p).

    All backends drop the same units and give the same bits. Below float32 PyTorch's operations run.

    Args:
        x: [T, d], floating point.
        keys: int64 [T].
        p: share of the units dropped, to 1/65,536; in [0, 1).
        backend: "torch", "cpu" (compiled: forward and backward are one pass each) or "auto":
            by device and by the size of the result.

    Returns:
        [T, d].

    Raises:
        ValueError: shapes, p or the backend are not as described.
    """
    if x.dim() != 2 or keys.shape != x.shape[:1]:
        raise ValueError(
            f"token_dropout: got x {list(x.shape)}, keys {list(keys.shape)}, "
            "expected [T, d] and [T]"
        )
    if not 0.0 <= p < 1.0:
        raise ValueError(f"token_dropout: p: got {p}, expected 0 or more and less than 1")
    large = x.numel() * x.dtype.itemsize >= LEAST_COMPILED
    if runs_compiled_if(large, "token_dropout", backend, x):
        from user_model.ops import dropout_cpu

        return dropout_cpu.token_dropout(x, keys, p)
    kept = keep_mask(keys, x.shape[1], p)
    return x * kept.to(x.dtype).mul_(1.0 / (1.0 - p))


def keep_mask(keys_M: Tensor, width: int, p: float) -> Tensor:
    """Return bool [M, width]: False with probability p (to 1/65,536)."""
    return uniform_bits(keys_M, width) >= least_kept(p)


def least_kept(p: float) -> int:
    """Return the least of `uniform_bits`' values that keeps a unit."""
    return round(p * 65536) - 32768


def uniform_bits(keys_M: Tensor, width: int) -> Tensor:
    """Return int16 [M, width], uniform over its 65,536 values, a pure function of keys [M]."""
    lanes = torch.arange(1, -(-width // 4) + 1, device=keys_M.device) * GOLDEN
    words = mix(keys_M[:, None] + lanes)
    return words.view(torch.int16)[:, :width]


def mix(x: Tensor) -> Tensor:
    """Scramble int64 values by splitmix64's finaliser, in place."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(MIX_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(MIX_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch's shift repeats the sign bit; zeros must come in, or the top bits lose their entropy.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix_integers(*values: int) -> int:
    """Hash a tuple of integers to one signed 64-bit key."""
    state = 0
    for value in values:
        state = (state + value + (GOLDEN & _MASK_64)) & _MASK_64
        state = ((state ^ (state >> 30)) * (MIX_1 & _MASK_64)) & _MASK_64
        state = ((state ^ (state >> 27)) * (MIX_2 & _MASK_64)) & _MASK_64
        state ^= state >> 31
    return state - (1 << 64) if state >> 63 else state
