"""Triton kernels of the causal convolution: bias, SiLU, resets and tails in one kernel each way.

A program is a tile of tokens by channels. The token i places back is read where the sequence had
begun (its position is at least i), and from the sequence's tail where not, so that no read crosses
a seam. The backward computes the sums before SiLU again: it reads x and dy and writes dx, nothing
else of that size. Weight and bias gradients are one partial sum a tile: no atomics. Sums are in
ACC: float32, float64 for float64. Our design, after KERNELS; not yet run on a device.

Shapes: T packed tokens, S sequences, K channels, W taps, V = W-1; B rows (tokens or sequences) by
C channels a tile.
"""

# Triton gives arguments their types when it compiles.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _tap(
    X, TAILS, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride,
    i: tl.constexpr, V: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Return x [B, C] of the token i before token t_B, which has that position in its sequence."""
    real_C = channel_C < K
    here_B = ok_B & (position_B >= i)
    value_BC = tl.load(
        X + (t_B - i)[:, None] * x_stride + channel_C[None, :],
        mask=here_B[:, None] & real_C[None, :],
        other=0.0,
    ).to(ACC)
    if TAILS is not None and i > 0:
        before_B = ok_B & (position_B < i)
        offset_B = segment_B * K * V + V - i + position_B
        # One of the two is masked, so zero.
        value_BC += tl.load(
            TAILS + offset_B[:, None] + (channel_C * V)[None, :],
            mask=before_B[:, None] & real_C[None, :],
            other=0.0,
        ).to(ACC)
    return value_BC


@triton.jit
def _weight(WEIGHT, channel_C, K, j, W: tl.constexpr, ACC: tl.constexpr):
    """Return tap j of each channel, as a row [1, C]."""
    return tl.load(WEIGHT + channel_C * W + j, mask=channel_C < K, other=0.0).to(ACC)[None, :]


@triton.jit
def _sum(
    X, WEIGHT, BIAS, TAILS, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride,
    W: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return bias + sum over taps [B, C]: what SiLU is applied to."""
    sum_BC = tl.zeros([ROWS, CHANNELS], dtype=ACC)
    if BIAS is not None:
        sum_BC += tl.load(BIAS + channel_C, mask=channel_C < K, other=0.0).to(ACC)[None, :]
    for j in tl.static_range(W):
        x_BC = _tap(
            X, TAILS, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride,
            W - 1 - j, W - 1, ACC,
        )  # fmt: skip
        sum_BC += x_BC * _weight(WEIGHT, channel_C, K, j, W, ACC)
    return sum_BC


