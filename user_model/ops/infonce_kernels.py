"""Triton kernels of InfoNCE over sampled negatives: the logits never reach memory.

The forward gathers, multiplies, corrects by log_q, masks collisions and keeps an online
log-sum-exp; it writes 8 bytes a position: the loss, and the log-sum that the backward starts from.
The backward is split by what it writes: one kernel for the queries' gradient, one for the rows of
the negatives, both of which compute the logits again. So no program adds to another's memory: no
atomics. Logits, sums and accumulators are in ACC: float32, float64 for float64; the operands of
dots keep the type of the inputs, and no dot is tf32. Our design, after KERNELS; not yet run on a
device.

Shapes: T positions, G tiles of positions, K negatives a tile, d width; a program holds M positions
by N negatives by D columns, D the power of two from 16 on that holds d.
"""

# Triton gives arguments their types when it compiles.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _rows(POINTER, row_B, ok_B, d, stride, D: tl.constexpr):
    """Gather rows [B, D]: zeros past column d and where not ok_B."""
    column_D = tl.arange(0, D)
    return tl.load(
        POINTER + row_B[:, None] * stride + column_D[None, :],
        mask=ok_B[:, None] & (column_D < d)[None, :],
        other=0.0,
    )


@triton.jit
def _corrections(LOG_Q, item_B, ok_B, ACC: tl.constexpr):
    """Return log_q [B] of items, zeros where LOG_Q is None."""
    if LOG_Q is not None:
        return tl.load(LOG_Q + item_B, mask=ok_B, other=0.0).to(ACC)
    else:
        return tl.zeros_like(item_B).to(ACC)


@triton.jit
def _logits(left_AD, right_BD, scale, ACC: tl.constexpr):
    """Return <left, right> * scale [A, B]; ieee: Triton's default for float32 is tf32."""
    products_AB = tl.dot(left_AD, tl.trans(right_BD), input_precision="ieee", out_dtype=ACC)
    return products_AB * scale


