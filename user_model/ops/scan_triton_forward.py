# mypy: disable-error-code="no-untyped-def"
"""The forward of the scan in Triton: softplus, recurrence, D-skip, RoPE(z) and the product in one.

KERNELS design: a program walks over the tiles of its work item with the state in registers; within
a tile the recurrence is a lower triangular matrix product (state-space duality, arXiv 2405.21060).
"""

import triton
import triton.language as tl

from user_model.ops.scan_triton_kernels import (
    broken_rows,
    cleaned,
    decay_over,
    finite,
    load_raw_steps,
    load_rows,
    load_segments,
    load_turns,
    log_decays,
    poisoned,
    rotate,
    softplus,
    store_rows,
    store_tokens,
)


@triton.jit
def scan_forward(
    X, DT, BIAS, A, B, C, D, Z, SEGMENT, TURN_ROW, TURNS, ITEMS, INITIAL, OUT, FINAL, STATES, STEPS,
    x_stride, dt_stride, b_stride, c_stride, z_stride, J,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, BLOCKS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Write OUT [T, J, P]; if given, FINAL and, for the backward, STATES [G, J, N, P] and
    STEPS [T, J].

    SEGMENT is given in runs mode only: a tile then holds several sequences. INITIAL and FINAL are
    rows of states, one a work item, named by it. The state before an item's first tile is written
    to STATES only where INITIAL is given: it is 0 otherwise.
    """
    DOT: tl.constexpr = X.dtype.element_ty
    item, block = (tl.program_id(0) // J).to(tl.int64), tl.program_id(0) % J
    head = block // BLOCKS
    begin, end = tl.load(ITEMS + item * 4), tl.load(ITEMS + item * 4 + 1)
    tile, state_row = tl.load(ITEMS + item * 4 + 2), tl.load(ITEMS + item * 4 + 3)
    order_Q = tl.arange(0, Q)
    past_QQ = order_Q[:, None] >= order_Q[None, :]
    of_state_NP = tl.arange(0, N)[:, None] * P + tl.arange(0, P)[None, :]
    a, d = tl.load(A + head), tl.load(D + head).to(ACC)
    previous = -1
    if INITIAL is not None:
        state_NP = tl.load(INITIAL + (state_row * J + block) * (N * P) + of_state_NP).to(ACC)
    else:
        state_NP = tl.zeros([N, P], dtype=ACC)
    for first in range(begin, end, Q):
        inside_Q = order_Q < end - first
        x_QP = load_rows(X, first * x_stride + block * P, x_stride, inside_Q, Q, P)
        b_QN = load_rows(B, first * b_stride + head * N, b_stride, inside_Q, Q, N)
        c_QN = load_rows(C, first * c_stride + head * N, c_stride, inside_Q, Q, N)
        step_Q = softplus(load_raw_steps(DT, BIAS, first, dt_stride, head, inside_Q, Q, ACC))
        step_Q = tl.where(inside_Q, step_Q, 0.0)
        paths_QQ = past_QQ
        if SEGMENT is not None:
            segment_Q = load_segments(SEGMENT, first, inside_Q, Q)
            last = tl.max(segment_Q, 0)
            paths_QQ = past_QQ & (segment_Q[:, None] == segment_Q[None, :])
            broken_Q = broken_rows(x_QP) | broken_rows(b_QN) | broken_rows(c_QN) | ~finite(step_Q)
            x_QP, b_QN, c_QN = cleaned(x_QP), cleaned(b_QN), cleaned(c_QN)
            step_Q = cleaned(step_Q)
            lost_Q = poisoned(broken_Q, segment_Q)
        log_Q, log_all = log_decays(step_Q, a)
        weight_QQ = decay_over(paths_QQ, log_Q, ACC) * step_Q[None, :]
        mixing_QQ = tl.dot(c_QN, tl.trans(b_QN), input_precision="ieee", out_dtype=ACC) * weight_QQ
        read_QP = tl.dot(c_QN, state_NP.to(DOT), input_precision="ieee", out_dtype=ACC)
        read_QP *= tl.exp(log_Q.to(ACC))[:, None]
        if SEGMENT is not None:
            read_QP = tl.where((segment_Q == previous)[:, None], read_QP, 0.0)
        y_QP = read_QP + d * x_QP.to(ACC)
        y_QP += tl.dot(mixing_QQ.to(DOT), x_QP, input_precision="ieee", out_dtype=ACC)
        if STATES is not None:
            row = (tile + (first - begin) // Q) * J + block
            carried = (first > begin) | (INITIAL is not None)
            tl.store(STATES + row * (N * P) + of_state_NP, state_NP, mask=carried)

        kept = tl.exp(log_all.to(ACC))
        added_QP = x_QP.to(ACC) * (tl.exp((log_all - log_Q).to(ACC)) * step_Q)[:, None]
        state_NP *= kept
        if SEGMENT is not None:
            held_Q = segment_Q == last
            added_QP = tl.where(held_Q[:, None], added_QP, 0.0)
            state_NP = tl.where(last == previous, state_NP, 0.0)
            y_QP = tl.where(lost_Q[:, None], float("nan"), y_QP)
            lost = tl.max(tl.where(held_Q & lost_Q, 1, 0), 0) > 0
            step_Q = tl.where(lost_Q, float("nan"), step_Q)
            state_NP = tl.where(lost, float("nan"), state_NP)
            previous = last
        state_NP += tl.dot(tl.trans(b_QN), added_QP.to(DOT), input_precision="ieee", out_dtype=ACC)
        if STEPS is not None:
            store_tokens(STEPS, first, block, J, inside_Q, step_Q, Q)
        if Z is not None:
            cos_QR, sin_QR = load_turns(TURNS, TURN_ROW, first, block, inside_Q, Q, P, BLOCKS)
            z_QP = load_rows(Z, first * z_stride + block * P, z_stride, inside_Q, Q, P).to(ACC)
            y_QP *= rotate(z_QP, cos_QR, sin_QR, Q, P)
        store_rows(OUT, (first * J + block) * P, J * P, inside_Q, y_QP, Q, P)
    if FINAL is not None:
        tl.store(FINAL + (state_row * J + block) * (N * P) + of_state_NP, state_NP)
