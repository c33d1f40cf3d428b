# mypy: disable-error-code="no-untyped-def"
"""The backward of the scan in Triton: two kernels, for one that does it all spills registers.

KERNELS design: K1, `backward_tiles`, takes all tiles at once: y again, the gradients of z and C, of
y itself, and what the tile's own outputs add to the gradient of the log decays. K2,
`backward_items`, walks over each work item in reverse with the gradient of the state in registers:
the gradients of x, B and dt, and the item's share of those of A, D and the bias. No atomics.

The gradient of a token's log decay is a sum over the paths through its step, from earlier inputs to
later outputs. As a difference of two cumulative sums it would lose its digits where steps are
strong (our choice, as in chunks.py).

The letters are those of scan_triton_kernels.py.
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
    load_tokens,
    load_turns,
    log_decays,
    poisoned,
    rotate,
    sigmoid,
    store_rows,
    store_tokens,
)


@triton.jit
def backward_tiles(
    X, A, B, C, D, Z, SEGMENT, TURN_ROW, TURNS, TILES, STATES, STEPS, DOUT,
    DY, DZ, DC, DLOG, DSKIP,
    x_stride, b_stride, c_stride, z_stride, J,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, BLOCKS: tl.constexpr, ACC: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
):  # fmt: skip
    """Write DC [T, J, N], DLOG [T, J] and the tile's share of the gradient of D, DSKIP [G, J].

    With Z also DZ and DY [T, J, P]; without it DY is DOUT.
    """
    DOT: tl.constexpr = X.dtype.element_ty
    tile, block = (tl.program_id(0) // J).to(tl.int64), tl.program_id(0) % J
    head = block // BLOCKS
    first, end = tl.load(TILES + tile * 3), tl.load(TILES + tile * 3 + 1)
    carried = tl.load(TILES + tile * 3 + 2) > 0
    order_Q = tl.arange(0, Q)
    inside_Q = order_Q < end - first
    paths_QQ = order_Q[:, None] >= order_Q[None, :]
    step_Q = load_tokens(STEPS, first, block, J, inside_Q, Q)
    sound_Q = inside_Q
    if SEGMENT is not None:
        segment_Q = load_segments(SEGMENT, first, inside_Q, Q)
        reads_Q = segment_Q == tl.load(SEGMENT + first - 1, mask=carried, other=-1).to(tl.int32)
        paths_QQ = paths_QQ & (segment_Q[:, None] == segment_Q[None, :])
        lost_Q = ~finite(step_Q)
        sound_Q = inside_Q & ~lost_Q
        step_Q = cleaned(step_Q)
    x_QP = load_rows(X, first * x_stride + block * P, x_stride, sound_Q, Q, P)
    b_QN = load_rows(B, first * b_stride + head * N, b_stride, sound_Q, Q, N)
    c_QN = load_rows(C, first * c_stride + head * N, c_stride, sound_Q, Q, N)
    dy_QP = load_rows(DOUT, (first * J + block) * P, J * P, inside_Q, Q, P)
    log_Q, _ = log_decays(step_Q, tl.load(A + head))
    weight_QQ = decay_over(paths_QQ, log_Q, ACC) * step_Q[None, :]
    mixing_QQ = tl.dot(c_QN, tl.trans(b_QN), input_precision="ieee", out_dtype=ACC) * weight_QQ
    since_Q = tl.exp(log_Q.to(ACC))
    of_state_NP = tl.arange(0, N)[:, None] * P + tl.arange(0, P)[None, :]
    at_state = STATES + (tile * J + block) * (N * P) + of_state_NP
    state_NP = tl.load(at_state, mask=carried | HAS_INITIAL, other=0.0).to(DOT)

    if Z is not None:
        y_QP = tl.dot(c_QN, state_NP, input_precision="ieee", out_dtype=ACC) * since_Q[:, None]
        if SEGMENT is not None:
            y_QP = tl.where(reads_Q[:, None], y_QP, 0.0)
        y_QP += tl.dot(mixing_QQ.to(DOT), x_QP, input_precision="ieee", out_dtype=ACC)
        y_QP += tl.load(D + head).to(ACC) * x_QP.to(ACC)
        if SEGMENT is not None:
            y_QP = tl.where(lost_Q[:, None], float("nan"), y_QP)
        cos_QR, sin_QR = load_turns(TURNS, TURN_ROW, first, block, inside_Q, Q, P, BLOCKS)
        dz_QP = rotate(dy_QP.to(ACC) * y_QP, cos_QR, -sin_QR, Q, P)
        store_rows(DZ, (first * J + block) * P, J * P, inside_Q, dz_QP, Q, P)
        z_QP = load_rows(Z, first * z_stride + block * P, z_stride, inside_Q, Q, P).to(ACC)
        dy_QP = (dy_QP.to(ACC) * rotate(z_QP, cos_QR, sin_QR, Q, P)).to(DOT)
        store_rows(DY, (first * J + block) * P, J * P, inside_Q, dy_QP, Q, P)
    if SEGMENT is not None:
        lost_Q = poisoned(lost_Q | broken_rows(dy_QP), segment_Q)
        dy_QP = cleaned(dy_QP)

    dskip = tl.sum(dy_QP.to(ACC) * x_QP.to(ACC))
    if SEGMENT is not None:
        dskip = tl.where(tl.max(tl.where(lost_Q, 1, 0), 0) > 0, float("nan"), dskip)
    tl.store(DSKIP + tile * J + block, dskip)

    # Row k, column j: the paths from j to k and to all that come after k.
    dproduct_QQ = tl.dot(dy_QP, tl.trans(x_QP), input_precision="ieee", out_dtype=ACC)
    onwards_QQ = tl.cumsum(mixing_QQ * dproduct_QQ, 0, reverse=True)
    through_QQ = tl.where(paths_QQ & (order_Q[:, None] > order_Q[None, :]), onwards_QQ, 0.0)
    dproduct_QQ = (dproduct_QQ * weight_QQ).to(DOT)
    dlog_Q = tl.sum(through_QQ, 1)
    dc_QN = tl.dot(dy_QP, tl.trans(state_NP), input_precision="ieee", out_dtype=ACC)
    dc_QN *= since_Q[:, None]
    if SEGMENT is not None:
        dc_QN = tl.where(reads_Q[:, None], dc_QN, 0.0)
    read_Q = tl.sum(dc_QN * c_QN.to(ACC), 1)
    later_QQ = order_Q[None, :] >= order_Q[:, None]
    dlog_Q += tl.sum(tl.where(later_QQ, read_Q[None, :], 0.0), 1)
    dc_QN += tl.dot(dproduct_QQ, b_QN, input_precision="ieee", out_dtype=ACC)
    if SEGMENT is not None:
        dc_QN = tl.where(lost_Q[:, None], float("nan"), dc_QN)
        dlog_Q = tl.where(lost_Q, float("nan"), dlog_Q)
    store_rows(DC, (first * J + block) * N, J * N, inside_Q, dc_QN, Q, N)
    store_tokens(DLOG, first, block, J, inside_Q, dlog_Q, Q)


@triton.jit
def backward_items(
    X, DT, BIAS, A, B, C, D, SEGMENT, ITEMS, STATES, STEPS, DY, DLOG, DFINAL,
    DX, DDT, DB, DINITIAL, DA,
    x_stride, dt_stride, b_stride, c_stride, J,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, BLOCKS: tl.constexpr, ACC: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
):  # fmt: skip
    """Write DX, DDT, DB, the item's share of the gradient of A, DA [W, J], and DINITIAL if given.

    DDT is [T, J] and DB [T, J, N], sums over the columns of a block. DFINAL and DINITIAL are rows
    of states, one a work item, named by it.
    """
    DOT: tl.constexpr = X.dtype.element_ty
    item, block = (tl.program_id(0) // J).to(tl.int64), tl.program_id(0) % J
    head = block // BLOCKS
    begin, end = tl.load(ITEMS + item * 4), tl.load(ITEMS + item * 4 + 1)
    tile, state_row = tl.load(ITEMS + item * 4 + 2), tl.load(ITEMS + item * 4 + 3)
    order_Q = tl.arange(0, Q)
    of_state_NP = tl.arange(0, N)[:, None] * P + tl.arange(0, P)[None, :]
    a, d = tl.load(A + head).to(ACC), tl.load(D + head).to(ACC)
    if DFINAL is not None:
        dstate_NP = tl.load(DFINAL + (state_row * J + block) * (N * P) + of_state_NP).to(ACC)
    else:
        dstate_NP = tl.zeros([N, P], dtype=ACC)
    da = tl.zeros([], ACC)
    n_tiles = (end - begin + Q - 1) // Q
    for walked in range(0, n_tiles):
        number = n_tiles - 1 - walked
        first = begin + number * Q
        inside_Q = order_Q < end - first
        # What K1 found, a sum over the paths that end in this tile; NaN where a sequence is lost.
        dlog_Q = load_tokens(DLOG, first, block, J, inside_Q, Q)
        sound_Q = inside_Q
        # Rows are sources, columns targets: the transpose of the forward's matrices.
        paths_QQ = order_Q[:, None] <= order_Q[None, :]
        if SEGMENT is not None:
            segment_Q = load_segments(SEGMENT, first, inside_Q, Q)
            previous = tl.load(SEGMENT + first - 1, mask=number > 0, other=-1).to(tl.int32)
            last = tl.max(segment_Q, 0)
            paths_QQ = paths_QQ & (segment_Q[:, None] == segment_Q[None, :])
            lost_Q = ~finite(dlog_Q)
            sound_Q = inside_Q & ~lost_Q
        step_Q = load_tokens(STEPS, first, block, J, sound_Q, Q)
        x_QP = load_rows(X, first * x_stride + block * P, x_stride, sound_Q, Q, P)
        b_QN = load_rows(B, first * b_stride + head * N, b_stride, sound_Q, Q, N)
        c_QN = load_rows(C, first * c_stride + head * N, c_stride, sound_Q, Q, N)
        dy_QP = load_rows(DY, (first * J + block) * P, J * P, sound_Q, Q, P)
        log_Q, log_all = log_decays(step_Q, a)
        decay_QQ = decay_over(paths_QQ, log_Q, ACC, TRANSPOSED=True)
        to_end_Q = tl.exp((log_all - log_Q).to(ACC))
        dstate = dstate_NP.to(DOT)

        mixing_QQ = tl.dot(b_QN, tl.trans(c_QN), input_precision="ieee", out_dtype=ACC) * decay_QQ
        dinput_QP = tl.dot(b_QN, dstate, input_precision="ieee", out_dtype=ACC) * to_end_Q[:, None]
        if SEGMENT is not None:
            dinput_QP = tl.where((segment_Q == last)[:, None], dinput_QP, 0.0)
        dinput_QP += tl.dot(mixing_QQ.to(DOT), dy_QP, input_precision="ieee", out_dtype=ACC)
        dstep_Q = tl.sum(dinput_QP * x_QP.to(ACC), 1)
        dx_QP = dinput_QP * step_Q[:, None] + d * dy_QP.to(ACC)
        if SEGMENT is not None:
            dx_QP = tl.where(lost_Q[:, None], float("nan"), dx_QP)
        store_rows(DX, (first * J + block) * P, J * P, inside_Q, dx_QP, Q, P)

        dproduct_QQ = tl.dot(x_QP, tl.trans(dy_QP), input_precision="ieee", out_dtype=ACC)
        dproduct_QQ *= decay_QQ
        db_QN = tl.dot(x_QP, tl.trans(dstate), input_precision="ieee", out_dtype=ACC)
        db_QN *= to_end_Q[:, None]
        if SEGMENT is not None:
            db_QN = tl.where((segment_Q == last)[:, None], db_QN, 0.0)
        kept_Q = tl.sum(db_QN * b_QN.to(ACC), 1) * step_Q
        db_QN += tl.dot(dproduct_QQ.to(DOT), c_QN, input_precision="ieee", out_dtype=ACC)
        db_QN *= step_Q[:, None]
        if SEGMENT is not None:
            db_QN = tl.where(lost_Q[:, None], float("nan"), db_QN)
        store_rows(DB, (first * J + block) * N, J * N, inside_Q, db_QN, Q, N)

        # From here on the gradient of the state before this tile, first what passes right through.
        dstate_NP *= tl.exp(log_all.to(ACC))
        if SEGMENT is not None:
            dstate_NP = tl.where(last == previous, dstate_NP, 0.0)
        carried = (number > 0) | HAS_INITIAL
        at_state = STATES + ((tile + number) * J + block) * (N * P) + of_state_NP
        passed = tl.sum(dstate_NP * tl.load(at_state, mask=carried, other=0.0))
        if SEGMENT is not None:  # a broken state is no business of a tile that it does not pass
            passed = tl.where(last == previous, passed, 0.0)
        earlier_QQ = order_Q[None, :] < order_Q[:, None]
        dlog_Q += tl.sum(tl.where(earlier_QQ, kept_Q[None, :], 0.0), 1) + passed
        raw_Q = load_raw_steps(DT, BIAS, first, dt_stride, head, inside_Q, Q, ACC)
        draw_Q = (dstep_Q + dlog_Q * a) * sigmoid(raw_Q)
        if SEGMENT is not None:
            draw_Q = tl.where(lost_Q, float("nan"), draw_Q)
        store_tokens(DDT, first, block, J, inside_Q, draw_Q, Q)
        da += tl.sum(tl.where(inside_Q, dlog_Q * step_Q, 0.0), 0)

        dread_QP = dy_QP.to(ACC) * tl.exp(log_Q.to(ACC))[:, None]
        if SEGMENT is not None:
            reads_Q = segment_Q == previous
            dread_QP = tl.where(reads_Q[:, None], dread_QP, 0.0)
            lost = tl.max(tl.where(reads_Q & lost_Q, 1, 0), 0) > 0
            dstate_NP = tl.where(lost, float("nan"), dstate_NP)
        dstate_NP += tl.dot(tl.trans(c_QN), dread_QP.to(DOT), input_precision="ieee", out_dtype=ACC)
    if DINITIAL is not None:
        tl.store(DINITIAL + (state_row * J + block) * (N * P) + of_state_NP, dstate_NP)
    tl.store(DA + item * J + block, da)
