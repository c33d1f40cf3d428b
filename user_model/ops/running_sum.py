"""Running sums over packed sequences: what the mean of a user's events so far is made of.

A sum that ran over the whole batch, less what came before a sequence, would be faster; but what is
not a number, or far larger than the rest, would reach every later user of the batch.

Shapes: T packed tokens, S sequences.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from user_model.ops.backends import runs_compiled
from user_model.ops.packing import Plan, planned


def running_sum(
    x: Tensor, cu_seqlens: Tensor, *, plan: Plan | None = None, backend: str = "auto"
) -> Tensor:
    """Sum each sequence up to and with each of its tokens.

    Args:
        x: [T, ...], floating point.
        cu_seqlens: int64 [S+1].
        plan: `plan(cu_seqlens)`, made once a batch; None makes it.
        backend: "torch", "cpu" (compiled) or "auto": by device.

    Returns:
        [T, ...], in float32 at least. "cpu" adds token after token. "torch" adds neighbours and
        then their sums (Hillis and Steele, 1986), in log2 of the longest sequence's length passes.

    Raises:
        ValueError: a shape, a type or the backend is not as described.
    """
    if x.dim() < 1 or not x.is_floating_point():
        raise ValueError(
            f"running_sum: x: got {x.dtype} {list(x.shape)}, expected floating point [T, ...]"
        )
    compiled = runs_compiled("running_sum", backend, x)
    return _running_sum(x, planned(cu_seqlens, x.shape[0], plan).positions, False, compiled)


@torch.library.custom_op("hydrarec::running_sum", mutates_args=())
def _running_sum(x: Tensor, at_T: Tensor, back: bool, compiled: bool) -> Tensor:
    """Sum x [T, ...] over the tokens of the sequence up to each, or if `back` from each on.

    Token t is number at_T[t] of its sequence.
    """
    if compiled:
        from user_model.ops import running_sum_cpu

        dtype = torch.promote_types(x.dtype, torch.float32)
        return running_sum_cpu.running_sum(x.to(dtype), at_T, back=back)
    sums = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    longest = int(at_T.max()) + 1 if len(at_T) else 0
    reach = 1
    while reach < longest:
        inside = (at_T[reach:] >= reach).view(-1, *[1] * (x.dim() - 1))
        earlier, later = sums[:-reach], sums[reach:]
        added, to = (later, earlier) if back else (earlier, later)
        to += torch.where(inside, added, 0)
        reach *= 2
    return sums


@_running_sum.register_fake
def _(x: Tensor, at_T: Tensor, back: bool, compiled: bool) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, at_T, ctx.back, ctx.compiled = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(at_T)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    # What a token adds to all later sums comes back as the sum over all later tokens.
    dx = _running_sum(dy, *ctx.saved_tensors, not ctx.back, ctx.compiled)
    return dx.to(ctx.dtype), None, None, None


_running_sum.register_autograd(_differentiate, setup_context=_keep)


def running_sum_reference(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Do the same token by token, from the definition: the specification of `running_sum`."""
    rows = []
    for begin, end in pairwise(cu_seqlens.tolist()):
        total = torch.zeros_like(x[:1]).squeeze(0)
        for t in range(begin, end):
            total = total + x[t]
            rows.append(total)
    return torch.stack(rows) if rows else x.clone()
