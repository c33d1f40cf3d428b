"""What the chunked scan is made of: the layout of chunks, and the states carried across them.

A tensor [T, H, K] of tokens becomes [M, Q, K]: one matrix a chunk and head, by one gather; padded
slots repeat a token of the same sequence, and their step is 0, which leaves a state as it is.

log_GHQ is the log of the decay from before the chunk to each token, a cumulative sum in float64: a
decay between two tokens is the exponential of a difference, and one strong step before them would
leave float32 too few digits for it. Decays are returned in the type of the computation.

Shapes: T tokens, S sequences, H heads, P head width, N state, G chunks, Q tokens a chunk,
M = G*H matrices (chunk-major), F chunks that are the first of their sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.packing import Plan


def to_chunks(values_THK: Tensor, plan: Plan) -> Tensor:
    """Gather tokens into [M, Q, K]."""
    H, K = values_THK.shape[1:]
    heads = torch.arange(H, device=values_THK.device)[:, None]
    rows = plan.slot_tokens.view(-1, 1, plan.chunk) * H + heads
    gathered = values_THK.reshape(-1, K).index_select(0, rows.flatten())
    return gathered.view(-1, plan.chunk, K)


def steps_to_chunks(step_TH: Tensor, plan: Plan) -> Tensor:
    """Gather step sizes into [G, H, Q], 0 in the padding."""
    step_GQH = step_TH.index_select(0, plan.slot_tokens).view(-1, plan.chunk, step_TH.shape[1])
    if plan.padding is not None:
        step_GQH.masked_fill_(plan.padding[..., None], 0.0)
    return step_GQH.transpose(1, 2).contiguous()


def token_rows(plan: Plan, heads: int) -> Tensor:
    """Return int64 [T*H]: the row of [M*Q, K] that holds each token and head."""
    chunk, slot = plan.token_slots // plan.chunk, plan.token_slots % plan.chunk
    of_head = torch.arange(heads, device=chunk.device) * plan.chunk
    return ((chunk * heads * plan.chunk + slot)[:, None] + of_head).flatten()


def to_tokens(values_MQK: Tensor, rows: Tensor, heads: int) -> Tensor:
    """Gather [M, Q, K] back into [T, H, K]; `rows` is from `token_rows`."""
    K = values_MQK.shape[-1]
    return values_MQK.reshape(-1, K).index_select(0, rows).view(-1, heads, K)


def log_decay(step_GHQ: Tensor, A_H: Tensor) -> Tensor:
    """Return log_GHQ in float64."""
    return torch.cumsum(step_GHQ.double() * A_H.double()[:, None], -1)


def decay(log_GHQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [M, Q, Q]: exp(log_i - log_j) where j <= i, else 0."""
    Q = log_GHQ.shape[-1]
    future = torch.ones(Q, Q, dtype=torch.bool, device=log_GHQ.device).triu(1)
    log_MQ = log_GHQ.view(-1, Q)
    # Masked before exp: the upper triangle would overflow.
    between_MQQ = (log_MQ[:, :, None] - log_MQ[:, None, :]).to(dtype)
    return between_MQQ.masked_fill_(future, float("-inf")).exp_()