@triton.jit
def _dsum(
    X, WEIGHT, BIAS, TAILS, DY, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride, dy_stride,
    W: tl.constexpr, SILU: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return the gradient [B, C] of `_sum`: zero where not ok_B."""
    dy_BC = tl.load(
        DY + t_B[:, None] * dy_stride + channel_C[None, :],
        mask=ok_B[:, None] & (channel_C < K)[None, :],
        other=0.0,
    ).to(ACC)
    if SILU:
        sum_BC = _sum(
            X, WEIGHT, BIAS, TAILS, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride,
            W, ACC, ROWS, CHANNELS,
        )  # fmt: skip
        share_BC = 1.0 / (1.0 + tl.exp(-sum_BC))
        dy_BC *= share_BC * (1.0 + sum_BC * (1.0 - share_BC))
    return dy_BC


@triton.jit
def conv_forward(
    X, WEIGHT, BIAS, TAILS, POSITION, SEGMENT, Y, T, K, x_stride,
    W: tl.constexpr, SILU: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Y [T, K]; a program is a tile of tokens (axis 0) by channels (axis 1)."""
    t_B = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel_C = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    ok_B = t_B < T
    position_B = tl.load(POSITION + t_B, mask=ok_B, other=0)
    segment_B = tl.load(SEGMENT + t_B, mask=ok_B, other=0)
    y_BC = _sum(
        X, WEIGHT, BIAS, TAILS, t_B, position_B, segment_B, ok_B, channel_C, K, x_stride,
        W, ACC, ROWS, CHANNELS,
    )  # fmt: skip
    if SILU:
        y_BC = y_BC / (1.0 + tl.exp(-y_BC))
    tl.store(
        Y + t_B[:, None] * K + channel_C[None, :],
        y_BC.to(Y.dtype.element_ty),
        mask=ok_B[:, None] & (channel_C < K)[None, :],
    )


@triton.jit
def conv_final_tails(
    X, TAILS, CU, FINAL, S, K, x_stride,
    W: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """FINAL [S, K, V]: what the token after each sequence's last would find before it."""
    V: tl.constexpr = W - 1
    s_B = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel_C = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    ok_B = s_B < S
    end_B = tl.load(CU + s_B + 1, mask=ok_B, other=0)
    length_B = end_B - tl.load(CU + s_B, mask=ok_B, other=0)
    for v in tl.static_range(V):
        x_BC = _tap(X, TAILS, end_B, length_B, s_B, ok_B, channel_C, K, x_stride, V - v, V, ACC)
        tl.store(
            FINAL + (s_B * K * V + v)[:, None] + (channel_C * V)[None, :],
            x_BC.to(FINAL.dtype.element_ty),
            mask=ok_B[:, None] & (channel_C < K)[None, :],
        )


@triton.jit
def conv_backward(
    X, WEIGHT, BIAS, TAILS, POSITION, SEGMENT, CU, DY, DFINAL, DX, PARTS, T, K, x_stride, dy_stride,
    W: tl.constexpr, SILU: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """DX [T, K], and in PARTS [tiles, W + 1, K] the tile's share of dweight (W rows) and dbias."""
    V: tl.constexpr = W - 1
    tile = tl.program_id(0).to(tl.int64)
    t_B = tile * ROWS + tl.arange(0, ROWS)
    channel_C = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real_C = channel_C < K
    segment_B = tl.load(SEGMENT + t_B, mask=t_B < T, other=0)
    dx_BC = tl.zeros([ROWS, CHANNELS], dtype=ACC)
    dsum_BC = tl.zeros([ROWS, CHANNELS], dtype=ACC)
    # A loop of the machine, not unrolled: unrolled it spills, and takes ptxas 20 s.
    for back in tl.range(0, W, loop_unroll_factor=1):
        # Token t is the i-th before token u, in the same sequence, where u's position allows it.
        i = W - 1 - back
        u_B = t_B + i
        position_B = tl.load(POSITION + u_B, mask=u_B < T, other=-1)
        reached_B = position_B >= i
        dsum_BC = _dsum(
            X, WEIGHT, BIAS, TAILS, DY, u_B, position_B, segment_B, reached_B, channel_C, K,
            x_stride, dy_stride, W, SILU, ACC, ROWS, CHANNELS,
        )  # fmt: skip
        dx_BC += dsum_BC * _weight(WEIGHT, channel_C, K, back, W, ACC)

    # The last turn had i = 0: dsum is that of the tile's own tokens.
    position_B = tl.load(POSITION + t_B, mask=t_B < T, other=0)
    part_C = PARTS + tile * (W + 1) * K + channel_C
    tl.store(part_C + W * K, tl.sum(dsum_BC, 0), mask=real_C)
    for j in tl.static_range(W):
        x_BC = _tap(
            X, TAILS, t_B, position_B, segment_B, t_B < T, channel_C, K, x_stride,
            V - j, V, ACC,
        )  # fmt: skip
        tl.store(part_C + j * K, tl.sum(dsum_BC * x_BC, 0), mask=real_C)
    if DFINAL is not None:
        # The last V tokens of a sequence are its final tail.
        v_B = V - tl.load(CU + segment_B + 1, mask=t_B < T, other=0) + t_B
        dx_BC += tl.load(
            DFINAL + (segment_B * K * V + v_B)[:, None] + (channel_C * V)[None, :],
            mask=((t_B < T) & (v_B >= 0))[:, None] & real_C[None, :],
            other=0.0,
        ).to(ACC)
    tl.store(
        DX + t_B[:, None] * K + channel_C[None, :],
        dx_BC.to(DX.dtype.element_ty),
        mask=(t_B < T)[:, None] & real_C[None, :],
    )


@triton.jit
def conv_backward_tails(
    X, WEIGHT, BIAS, TAILS, CU, DY, DFINAL, DTAILS, S, K, x_stride, dy_stride,
    W: tl.constexpr, SILU: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """DTAILS [S, K, V]: row v is read by tokens 0 .. v, and is final where the sequence is short.

    A program is a tile of sequences (axis 0) by channels (axis 1), and one v (axis 2).
    """
    V: tl.constexpr = W - 1
    v = tl.program_id(2)
    s_B = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel_C = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    ok_B = s_B < S
    begin_B = tl.load(CU + s_B, mask=ok_B, other=0)
    length_B = tl.load(CU + s_B + 1, mask=ok_B, other=0) - begin_B
    row_BC = (s_B * K * V + v)[:, None] + (channel_C * V)[None, :]
    real_BC = ok_B[:, None] & (channel_C < K)[None, :]
    dtail_BC = tl.zeros([ROWS, CHANNELS], dtype=ACC)
    for p in range(0, v + 1):
        dsum_BC = _dsum(
            X, WEIGHT, BIAS, TAILS, DY, begin_B + p, s_B * 0 + p, s_B, ok_B & (p < length_B),
            channel_C, K, x_stride, dy_stride, W, SILU, ACC, ROWS, CHANNELS,
        )  # fmt: skip
        dtail_BC += dsum_BC * _weight(WEIGHT, channel_C, K, v - p, W, ACC)
    if DFINAL is not None:
        kept_B = length_B <= v  # its row in the final tail is v - length
        dtail_BC += tl.load(
            DFINAL + row_BC - length_B[:, None], mask=real_BC & kept_B[:, None], other=0.0
        ).to(ACC)
    tl.store(DTAILS + row_BC, dtail_BC.to(DTAILS.dtype.element_ty), mask=real_BC)