@triton.jit
def infonce_forward(
    QUERY, TABLE, POSITIVE, NEGATIVE, LOG_Q, LOSS, LOG_SUM,
    T, K, d, tile, blocks, query_stride, table_stride, inverse_temperature: tl.float64,
    ACC: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """LOSS [T] and LOG_SUM [T], of positive and negatives; a program is 1 of `blocks` of a tile."""
    g = tl.program_id(0).to(tl.int64) // blocks
    row_M = tl.program_id(0) % blocks * M + tl.arange(0, M)
    t_M = g * tile + row_M
    ok_M = (row_M < tile) & (t_M < T)
    scale = tl.full([], inverse_temperature, ACC)
    query_MD = _rows(QUERY, t_M, ok_M, d, query_stride, D)
    positive_M = tl.load(POSITIVE + t_M, mask=ok_M, other=0)
    target_MD = _rows(TABLE, positive_M, ok_M, d, table_stride, D)
    target_M = tl.sum(query_MD.to(ACC) * target_MD.to(ACC), 1) * scale
    target_M -= _corrections(LOG_Q, positive_M, ok_M, ACC)

    top_M = tl.full([M], -float("inf"), ACC)
    total_M = tl.zeros([M], dtype=ACC)
    for k in range(0, K, N):
        k_N = k + tl.arange(0, N)
        ok_N = k_N < K
        item_N = tl.load(NEGATIVE + g * K + k_N, mask=ok_N, other=0)
        item_ND = _rows(TABLE, item_N, ok_N, d, table_stride, D)
        logits_MN = _logits(query_MD, item_ND, scale, ACC)
        logits_MN -= _corrections(LOG_Q, item_N, ok_N, ACC)[None, :]
        counted_MN = ok_N[None, :] & (item_N[None, :] != positive_M[:, None])
        logits_MN = tl.where(counted_MN, logits_MN, -float("inf"))
        higher_M = tl.maximum(top_M, tl.max(logits_MN, 1))
        # Nothing counted yet: subtracting -inf would give NaN.
        shift_M = tl.where(higher_M == -float("inf"), 0.0, higher_M)
        fresh_M = tl.sum(tl.exp(logits_MN - shift_M[:, None]), 1)
        total_M = total_M * tl.exp(top_M - shift_M) + fresh_M
        top_M = higher_M

    others_M = top_M + tl.log(tl.where(top_M == -float("inf"), 1.0, total_M))
    gap_M = others_M - target_M
    # loss = log(1 + e^gap), exact for a loss near 0 too: log1p(small) after Kahan.
    small_M = tl.exp(-tl.abs(gap_M))
    sum_M = 1.0 + small_M
    lost_M = tl.where(sum_M == 1.0, 1.0, sum_M - 1.0)
    log1p_M = tl.where(sum_M == 1.0, small_M, tl.log(sum_M) * (small_M / lost_M))
    loss_M = tl.maximum(gap_M, 0.0) + log1p_M
    tl.store(LOSS + t_M, loss_M, mask=ok_M)
    tl.store(LOG_SUM + t_M, target_M + loss_M, mask=ok_M)


@triton.jit
def infonce_dquery(
    QUERY, TABLE, POSITIVE, NEGATIVE, LOG_Q, LOG_SUM, DLOSS, DQUERY, WEIGHT,
    T, K, d, tile, blocks, query_stride, table_stride, inverse_temperature: tl.float64,
    ACC: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """DQUERY [T, d] and WEIGHT [T]: minus what the positive's row gets, as a share of the query."""
    g = tl.program_id(0).to(tl.int64) // blocks
    row_M = tl.program_id(0) % blocks * M + tl.arange(0, M)
    t_M = g * tile + row_M
    ok_M = (row_M < tile) & (t_M < T)
    scale = tl.full([], inverse_temperature, ACC)
    query_MD = _rows(QUERY, t_M, ok_M, d, query_stride, D)
    positive_M = tl.load(POSITIVE + t_M, mask=ok_M, other=0)
    log_sum_M = tl.load(LOG_SUM + t_M, mask=ok_M, other=0.0)
    dloss_M = tl.load(DLOSS + t_M, mask=ok_M, other=0.0).to(ACC) * scale

    dquery_MD = tl.zeros([M, D], dtype=ACC)
    weight_M = tl.zeros([M], dtype=ACC)
    for k in range(0, K, N):
        k_N = k + tl.arange(0, N)
        ok_N = k_N < K
        item_N = tl.load(NEGATIVE + g * K + k_N, mask=ok_N, other=0)
        item_ND = _rows(TABLE, item_N, ok_N, d, table_stride, D)
        logits_MN = _logits(query_MD, item_ND, scale, ACC)
        logits_MN -= _corrections(LOG_Q, item_N, ok_N, ACC)[None, :]
        counted_MN = ok_N[None, :] & (item_N[None, :] != positive_M[:, None])
        p_MN = tl.exp(tl.where(counted_MN, logits_MN - log_sum_M[:, None], -float("inf")))
        weight_M += tl.sum(p_MN, 1)
        dquery_MD += tl.dot(p_MN.to(item_ND.dtype), item_ND, input_precision="ieee", out_dtype=ACC)
    # The positive's share is minus the sum of the negatives', never p - 1: where p is close to 1,
    # p - 1 is rounding error.
    target_MD = _rows(TABLE, positive_M, ok_M, d, table_stride, D).to(ACC)
    dquery_MD = (dquery_MD - weight_M[:, None] * target_MD) * dloss_M[:, None]
    column_D = tl.arange(0, D)
    tl.store(
        DQUERY + t_M[:, None] * d + column_D[None, :],
        dquery_MD.to(DQUERY.dtype.element_ty),
        mask=ok_M[:, None] & (column_D < d)[None, :],
    )
    tl.store(WEIGHT + t_M, weight_M * dloss_M, mask=ok_M)


@triton.jit
def infonce_dnegatives(
    QUERY, TABLE, POSITIVE, NEGATIVE, LOG_Q, LOG_SUM, DLOSS, DROWS,
    T, K, d, tile, blocks, query_stride, table_stride, inverse_temperature: tl.float64,
    ACC: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """DROWS [G, K, d]; a program is N negatives, 1 of `blocks` of a tile, over all its positions.

    Logits are computed transposed, so that no result of a dot needs a transposition.
    """
    g = tl.program_id(0).to(tl.int64) // blocks
    k_N = tl.program_id(0) % blocks * N + tl.arange(0, N)
    ok_N = k_N < K
    scale = tl.full([], inverse_temperature, ACC)
    item_N = tl.load(NEGATIVE + g * K + k_N, mask=ok_N, other=0)
    item_ND = _rows(TABLE, item_N, ok_N, d, table_stride, D)
    correction_N = _corrections(LOG_Q, item_N, ok_N, ACC)

    drows_ND = tl.zeros([N, D], dtype=ACC)
    for m in range(0, tile, M):
        row_M = m + tl.arange(0, M)
        t_M = g * tile + row_M
        ok_M = (row_M < tile) & (t_M < T)
        query_MD = _rows(QUERY, t_M, ok_M, d, query_stride, D)
        positive_M = tl.load(POSITIVE + t_M, mask=ok_M, other=0)
        log_sum_M = tl.load(LOG_SUM + t_M, mask=ok_M, other=0.0)
        dloss_M = tl.load(DLOSS + t_M, mask=ok_M, other=0.0).to(ACC) * scale
        logits_NM = _logits(item_ND, query_MD, scale, ACC) - correction_N[:, None]
        counted_NM = ok_M[None, :] & (item_N[:, None] != positive_M[None, :])
        p_NM = tl.exp(tl.where(counted_NM, logits_NM - log_sum_M[None, :], -float("inf")))
        # A mean over 64k positions makes dloss 1e-5: too small for float16 operands, so that its
        # largest is taken out of the dot.
        largest = tl.max(tl.abs(dloss_M), 0)
        p_NM *= (dloss_M / tl.where(largest == 0.0, 1.0, largest))[None, :]
        products_ND = tl.dot(
            p_NM.to(query_MD.dtype), query_MD, input_precision="ieee", out_dtype=ACC
        )
        drows_ND += products_ND * largest
    column_D = tl.arange(0, D)
    tl.store(
        DROWS + (g * K + k_N)[:, None] * d + column_D[None, :],
        drows_ND,
        mask=ok_N[:, None] & (column_D < d)[None, :],
    )