def since_start(log_GHQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [M, Q, 1]: the decay from before the chunk to each of its tokens."""
    return log_GHQ.exp().to(dtype).view(-1, log_GHQ.shape[-1], 1)


def until_end(log_GHQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [M, Q, 1]: the decay from each token to the end of its chunk."""
    return (log_GHQ[..., -1:] - log_GHQ).exp_().to(dtype).view(-1, log_GHQ.shape[-1], 1)


def gate(log_GHQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [G, H, 1, 1]: the decay over the whole chunk."""
    return log_GHQ[..., -1, None, None].exp().to(dtype)


@dataclass(frozen=True)
class States:
    """The states around each chunk: [G, H, N, P] before it, and what the chunk itself adds."""

    incoming: Tensor
    added: Tensor

    def final(self, log_GHQ: Tensor, initial_SHNP: Tensor | None, plan: Plan) -> Tensor:
        """Return the state after each sequence, [S, H, N, P]; an empty one keeps its initial."""
        last = plan.last_chunks
        ended = self.added[last] + gate(log_GHQ, self.added.dtype)[last] * self.incoming[last]
        if initial_SHNP is None:
            everyone = ended.new_zeros(plan.n_sequences, *ended.shape[1:])
        else:
            everyone = initial_SHNP.clone()
        return everyone.index_copy_(0, plan.order, ended)


def carry(
    xs_MQP: Tensor, b_MQN: Tensor, log_GHQ: Tensor, initial_SHNP: Tensor | None, plan: Plan
) -> States:
    """Run the recurrence over chunks, one step for all sequences at once."""
    G, H, _ = log_GHQ.shape
    weighted_MQN = b_MQN * until_end(log_GHQ, b_MQN.dtype)
    added = torch.bmm(weighted_MQN.mT, xs_MQP).view(G, H, b_MQN.shape[-1], xs_MQP.shape[-1])
    incoming, through = torch.empty_like(added), gate(log_GHQ, added.dtype)
    incoming[: plan.n_first] = 0.0 if initial_SHNP is None else initial_SHNP[plan.order]
    for now, after in _steps(plan):
        torch.addcmul(added[now], through[now], incoming[now], out=incoming[after])
    return States(incoming, added)


@dataclass(frozen=True)
class CarryGradients:
    """What the states between chunks add to each gradient.

    Attributes:
        inputs: to s * x, [M, Q, P].
        b: to B, [M, Q, N].
        c: to C, [M, Q, N].
        exponents: to the log decay of each token's own step, [G, H, Q].
        initial: of the initial states, [S, H, N, P]; None if there were none.
    """

    inputs: Tensor
    b: Tensor
    c: Tensor
    exponents: Tensor
    initial: Tensor | None


def carry_backward(
    dy_MQP: Tensor,
    xs_MQP: Tensor,
    b_MQN: Tensor,
    c_MQN: Tensor,
    log_GHQ: Tensor,
    incoming_GHNP: Tensor,
    dfinal_SHNP: Tensor | None,
    plan: Plan,
    *,
    has_initial: bool,
) -> CarryGradients:
    """Differentiate `carry` and its use, y += exp(log) C incoming."""
    dtype = dy_MQP.dtype
    through, dy_decayed_MQP = gate(log_GHQ, dtype), dy_MQP * since_start(log_GHQ, dtype)
    dincoming = torch.bmm(c_MQN.mT, dy_decayed_MQP).view_as(incoming_GHNP)
    doutgoing = torch.zeros_like(incoming_GHNP)
    if dfinal_SHNP is not None:
        doutgoing.index_copy_(0, plan.last_chunks, dfinal_SHNP.index_select(0, plan.order))
    for now, after in reversed(_steps(plan)):
        dincoming[after].addcmul_(through[after], doutgoing[after])
        doutgoing[now] += dincoming[after]

    dinitial = None
    if has_initial:
        first = slice(plan.n_first)
        dincoming[first].addcmul_(through[first], doutgoing[first])
        shape = (plan.n_sequences, *incoming_GHNP.shape[1:])
        dinitial = dincoming.new_zeros(shape) if dfinal_SHNP is None else dfinal_SHNP.clone()
        dinitial.index_copy_(0, plan.order, dincoming[first])

    to_end, doutgoing_MNP = until_end(log_GHQ, dtype), doutgoing.flatten(0, 1)
    db_MQN = torch.bmm(xs_MQP, doutgoing_MNP.mT).mul_(to_end)
    dc_MQN = torch.bmm(dy_decayed_MQP, incoming_GHNP.flatten(0, 1).mT)
    # Sums of the paths through each step, none of them a difference of two that nearly cancel:
    # from before the chunk to later outputs, from earlier inputs to its end, and right through.
    later_GHQ = (c_MQN * dc_MQN).sum(-1).view_as(log_GHQ).flip(-1).cumsum(-1).flip(-1)
    from_GHQ = (b_MQN * db_MQN).sum(-1).view_as(log_GHQ)
    earlier_GHQ = F.pad(from_GHQ[..., :-1].cumsum(-1), (1, 0))
    passed_GH = (incoming_GHNP * doutgoing).sum((-1, -2)).mul_(through[..., 0, 0])
    return CarryGradients(
        inputs=torch.bmm(b_MQN, doutgoing_MNP).mul_(to_end),
        b=db_MQN,
        c=dc_MQN,
        exponents=later_GHQ + earlier_GHQ + passed_GH[..., None],
        initial=dinitial,
    )


def _steps(plan: Plan) -> list[tuple[slice, slice]]:
    """Pair the chunks of each step that have a successor with their successors."""
    starts = accumulate(plan.step_sizes, initial=0)
    return [
        (slice(start, start + next_size), slice(start + size, start + size + next_size))
        for start, (size, next_size) in zip(starts, pairwise(plan.step_sizes), strict=False)
    ]
