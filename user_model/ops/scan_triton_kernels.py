# mypy: disable-error-code="no-untyped-def"
"""What the Triton kernels of the scan share: step sizes and their decays, RoPE, and masks.

Letters of these files: T tokens, S sequences, H heads, N state, W work items, G tiles, Q tokens a
tile, J = H BLOCKS column blocks, P columns of a block, R = P/2 rotated pairs. A program is one work
item (or tile) and one block: the columns of x, y, z and the state do not depend on each other, so
a head too wide for the registers of one program is shared among BLOCKS of them. Each writes its own
part of a gradient that is a sum over columns.

ACC is the type of states, decays and accumulators; products take operands of the type of x.

Logs of decays are summed in float64, which is a few operations a token: a decay between two tokens
is the exponential of a difference of two sums, and one strong step before both would leave float32
too few digits for it.

Bases are int64, offsets within a tile int32: a batch may pass 2^31 elements, a tile may not.
"""

import triton
import triton.language as tl


@triton.jit
def softplus(v):
    """log(1 + e^v) to full precision: log(u) e / (u - 1) with u = 1 + e (Kahan) is log1p(e)."""
    e = tl.exp(-tl.abs(v))
    u = 1.0 + e
    exact = u == 1.0
    log1p = tl.where(exact, e, tl.log(u) * (e / tl.where(exact, 1.0, u - 1.0)))
    return tl.maximum(v, 0.0) + log1p


@triton.jit
def sigmoid(v):
    """1 / (1 + e^-v), the derivative of softplus."""
    return 1.0 / (1.0 + tl.exp(-v))


@triton.jit
def load_rows(POINTER, base, stride, inside_Q, Q: tl.constexpr, K: tl.constexpr):
    """Load [Q, K]: rows `stride` apart, 0 where they are not of this tile."""
    offsets = tl.arange(0, Q)[:, None] * stride + tl.arange(0, K)[None, :]
    return tl.load(POINTER + base + offsets, mask=inside_Q[:, None], other=0.0)


@triton.jit
def store_rows(POINTER, base, stride, inside_Q, values_QK, Q: tl.constexpr, K: tl.constexpr):
    """Store [Q, K] in the type of the memory: rows `stride` apart, those of this tile."""
    offsets = tl.arange(0, Q)[:, None] * stride + tl.arange(0, K)[None, :]
    values = values_QK.to(POINTER.dtype.element_ty)
    tl.store(POINTER + base + offsets, values, mask=inside_Q[:, None])


@triton.jit
def load_raw_steps(DT, BIAS, first, stride, head, inside_Q, Q: tl.constexpr, ACC: tl.constexpr):
    """Return dt + bias [Q]."""
    offsets = tl.arange(0, Q) * stride
    raw_Q = tl.load(DT + first * stride + head + offsets, mask=inside_Q, other=0.0).to(ACC)
    if BIAS is not None:
        raw_Q += tl.load(BIAS + head).to(ACC)
    return raw_Q


@triton.jit
def load_tokens(POINTER, first, block, J, inside_Q, Q: tl.constexpr):
    """Load [Q] of a contiguous [T, J], 0 outside: with step 0 a token has no effect."""
    return tl.load(POINTER + first * J + block + tl.arange(0, Q) * J, mask=inside_Q, other=0.0)


@triton.jit
def store_tokens(POINTER, first, block, J, inside_Q, values_Q, Q: tl.constexpr):
    """Store [Q] in a contiguous [T, J], in the type of the memory."""
    at = POINTER + first * J + block + tl.arange(0, Q) * J
    tl.store(at, values_Q.to(POINTER.dtype.element_ty), mask=inside_Q)


@triton.jit
def log_decays(step_Q, a):
    """Return the log decay from before the tile to each token, and over all of it; float64."""
    log_Q = step_Q.to(tl.float64) * a.to(tl.float64)
    return tl.cumsum(log_Q, 0), tl.sum(log_Q, 0)


@triton.jit
def decay_over(paths_QQ, log_Q, ACC: tl.constexpr, TRANSPOSED: tl.constexpr = False):
    """Return the decay from column to row on the paths, else 0; TRANSPOSED, from row to column.

    Masked before exp, which may overflow elsewhere. A sum is split into two numbers of type ACC, so
    that no float64 matrix is made.
    """
    high_Q = log_Q.to(ACC)
    low_Q = (log_Q - high_Q.to(tl.float64)).to(ACC)
    if TRANSPOSED:
        between_QQ = (high_Q[None, :] - high_Q[:, None]) + (low_Q[None, :] - low_Q[:, None])
    else:
        between_QQ = (high_Q[:, None] - high_Q[None, :]) + (low_Q[:, None] - low_Q[None, :])
    return tl.exp(tl.where(paths_QQ, between_QQ, float("-inf")))


@triton.jit
def load_segments(SEGMENT, first, inside_Q, Q: tl.constexpr):
    """Return the sequence of each token, -2 outside."""
    return tl.load(SEGMENT + first + tl.arange(0, Q), mask=inside_Q, other=-2).to(tl.int32)


@triton.jit
def load_turns(
    TURNS, TURN_ROW, first, block, inside_Q, Q: tl.constexpr, P: tl.constexpr, BLOCKS: tl.constexpr
):
    """Return cos and sin [Q, R] of each token's position, those of the block's columns."""
    row_Q = tl.load(TURN_ROW + first + tl.arange(0, Q), mask=inside_Q, other=0)
    column_P = block % BLOCKS * P + tl.arange(0, P)
    turns_QP = tl.load(TURNS + row_Q[:, None] * (P * BLOCKS) + column_P[None, :])
    return tl.split(tl.reshape(turns_QP, [Q, P // 2, 2]))


@triton.jit
def rotate(pairs_QP, cos_QR, sin_QR, Q: tl.constexpr, P: tl.constexpr):
    """Rotate interleaved pairs; with -sin it is the inverse, which is the gradient."""
    even, odd = tl.split(tl.reshape(pairs_QP, [Q, P // 2, 2]))
    turned = tl.join(even * cos_QR - odd * sin_QR, even * sin_QR + odd * cos_QR)
    return tl.reshape(turned, [Q, P])


@triton.jit
def finite(values):
    """Return which values are numbers: false for NaN and infinity."""
    return tl.abs(values) < float("inf")


@triton.jit
def broken_rows(values_QK):
    """Return which rows hold a NaN or an infinity."""
    return tl.max(tl.where(finite(values_QK), 0, 1), 1) > 0


@triton.jit
def cleaned(values):
    """Make what is not finite 0."""
    return tl.where(finite(values), values, 0.0)


@triton.jit
def poisoned(broken_Q, segment_Q):
    """Return which tokens share a sequence and a tile with a broken one: they are lost.

    In a tile of several sequences a product multiplies a stranger's rows by 0, and 0 * NaN is NaN:
    so a sequence that is lost takes part as zeros, and its own results are NaN afterwards. The
    forward marks its tokens for the backward by a step of NaN.
    """
    own_QQ = segment_Q[:, None] == segment_Q[None, :]
    return tl.max(tl.where(own_QQ & broken_Q[None, :], 1, 0), 1) > 0
