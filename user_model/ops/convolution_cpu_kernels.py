"""The causal convolution on a CPU, compiled: on a block of rows, and over packed sequences.

The block functions serve the scan too, which convolves on its way. Memory is given by addresses.

Shapes: T tokens, S sequences, U units, W channels padded to whole vectors, Q = BLOCK tokens.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import Any, NamedTuple

from numba import njit

from user_model.ops.cpu_rows import BLOCK, Rows, clear, copy_row, copy_rows, store_rows
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import (
    finish_streams,
    lanes,
    load,
    load_wide,
    padded_width,
    read,
    sigmoid,
    store,
    wide_lanes,
)

TAPS = 4


class Convolution(NamedTuple):
    """What forward and backward read: addresses, 0 where absent.

    Attributes:
        zero: 0 of the elements' type.
        channels: number of channels, not padded.
        silu: whether SiLU follows.
        x: Rows of one head.
        taps: [TAPS, W]; bias: [W].
        bounds: int64 [S + 1], cu_seqlens; units: int64 [U + 1], the first sequence of each unit.
        tails: [S, TAPS - 1, W], what stood before each sequence.
        raw: [TAPS - 1 + Q, W], pre and mixed: [Q, W], grad: [Q + TAPS - 1, W]: memory.
    """

    zero: Any
    channels: int
    silu: bool
    x: Rows
    taps: int
    bias: int
    bounds: int
    units: int
    tails: int
    raw: int
    pre: int
    mixed: int
    grad: int


@njit
def convolve(zero, raw, pre, taps, taps_at, bias, bias_at, tokens, row):
    """pre_t = bias + sum of tap_j raw_(t+j), where raw begins with the TAPS - 1 rows before."""
    for k in range(0, row, lanes(zero)):
        constant = load(zero, bias, bias_at + k)
        tap0, tap1 = load(zero, taps, taps_at + k), load(zero, taps, taps_at + row + k)
        tap2 = load(zero, taps, taps_at + 2 * row + k)
        tap3 = load(zero, taps, taps_at + 3 * row + k)
        old0, old1, old2 = (
            load(zero, raw, k),
            load(zero, raw, row + k),
            load(zero, raw, 2 * row + k),
        )
        for t in range(tokens):
            new = load(zero, raw, (t + 3) * row + k)
            store(pre, t * row + k, constant + tap0 * old0 + tap1 * old1 + tap2 * old2 + tap3 * new)
            old0, old1, old2 = old1, old2, new


@njit
def apply_silu(zero, values, target, size):
    """target = values * sigmoid(values); may pass the end by less than a wide vector."""
    for k in range(0, size, wide_lanes(zero)):
        value = load_wide(zero, values, k)
        store(target, k, value * sigmoid(value))


@njit
def through_silu(zero, values, grad, spare, size):
    """Multiply grad by the slope of SiLU at `values`; what stands behind grad stays."""
    rest = size % wide_lanes(zero)
    for k in range(0, size - rest, wide_lanes(zero)):
        _slope(zero, values, grad, grad, k)
    if rest:
        _slope(zero, values, grad, spare, size - rest)
        copy_row(zero, grad, size - rest, spare, size - rest, rest)


@njit
def _slope(zero, values, gradients, target, k):
    value = load_wide(zero, values, k)
    share = sigmoid(value)
    store(target, k, load_wide(zero, gradients, k) * (share + value * (share - share * share)))


@njit
def unconvolve(
    zero, grad, raw, target, taps, taps_at, tap_sums, tap_sums_at, bias_sums, bias_at, tokens, row
):
    """target_t = sum of tap_j grad_(t+3-j), and add to the sums of the taps' and bias' gradients.

    Rows BLOCK .. BLOCK + 2 of grad are those behind the block's last: the first of the next block,
    or zeros. This block's first rows take their place.
    """
    for k in range(0, row, lanes(zero)):
        tap0, tap1 = load(zero, taps, taps_at + k), load(zero, taps, taps_at + row + k)
        tap2 = load(zero, taps, taps_at + 2 * row + k)
        tap3 = load(zero, taps, taps_at + 3 * row + k)
        at, behind = tap_sums_at + k, BLOCK * row + k
        sum0, sum1 = load(zero, tap_sums, at), load(zero, tap_sums, at + row)
        sum2, sum3 = load(zero, tap_sums, at + 2 * row), load(zero, tap_sums, at + 3 * row)
        total = load(zero, bias_sums, bias_at + k)
        next1, next2 = load(zero, grad, behind), load(zero, grad, behind + row)
        next3 = load(zero, grad, behind + 2 * row)
        for t in range(tokens - 1, -1, -1):
            now = load(zero, grad, t * row + k)
            store(target, t * row + k, tap3 * now + tap2 * next1 + tap1 * next2 + tap0 * next3)
            next1, next2, next3 = now, next1, next2
            total += now
            sum0 += now * load(zero, raw, t * row + k)
            sum1 += now * load(zero, raw, (t + 1) * row + k)
            sum2 += now * load(zero, raw, (t + 2) * row + k)
            sum3 += now * load(zero, raw, (t + 3) * row + k)
        store(tap_sums, at, sum0)
        store(tap_sums, at + row, sum1)
        store(tap_sums, at + 2 * row, sum2)
        store(tap_sums, at + 3 * row, sum3)
        store(bias_sums, bias_at + k, total)
        store(grad, behind, next1)
        store(grad, behind + row, next2)
        store(grad, behind + 2 * row, next3)


@njit
def tail_gradients(zero, grad, taps, taps_at, target, target_at, row):
    """Write the gradients of the TAPS - 1 rows before a sequence, after `unconvolve` of it all."""
    for before in range(TAPS - 1):  # the row of token before - (TAPS - 1)
        for k in range(0, row, lanes(zero)):
            change = load(zero, taps, taps_at + k) * load(zero, grad, (BLOCK + before) * row + k)
            for j in range(1, before + 1):
                tap = load(zero, taps, taps_at + j * row + k)
                change += tap * load(zero, grad, (BLOCK + before - j) * row + k)
            store(target, target_at + before * row + k, change)


@njit
def _load(conv, s, first, tokens):
    """Read a block's rows and those before it, and convolve them."""
    zero, row = conv.zero, padded_width(conv.channels)
    size = (TAPS - 1) * row
    if first > read(0, conv.bounds, s):
        copy_rows(zero, conv.raw, 0, row, conv.x, first - 3, 0, 3, conv.channels)
    elif conv.tails != 0:
        copy_row(zero, conv.raw, 0, conv.tails, s * size, size)
    else:
        clear(zero, conv.raw, size)
    copy_rows(zero, conv.raw, size, row, conv.x, first, 0, tokens, conv.channels)
    convolve(zero, conv.raw, conv.pre, conv.taps, 0, conv.bias, 0, tokens, row)


