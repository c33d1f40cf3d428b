"""One event of each user through Hydra's blocks on a CPU, compiled: `Hydra.step` without torch.

A single user's step is forty thousand multiplications, less than what it takes to call ten of
torch's ops; here a block is one call. Sums run over the rows of transposed weights, so that every
inner loop goes along memory.

Shapes: n users, d model width, V heads, P width of a head, N state, K = P + 2 N channels of the
convolution, O outputs of a head's in-projection, F hidden width, S streams (2 with Z, else 1).
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, assignment"

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from user_model.ops.convolution_cpu_kernels import apply_silu
from user_model.ops.cpu_rows import SLACK
from user_model.ops.kernel_cache import kernel
from user_model.ops.rotary import BASE

NORM_EPS = np.float32(1e-6)
_ROPE_BASE = BASE
_ZERO = np.float32(0.0)


class BlockWeights(NamedTuple):
    """A block's weights in float32, matrices as [inputs, outputs]; of length 0 where it has none.

    Attributes:
        norm: [d].
        input: [d, S V P].
        in_projection: [V, P, O].
        gap_weight: [V], or [0].
        taps: [4, V K], oldest first.
        tap_bias: [V K].
        dt_bias: [V].
        rates: A [V].
        skip: D [V].
        head_norm: [V P], or [0] without gates (lean).
        out_projection: [V, P, P], or [0, P, P].
        output: [V P, d].
        mean: [d, d], or [0, d].
        ffn_norm: [d].
        up: [d, 2 F].
        down: [F, d].
    """

    norm: Any
    input: Any
    in_projection: Any
    gap_weight: Any
    taps: Any
    tap_bias: Any
    dt_bias: Any
    rates: Any
    skip: Any
    head_norm: Any
    out_projection: Any
    output: Any
    mean: Any
    ffn_norm: Any
    up: Any
    down: Any


@njit
def _multiply(x, matrix, out):
    """out = x @ matrix."""
    for column in range(matrix.shape[1]):
        out[column] = _ZERO
    _add_product(x, matrix, out)


@njit
def _add_product(x, matrix, out):
    """out += x @ matrix."""
    for row in range(matrix.shape[0]):
        factor = x[row]
        for column in range(matrix.shape[1]):
            out[column] += factor * matrix[row, column]


@njit
def _normalise(x, weight, out):
    """out = x / rms(x) * weight; may be x itself."""
    squares = _ZERO
    for k in range(len(weight)):
        squares += x[k] * x[k]
    scale = np.float32(1.0 / math.sqrt(squares / np.float32(len(weight)) + NORM_EPS))
    for k in range(len(weight)):
        out[k] = x[k] * scale * weight[k]


@njit
def _silu(values, size):
    """In place; the SLACK elements behind them are overwritten."""
    apply_silu(_ZERO, values.ctypes.data, values.ctypes.data, size)


@njit
def _turn(z, at, width):
    """RoPE of a user's Z [V P], in place: pairs turned by position * BASE^(-2 i / P)."""
    for pair in range(width // 2):
        angle = at * _ROPE_BASE ** (-2.0 * pair / width)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        for first in range(2 * pair, len(z), width):
            even, odd = z[first], z[first + 1]
            z[first] = even * cos - odd * sin
            z[first + 1] = even * sin + odd * cos


@njit
def _convolve(x, tails_3k, taps, bias, tails_out_3k, out):
    for k in range(len(bias)):
        y = bias[k] + taps[3, k] * x[k]
        y += taps[0, k] * tails_3k[0, k] + taps[1, k] * tails_3k[1, k] + taps[2, k] * tails_3k[2, k]
        out[k] = y
    for k in range(len(bias)):
        tails_out_3k[0, k] = tails_3k[1, k]
        tails_out_3k[1, k] = tails_3k[2, k]
        tails_out_3k[2, k] = x[k]


@njit
def _scan(xbc, dt, rate, skip, state_NP, state_out_NP, y):
    """One head's token: y = h^T C + D x, after h = exp(s A) h + s B x^T; dt has its bias."""
    N, P = state_NP.shape
    step = np.float32(math.log1p(math.exp(-abs(dt))) + max(dt, 0.0))
    decay = np.float32(math.exp(step * rate))
    for p in range(P):
        y[p] = skip * xbc[p]
    for n in range(N):
        into, out_of = step * xbc[P + n], xbc[P + N + n]
        for p in range(P):
            new = state_NP[n, p] * decay + into * xbc[p]
            state_out_NP[n, p] = new
            y[p] += out_of * new


@njit
def _project(w, x, gap, xbc, dts, gates):
    """The heads' in-projections of X [V P]: what the convolution reads, dt, and the gates."""
    V, P, width = w.in_projection.shape
    is_full = len(w.head_norm) > 0
    K = len(w.tap_bias) // V
    out = np.empty(width, dtype=np.float32)
    for v in range(V):
        own = x[v * P : (v + 1) * P]
        _multiply(own, w.in_projection[v], out)
        if is_full:
            gates[v * P : (v + 1) * P] = out[:P]
            xbc[v * K : (v + 1) * K] = out[P : P + K]
        else:
            xbc[v * K : v * K + P] = own
            xbc[v * K + P : (v + 1) * K] = out[: K - P]
        dts[v] = out[width - 1] + w.dt_bias[v]
        if len(w.gap_weight):
            dts[v] += np.float32(gap) * w.gap_weight[v]


@njit
def _gate(w, y, gates, spare):
    """y = out_projection(norm(y * silu(gate))) of each head; gates have been through SiLU."""
    V, P, _ = w.out_projection.shape
    for v in range(V):
        own = y[v * P : (v + 1) * P]
        for p in range(P):
            spare[p] = own[p] * gates[v * P + p]
        _normalise(spare, w.head_norm[v * P : (v + 1) * P], spare)
        _multiply(spare, w.out_projection[v], own)


@njit
def _feed_forward(hidden, gate, down, h):
    """h += (silu(gate) * up) @ down; `hidden` is gate and up, and `gate` room, with SLACK."""
    F = len(down)
    gate[:F] = hidden[:F]
    _silu(gate, F)
    for k in range(F):
        gate[k] *= hidden[F + k]
    _add_product(gate, down, h)


@kernel
def normalise_rows(x_nd, weight_d, out_nd):
    """Write RMSNorm of each row."""
    for user in range(len(x_nd)):
        _normalise(x_nd[user], weight_d, out_nd[user])


@kernel
def block_step(w, rope, h, at, gaps, scan, tails, sums, scan_out, tails_out, sums_out):
    """Take each user's h [n, d] through a block, in place, from its state to the one after.

    Args:
        w: BlockWeights.
        rope: whether Z is turned by the position.
        h: float32 [n, d].
        at: int64 [n], events before this one.
        gaps: float64 [n], log of the gap before it; [0] without a time channel.
        scan: float32 [n, V, N, P].
        tails: float32 [n, 3, V K].
        sums: float32 [n, d], or [0, d].
        scan_out: as scan, of the state after; and so on.
        tails_out: as tails.
        sums_out: as sums.
    """
    d, inner = h.shape[1], w.output.shape[0]
    V = len(w.rates)
    P, K, F = inner // V, len(w.tap_bias) // V, w.down.shape[0]
    has_z = w.input.shape[1] > inner
    normed, mixed = np.empty(d, dtype=np.float32), np.empty(d, dtype=np.float32)
    streams = np.empty(w.input.shape[1] + SLACK, dtype=np.float32)
    gates, y = np.empty(inner + SLACK, dtype=np.float32), np.empty(inner, dtype=np.float32)
    raw, xbc = np.empty(V * K, dtype=np.float32), np.empty(V * K + SLACK, dtype=np.float32)
    hidden, gate = np.empty(2 * F, dtype=np.float32), np.empty(F + SLACK, dtype=np.float32)
    spare = np.empty(P, dtype=np.float32)
    dts = np.empty(V, dtype=np.float32)
    for user in range(len(h)):
        _normalise(h[user], w.norm, normed)
        _multiply(normed, w.input, streams)
        _silu(streams, w.input.shape[1])
        z = streams[inner : w.input.shape[1]]
        if rope and has_z:
            _turn(z, at[user], P)
        _project(w, streams[:inner], gaps[user] if len(gaps) else 0.0, raw, dts, gates)
        _convolve(raw, tails[user], w.taps, w.tap_bias, tails_out[user], xbc)
        _silu(xbc, V * K)
        for v in range(V):
            _scan(
                xbc[v * K : (v + 1) * K], dts[v], w.rates[v], w.skip[v], scan[user, v],
                scan_out[user, v], y[v * P : (v + 1) * P],
            )  # fmt: skip
        if len(w.head_norm):
            _silu(gates, inner)
            _gate(w, y, gates, spare)
        if has_z:
            for k in range(inner):
                y[k] *= z[k]
        _multiply(y, w.output, mixed)
        if len(w.mean):
            scale = np.float32(1.0 / (at[user] + 1))
            for k in range(d):
                sums_out[user, k] = sums[user, k] + normed[k]
                normed[k] = sums_out[user, k] * scale
            _add_product(normed, w.mean, mixed)
        for k in range(d):
            h[user, k] += mixed[k]
        _normalise(h[user], w.ffn_norm, normed)
        _multiply(normed, w.up, hidden)
        _feed_forward(hidden, gate, w.down, h[user])
