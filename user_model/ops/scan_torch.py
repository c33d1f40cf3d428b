"""The selective scan in chunks of matrix products, with its own backward; plain PyTorch.

Within a chunk the recurrence is a lower triangular matrix product; across chunks a state of N x P a
head is carried (the state-space duality of Mamba-2, arXiv 2405.21060). The backward computes the
Q x Q matrices again instead of keeping them. Gathers only, no scatter-add: the same bits each time.
A NaN never reaches another sequence; within its own it also reaches the outputs just before it, as
far as its chunk goes (0 * NaN).

Shapes: T tokens, S sequences, H heads, P head width, N state, G chunks, Q tokens a chunk,
M = G*H matrices (chunk-major).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from user_model.ops import chunks
from user_model.ops.packing import Plan


def scan_torch(
    x_THP: Tensor,
    step_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    plan: Plan,
    initial_SHNP: Tensor | None,
    *,
    return_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Do what `scan_reference` does; the final states are None unless asked for."""
    y_THP, final_SHNP, *_ = _scan(
        x_THP, step_TH, A_H, B_THN, C_THN, D_H, initial_SHNP, return_final_state,
        plan.tensors(), plan.integers(),
    )  # fmt: skip
    return y_THP, final_SHNP if return_final_state else None


@torch.library.custom_op("hydrarec::scan_torch", mutates_args=())
def _scan(
    x_THP: Tensor,
    step_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    initial_SHNP: Tensor | None,
    return_final_state: bool,
    plan_tensors: list[Tensor],
    plan_integers: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return y, the final states, and for the backward x, B, C, steps, log decays and states.

    Final states that were not asked for, and states where none is carried, are empty.
    """
    plan = Plan.of(plan_tensors, plan_integers)
    H = x_THP.shape[1]
    x_MQP, b_MQN, c_MQN = (chunks.to_chunks(t, plan) for t in (x_THP, B_THN, C_THN))
    step_GHQ = chunks.steps_to_chunks(step_TH, plan)
    log_GHQ = chunks.log_decay(step_GHQ, A_H)
    xs_MQP = x_MQP * step_GHQ.view(-1, plan.chunk, 1)

    mixing_MQQ = torch.bmm(c_MQN, b_MQN.mT).mul_(chunks.decay(log_GHQ, x_THP.dtype))
    y_MQP = torch.bmm(mixing_MQQ, xs_MQP)
    incoming_GHNP, final_SHNP = x_THP.new_empty(0), x_THP.new_empty(0)
    if _carries(plan, initial_SHNP, return_final_state):
        states = chunks.carry(xs_MQP, b_MQN, log_GHQ, initial_SHNP, plan)
        incoming_GHNP = states.incoming
        carried = slice(0 if initial_SHNP is not None else plan.n_first * H, None)
        decayed_MQN = c_MQN[carried] * chunks.since_start(log_GHQ, c_MQN.dtype)[carried]
        y_MQP[carried].baddbmm_(decayed_MQN, incoming_GHNP.flatten(0, 1)[carried])
        if return_final_state:
            final_SHNP = states.final(log_GHQ, initial_SHNP, plan)

    y_THP = chunks.to_tokens(y_MQP, chunks.token_rows(plan, H), H)
    y_THP.addcmul_(x_THP, D_H[:, None])
    return y_THP, final_SHNP, x_MQP, b_MQN, c_MQN, step_GHQ, log_GHQ, incoming_GHNP


@_scan.register_fake
def _(
    x_THP: Tensor,
    step_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    initial_SHNP: Tensor | None,
    return_final_state: bool,
    plan_tensors: list[Tensor],
    plan_integers: list[int],
) -> tuple[Tensor, ...]:
    plan = Plan.of(plan_tensors, plan_integers)
    (_, H, P), N, G, Q = x_THP.shape, B_THN.shape[-1], plan.n_chunks, plan.chunk
    carries = _carries(plan, initial_SHNP, return_final_state)
    return (
        x_THP.new_empty(x_THP.shape),
        x_THP.new_empty((plan.n_sequences, H, N, P) if return_final_state else (0,)),
        x_THP.new_empty(G * H, Q, P),
        x_THP.new_empty(G * H, Q, N),
        x_THP.new_empty(G * H, Q, N),
        x_THP.new_empty(G, H, Q),
        x_THP.new_empty(G, H, Q, dtype=torch.float64),
        x_THP.new_empty((G, H, N, P) if carries else (0,)),
    )


def _carries(plan: Plan, initial_SHNP: Tensor | None, return_final_state: bool) -> bool:
    """Whether any state enters or leaves a chunk."""
    return return_final_state or initial_SHNP is not None or plan.n_steps > 1


@torch.library.custom_op("hydrarec::scan_torch_backward", mutates_args=())
def _scan_backward(
    dy_THP: Tensor | None,
    dfinal_SHNP: Tensor | None,
    A_H: Tensor,
    D_H: Tensor,
    x_MQP: Tensor,
    b_MQN: Tensor,
    c_MQN: Tensor,
    step_GHQ: Tensor,
    log_GHQ: Tensor,
    incoming_GHNP: Tensor,
    has_initial: bool,
    plan_tensors: list[Tensor],
    plan_integers: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, step, A, B, C, D and the initial states (empty without them)."""
    plan = Plan.of(plan_tensors, plan_integers)
    G, H, Q = step_GHQ.shape
    dy_MQP = _output_gradient(dy_THP, x_MQP, H, plan)
    xs_MQP = x_MQP * step_GHQ.view(-1, Q, 1)

    dxs_MQP, db_MQN, dc_MQN, dexponent_GHQ = _chunk_backward(dy_MQP, xs_MQP, b_MQN, c_MQN, log_GHQ)
    dinitial_SHNP = x_MQP.new_empty(0)
    if incoming_GHNP.dim() > 1:
        carried = chunks.carry_backward(
            dy_MQP, xs_MQP, b_MQN, c_MQN, log_GHQ, incoming_GHNP, dfinal_SHNP, plan,
            has_initial=has_initial,
        )  # fmt: skip
        dxs_MQP, db_MQN = dxs_MQP.add_(carried.inputs), db_MQN.add_(carried.b)
        dc_MQN = dc_MQN.add_(carried.c)
        dexponent_GHQ = dexponent_GHQ.add_(carried.exponents)
        dinitial_SHNP = dinitial_SHNP if carried.initial is None else carried.initial

    dstep_GHQ = (dxs_MQP * x_MQP).sum(-1).view(G, H, Q).addcmul_(dexponent_GHQ, A_H[:, None])
    dx_GHQP = dxs_MQP.view(G, H, Q, x_MQP.shape[-1]).mul_(step_GHQ[..., None])
    dx_GHQP.addcmul_(dy_MQP.view_as(dx_GHQP), D_H[:, None, None])

    rows = chunks.token_rows(plan, H)
    return (
        chunks.to_tokens(dx_GHQP, rows, H),
        dstep_GHQ.flatten()[rows].view(-1, H),
        (dexponent_GHQ * step_GHQ).sum((0, 2)),
        chunks.to_tokens(db_MQN, rows, H),
        chunks.to_tokens(dc_MQN, rows, H),
        (dy_MQP * x_MQP).view_as(dx_GHQP).sum((0, 2, 3)),
        dinitial_SHNP,
    )


@_scan_backward.register_fake
def _(
    dy_THP: Tensor | None,
    dfinal_SHNP: Tensor | None,
    A_H: Tensor,
    D_H: Tensor,
    x_MQP: Tensor,
    b_MQN: Tensor,
    c_MQN: Tensor,
    step_GHQ: Tensor,
    log_GHQ: Tensor,
    incoming_GHNP: Tensor,
    has_initial: bool,
    plan_tensors: list[Tensor],
    plan_integers: list[int],
) -> tuple[Tensor, ...]:
    plan = Plan.of(plan_tensors, plan_integers)
    T, H, P, N = plan.n_tokens, step_GHQ.shape[1], x_MQP.shape[-1], b_MQN.shape[-1]
    return (
        x_MQP.new_empty(T, H, P),
        x_MQP.new_empty(T, H),
        torch.empty_like(A_H),
        x_MQP.new_empty(T, H, N),
        x_MQP.new_empty(T, H, N),
        torch.empty_like(D_H),
        x_MQP.new_empty((plan.n_sequences, H, N, P) if has_initial else (0,)),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, A_H, _, _, D_H, initial_SHNP, _, plan_tensors, plan_integers = inputs
    # Outputs that nobody used have the gradient None, not zeros of their size.
    ctx.set_materialize_grads(False)
    ctx.has_initial, ctx.plan_integers = initial_SHNP is not None, plan_integers
    ctx.save_for_backward(A_H, D_H, *output[2:], *plan_tensors)


def _differentiate(
    ctx: Any, dy_THP: Tensor | None, dfinal_SHNP: Tensor | None, *_kept: None
) -> tuple[Any, ...]:
    kept, plan_tensors = ctx.saved_tensors[:8], list(ctx.saved_tensors[8:])
    *gradients, dinitial_SHNP = _scan_backward(
        dy_THP, dfinal_SHNP, *kept, ctx.has_initial, plan_tensors, ctx.plan_integers
    )
    dinitial = dinitial_SHNP if ctx.has_initial else None
    return *gradients, dinitial, None, [None] * len(plan_tensors), None


_scan.register_autograd(_differentiate, setup_context=_keep)


def _output_gradient(dy_THP: Tensor | None, x_MQP: Tensor, H: int, plan: Plan) -> Tensor:
    if dy_THP is None:  # only the final states were used
        return torch.zeros_like(x_MQP)
    dy_MQP = chunks.to_chunks(dy_THP, plan)
    if plan.padding is not None:
        dy_MQP.view(plan.n_chunks, H, plan.chunk, dy_MQP.shape[-1]).masked_fill_(
            plan.padding[:, None, :, None], 0.0
        )
    return dy_MQP


def _chunk_backward(
    dy_MQP: Tensor, xs_MQP: Tensor, b_MQN: Tensor, c_MQN: Tensor, log_GHQ: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Differentiate y = (C B^T * decay) xs within each chunk: dxs, dB, dC, d(log decay a step)."""
    decay_MQQ = chunks.decay(log_GHQ, dy_MQP.dtype)
    mixing_MQQ = torch.bmm(c_MQN, b_MQN.mT).mul_(decay_MQQ)
    dproducts_MQQ = torch.bmm(dy_MQP, xs_MQP.mT)
    # Step t decays every path from j < t to i >= t. Row sums minus column sums would say the same,
    # but as a small difference of large numbers.
    later = torch.ones_like(decay_MQQ[:1]).triu_().expand_as(decay_MQQ)
    through_MQQ = torch.bmm(later, mixing_MQQ * dproducts_MQQ).tril_(-1)
    dproducts_MQQ.mul_(decay_MQQ)
    return (
        torch.bmm(mixing_MQQ.mT, dy_MQP),
        torch.bmm(dproducts_MQQ.mT, c_MQN),
        torch.bmm(dproducts_MQQ, b_MQN),
        through_MQQ.sum(2).view_as(log_GHQ),
    )