@kernel
def convolve_forward(conv, y, first_unit, last_unit):
    """Convolve the sequences of units first_unit .. last_unit - 1 into Rows y."""
    zero, row = conv.zero, padded_width(conv.channels)
    for s in range(read(0, conv.units, first_unit), read(0, conv.units, last_unit)):
        begin, end = read(0, conv.bounds, s), read(0, conv.bounds, s + 1)
        for first in range(begin, end, BLOCK):
            tokens = min(BLOCK, end - first)
            _load(conv, s, first, tokens)
            result = conv.pre
            if conv.silu:
                apply_silu(zero, conv.pre, conv.mixed, tokens * row)
                result = conv.mixed
            store_rows(zero, y, first, 0, result, 0, row, tokens, conv.channels)
    finish_streams()


@kernel
def convolve_backward(conv, dy, dx, dtails, tap_sums, bias_sums, first_unit, last_unit):
    """Differentiate units first_unit .. last_unit - 1.

    Args:
        conv: the inputs.
        dy: Rows, read; dx: Rows, written.
        dtails: address of [S, TAPS - 1, W], written; 0 where there are no tails.
        tap_sums: [U, TAPS, W]; bias_sums: [U, W]; added to.
        first_unit, last_unit: units.
    """
    zero, row = conv.zero, padded_width(conv.channels)
    for unit in range(first_unit, last_unit):
        for s in range(read(0, conv.units, unit), read(0, conv.units, unit + 1)):
            begin, end = read(0, conv.bounds, s), read(0, conv.bounds, s + 1)
            clear(zero, conv.grad, (BLOCK + TAPS - 1) * row)
            for number in range((end - begin + BLOCK - 1) // BLOCK - 1, -1, -1):
                first = begin + number * BLOCK
                tokens = min(BLOCK, end - first)
                _load(conv, s, first, tokens)
                copy_rows(zero, conv.grad, 0, row, dy, first, 0, tokens, conv.channels, -BLOCK)
                if conv.silu:
                    through_silu(zero, conv.pre, conv.grad, conv.mixed, tokens * row)
                unconvolve(
                    zero, conv.grad, conv.raw, conv.mixed, conv.taps, 0,
                    tap_sums, unit * TAPS * row, bias_sums, unit * row, tokens, row,
                )  # fmt: skip
                store_rows(zero, dx, first, 0, conv.mixed, 0, row, tokens, conv.channels)
            if dtails != 0:
                at = s * (TAPS - 1) * row
                tail_gradients(zero, conv.grad, conv.taps, 0, dtails, at, row)
    finish_streams()
