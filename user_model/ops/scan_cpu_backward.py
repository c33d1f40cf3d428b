"""The compiled scan on a CPU, backward; `scan_cpu_block` tells how it works.

Two sweeps over a sequence. The first goes forward with the transposed state h^T and gives dC (and
dz); it marks the state at the start of every block. The second goes backward with the gradient G of
the state, once as [N, P] for dx and once as [P, N] for dB. Between the sweeps dy waits in the
memory of dx, and the gradient of C before the convolution's in that of dC.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import NamedTuple

from numba import njit

from user_model.ops.convolution_cpu_kernels import TAPS, tail_gradients, through_silu, unconvolve
from user_model.ops.cpu_rows import BLOCK, Rows, clear, copy_row, copy_rows, store_rows
from user_model.ops.lanes import (
    VECTOR_BYTES,
    cast,
    lanes,
    load,
    load_wide,
    padded_width,
    read,
    sigmoid,
    splat,
    store,
    total,
    turn,
    wide_lanes,
    write,
)  # fmt: skip
from user_model.ops.recurrence import read_then_update
from user_model.ops.scan_cpu_block import (
    fill_steps,
    first_decay,
    keep_history,
    load_block,
    load_history,
    load_state,
    scale_inputs,
    store_state,
)  # fmt: skip


class Gradients(NamedTuple):
    """What backward reads besides the problem, and what it writes: addresses, 0 where absent.

    Attributes:
        y: Rows [T, H, P], y before the product; out: Rows, the gradient of the result.
        final: [S, H, N, P], the gradient of the final states.
        x, B, C, z: Rows that are written; dt: [T, H].
        initial: [S, H, N, P]; tails: [S, H, TAPS - 1, W].
        A, D, dt_bias: float64 [I]; taps: [I, TAPS, W]; bias: [I, W]; to be summed over items.
    """

    y: Rows
    out: Rows
    final: int
    x: Rows
    B: Rows
    C: Rows
    z: Rows
    dt: int
    initial: int
    tails: int
    A: int
    D: int
    dt_bias: int
    taps: int
    bias: int


class Sweep(NamedTuple):
    """A work item's memory for the backward, besides its Block: addresses.

    Attributes:
        dy: [Q, padded P], the gradient of y; weighted: the same scaled for its segment.
        sums_x: [Q, padded P] and sums_n: [Q, padded N], what the recurrences give.
        grad: [Q + TAPS - 1, W], gradients of x, B, C, with the next block's first rows behind.
        G: [padded N, padded P] and G_transposed: the gradient of the state.
        marks: [segments + 1, padded P, padded N], h^T at the start of each segment of the sequence
            and at its end, to be multiplied by `scales`, float64. There may be as many segments as
            tokens; memory that is not needed is never touched.
        flows: float64 [Q + 1], what flows over the first decay of each segment of the block, and
            over its end: a product of two states, not a difference of sums.
        direct: float64, x . dy of each token of the sequence.
        ended: float64, what flows from earlier tokens into the output of each of them.
        back, begun, stepped, slope: float64 [Q]: the decay from each token to the end of its
            segment, what flows from it to later ones, the gradient of its step but for the decay,
            and the slope of softplus.
    """

    dy: int
    weighted: int
    sums_x: int
    sums_n: int
    grad: int
    G: int
    G_transposed: int
    marks: int
    scales: int
    flows: int
    direct: int
    ended: int
    back: int
    begun: int
    stepped: int
    slope: int


def sweep_sizes(wide: int, deep: int, longest: int) -> dict[str, int]:
    """Return the number of elements of each part of a Sweep over `longest` tokens."""
    row, size = wide + 2 * deep, wide * deep
    rows = dict.fromkeys(("dy", "weighted", "sums_x"), BLOCK * wide)
    rows |= {"sums_n": BLOCK * deep, "grad": (BLOCK + TAPS - 1) * row}
    rows |= {"G": size, "G_transposed": size, "marks": (longest + 1) * size}
    steps = {"scales": longest + 1, "direct": longest, "ended": longest}
    return (
        rows
        | steps
        | dict.fromkeys(("back", "begun", "stepped", "slope"), BLOCK)
        | {"flows": BLOCK + 1}
    )


@njit(nogil=True, cache=True)
def backward(problem, gradients, block, sweep, first_item, last_item):
    """Differentiate the work items first_item .. last_item - 1.

    Args:
        problem: the inputs.
        gradients: what to read and to write; sums over items begin at zero.
        block, sweep: memory, zeros.
        first_item, last_item: items; item i is unit i // H, head i % H.
    """
    H = problem.heads
    for item in range(first_item, last_item):
        unit = item // H
        for s in range(read(0, problem.units, unit), read(0, problem.units, unit + 1)):
            marks, flow = _sweep_forward(problem, gradients, block, sweep, s, item)
            _sweep_back(problem, gradients, block, sweep, s, item, marks, flow)


@njit
def _add(base, at, value):
    write(base, at, read(value, base, at) + value)


@njit
def _sweep_forward(problem, gradients, block, sweep, s, item):
    """Fill in dC, dz, dy, direct, ended and the marks of one sequence.

    Return the number of segments, and what flows over the last token to the final state.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    begin, end = read(0, problem.bounds, s), read(0, problem.bounds, s + 1)
    at = (s * H + head) * N * P
    _load_transposed(zero, sweep.marks, problem.initial, at, N, P, wide, deep)
    _load_transposed(zero, sweep.G_transposed, gradients.final, at, N, P, wide, deep)
    if problem.taps != 0:
        load_history(problem, block, s, head)
    pending, mark, flow = 1.0, 0, 0.0
    for first in range(begin, end, BLOCK):
        tokens = min(BLOCK, end - first)
        load_block(problem, block, first, tokens, head)
        ends = gradients.final != 0 and first + BLOCK >= end
        segments = fill_steps(problem, block, first, tokens, head, ends)
        _load_output_gradient(problem, gradients, block, sweep, s, first, tokens, head)
        pending, flow = _recur_transposed(
            zero, block, sweep, mark, tokens, segments, pending, wide, deep, ends
        )
        mark += segments
        _add(gradients.D, item, _finish_dC(zero, block, sweep, tokens, first - begin, wide, deep))
        store_rows(zero, gradients.C, first, head, sweep.sums_n, 0, deep, tokens, N)
        if problem.taps != 0:
            keep_history(problem, block, tokens, wide + 2 * deep)
    write(sweep.scales, mark, pending)
    return mark, flow


@njit
def _load_transposed(zero, state, source, at, N, P, wide, deep):
    clear(zero, state, wide * deep)
    if source != 0:
        for n in range(N):
            for p in range(P):
                write(state, p * deep + n, read(zero, source, at + n * P + p))


@njit
def _load_output_gradient(problem, gradients, block, sweep, s, first, tokens, head):
    """dy = dout * RoPE(z), dz = RoPE^-1(dout * y); dy is left in dx for the way back."""
    P, zero, wide = problem.width, problem.zero, padded_width(problem.width)
    copy_rows(zero, sweep.dy, 0, wide, gradients.out, first, head, tokens, P)
    if problem.z.base != 0:
        copy_rows(zero, block.z, 0, wide, problem.z, first, head, tokens, P)
        copy_rows(zero, block.sums, 0, wide, gradients.y, first, head, tokens, P)
        position = read(0, problem.first_turn, s) + first - read(0, problem.bounds, s)
        for k in range(0, tokens * wide, lanes(zero)):
            turns, out = load(zero, problem.turns, position * wide + k), load(zero, sweep.dy, k)
            store(sweep.dy, k, out * turn(load(zero, block.z, k), turns, False))
            store(block.sums, k, turn(out * load(zero, block.sums, k), turns, True))
        store_rows(zero, gradients.z, first, head, block.sums, 0, wide, tokens, P)
    store_rows(zero, gradients.x, first, head, sweep.dy, 0, wide, tokens, P)


@njit
def _recur_transposed(zero, block, sweep, mark, tokens, segments, pending, wide, deep, ends):
    """Run the scan with h^T from `mark` on; sums_n gets (decayed h before the token)^T dy.

    Return the factor that the state still lacks, and, where the sequence `ends` and its final state
    has a gradient, what flows to it over the last token. That token's own share passes no decay:
    with it, a strong one would be lost in rounding.
    """
    row, size, flow = wide + 2 * deep, wide * deep, 0.0
    clear(zero, sweep.sums_n, tokens * deep)
    for segment in range(segments):
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        scale_inputs(zero, block, begin, end, wide, row)
        old, state = (
            _mark(zero, sweep, mark + segment, size),
            _mark(zero, sweep, mark + segment + 1, size),
        )
        copy_row(zero, state, 0, old, 0, size)
        write(sweep.scales, mark + segment, pending)
        pending *= first_decay(block, begin)
        if ends and segment == segments - 1:
            flow = _product(zero, old, sweep.G_transposed, size) * pending
        read_then_update(
            end - begin, cast(zero, pending), state, wide, deep, block.inputs, begin * wide, wide,
            block.mixed, begin * row + wide, row,
            sweep.dy, begin * wide, wide, sweep.sums_n, begin * deep, deep,
        )  # fmt: skip
        pending = read(0.0, block.decay, end - 1)
    return pending, flow


@njit
def _mark(zero, sweep, number, size):
    """Return the address of a mark."""
    return sweep.marks + number * size * VECTOR_BYTES // lanes(zero)


@njit
def _finish_dC(zero, block, sweep, tokens, at, wide, deep):
    """dC = decayed sums + s (x . dy) B; keep x . dy and C . (decayed sums); return sum x . dy."""
    row, all_direct, mixed = wide + 2 * deep, 0.0, block.mixed
    for t in range(tokens):
        direct_sums, flow_sums = splat(zero, 0.0), splat(zero, 0.0)
        for k in range(0, wide, lanes(zero)):
            direct_sums += load(zero, mixed, t * row + k) * load(zero, sweep.dy, t * wide + k)
        direct = cast(0.0, total(direct_sums))
        scale = splat(zero, read(0.0, block.decay, t))
        own = splat(zero, read(0.0, block.step, t) * direct)
        B_at, C_at = t * row + wide, t * row + wide + deep
        for k in range(0, deep, lanes(zero)):
            carried = scale * load(zero, sweep.sums_n, t * deep + k)
            flow_sums += load(zero, mixed, C_at + k) * carried
            store(sweep.sums_n, t * deep + k, carried + own * load(zero, mixed, B_at + k))
        write(sweep.direct, at + t, direct)
        write(sweep.ended, at + t, cast(0.0, total(flow_sums)))
        all_direct += direct
    return all_direct


@njit
def _sweep_back(problem, gradients, block, sweep, s, item, mark, flow):
    """Fill in dx, dB, ddt and what the convolution makes of them, for one sequence.

    `mark` is the number of its segments, `flow` what flows over its last token to its final state.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    begin, end, row = read(0, problem.bounds, s), read(0, problem.bounds, s + 1), wide + 2 * deep
    at = (s * H + head) * N * P
    load_state(zero, sweep.G, gradients.final, at, N, P, wide, deep)
    clear(zero, sweep.grad, (BLOCK + TAPS - 1) * row)
    pending, blocks = 1.0, (end - begin + BLOCK - 1) // BLOCK
    for number in range(blocks - 1, -1, -1):
        first = begin + number * BLOCK
        tokens = min(BLOCK, end - first)
        if problem.taps != 0:
            _load_rows_before(problem, block, s, first, head)
        load_block(problem, block, first, tokens, head, -BLOCK)
        ends = gradients.final != 0 and number == blocks - 1
        segments = fill_steps(problem, block, first, tokens, head, ends)
        copy_rows(zero, sweep.dy, 0, wide, gradients.x, first, head, tokens, P, -BLOCK)
        write(sweep.flows, segments, flow)
        mark -= segments
        pending = _recur_back(zero, block, sweep, mark, tokens, segments, pending, wide, deep)
        flow = read(0.0, sweep.flows, 0)
        skip = splat(zero, read(0.0, problem.D, head))
        _finish_dx_dB(zero, block, sweep, tokens, first - begin, skip, wide, deep)
        if ends:  # `flow` was what flows to the end from before the last token
            write(sweep.begun, tokens - 1, 0.0)
        _finish_dt(problem, gradients, block, sweep, first, segments, first - begin, item)
        copy_rows(zero, sweep.grad, wide + deep, row, gradients.C, first, head, tokens, N, -BLOCK)
        rows = sweep.grad
        if problem.taps != 0:
            through_silu(zero, block.pre, sweep.grad, block.mixed, tokens * row)
            unconvolve(
                zero, sweep.grad, block.raw, block.pre, problem.taps, head * TAPS * row,
                gradients.taps, item * TAPS * row, gradients.bias, item * row, tokens, row,
            )  # fmt: skip
            rows = block.pre
        store_rows(zero, gradients.x, first, head, rows, 0, row, tokens, P, -BLOCK)
        store_rows(zero, gradients.B, first, head, rows, wide, row, tokens, N, -BLOCK)
        store_rows(zero, gradients.C, first, head, rows, wide + deep, row, tokens, N, -BLOCK)
    if gradients.initial != 0:
        store_state(gradients.initial, at, sweep.G, N, P, wide, cast(zero, pending))
    if gradients.tails != 0:
        tails_at = (s * H + head) * (TAPS - 1) * row
        tail_gradients(
            zero, sweep.grad, problem.taps, head * TAPS * row, gradients.tails, tails_at, row
        )


@njit
def _load_rows_before(problem, block, s, first, head):
    """Put the TAPS - 1 rows before token `first` where the convolution looks for them."""
    P, N, zero = problem.width, problem.state, problem.zero
    wide, deep = padded_width(P), padded_width(N)
    row, before = wide + 2 * deep, TAPS - 1
    if first == read(0, problem.bounds, s):
        load_history(problem, block, s, head)
    else:  # a block is longer than the taps: all of these rows belong to the sequence
        copy_rows(zero, block.raw, 0, row, problem.x, first - before, head, before, P)
        copy_rows(zero, block.raw, wide, row, problem.B, first - before, head, before, N)
        copy_rows(zero, block.raw, wide + deep, row, problem.C, first - before, head, before, N)


@njit
def _product(zero, a, b, size):
    """Return the sum of the products of two states' elements."""
    sums = splat(zero, 0.0)
    for k in range(0, size, lanes(zero)):
        sums += load(zero, a, k) * load(zero, b, k)
    return cast(0.0, total(sums))


@njit
def _recur_back(zero, block, sweep, mark, tokens, segments, pending, wide, deep):
    """Run the gradient of the state back; sums_x gets G^T B and sums_n G x, before own parts.

    `mark` is that of the block's first segment.
    """
    row, mixed = wide + 2 * deep, block.mixed
    clear(zero, sweep.sums_x, tokens * wide)
    clear(zero, sweep.sums_n, tokens * deep)
    for segment in range(segments - 1, -1, -1):
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        last, count, scale = end - 1, end - begin, cast(zero, pending)
        whole = read(0.0, block.decay, last)
        for t in range(begin, end):
            write(sweep.back, t, whole / read(0.0, block.decay, t))
            weight = splat(zero, read(0.0, block.decay, t) / whole)
            for k in range(0, wide, lanes(zero)):
                store(sweep.weighted, t * wide + k, weight * load(zero, sweep.dy, t * wide + k))
        x, B, C = last * row, last * row + wide, last * row + wide + deep
        read_then_update(
            count, scale, sweep.G, deep, wide, mixed, C, -row,
            sweep.weighted, last * wide, -wide, mixed, B, -row, sweep.sums_x, last * wide, -wide,
        )  # fmt: skip
        read_then_update(
            count, scale, sweep.G_transposed, wide, deep, sweep.weighted, last * wide, -wide,
            mixed, C, -row, mixed, x, -row, sweep.sums_n, last * deep, -deep,
        )  # fmt: skip
        pending = whole * first_decay(block, begin)
        before = _mark(zero, sweep, mark + segment, wide * deep)
        flow = _product(zero, before, sweep.G_transposed, wide * deep) * pending
        write(sweep.flows, segment, flow * read(0.0, sweep.scales, mark + segment))
    return pending


@njit
def _finish_dx_dB(zero, block, sweep, tokens, at, skip, wide, deep):
    """Put dx and dB into grad; keep what begins at each token, and its step's own gradient."""
    row, mixed = wide + 2 * deep, block.mixed
    for t in range(tokens):
        step, direct = read(0.0, block.step, t), read(0.0, sweep.direct, at + t)
        back, steps = splat(zero, read(0.0, sweep.back, t)), splat(zero, step)
        own, later = splat(zero, step * direct), steps * back
        overlap_sums, flow_sums = splat(zero, 0.0), splat(zero, 0.0)
        B_at, C_at = t * row + wide, t * row + wide + deep
        for k in range(0, deep, lanes(zero)):
            C = load(zero, mixed, C_at + k)
            overlap_sums += load(zero, mixed, B_at + k) * C
            store(sweep.grad, B_at + k, later * load(zero, sweep.sums_n, t * deep + k) + own * C)
        overlap = cast(0.0, total(overlap_sums))
        overlaps = splat(zero, overlap)
        for k in range(0, wide, lanes(zero)):
            dy = load(zero, sweep.dy, t * wide + k)
            carried = back * load(zero, sweep.sums_x, t * wide + k)
            flow_sums += load(zero, mixed, t * row + k) * carried
            store(sweep.grad, t * row + k, steps * (carried + overlaps * dy) + skip * dy)
        flow = cast(0.0, total(flow_sums))
        write(sweep.begun, t, step * flow)
        write(sweep.stepped, t, flow + overlap * direct)


@njit
def _finish_dt(problem, gradients, block, sweep, first, segments, at, item):
    """Write ddt and add to dA and ddt_bias."""
    H, real = problem.heads, 0.0
    A, bias_sum, A_sum = read(real, problem.A, item % H), 0.0, 0.0
    tokens = read(0, block.starts, segments)
    for t in range(0, tokens, wide_lanes(real)):
        store(sweep.slope, t, sigmoid(load_wide(real, block.value, t)))
    for segment in range(segments - 1, -1, -1):
        flow = read(real, sweep.flows, segment + 1)
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        for t in range(end - 1, begin - 1, -1):
            flow += read(real, sweep.ended, at + t) - read(real, sweep.begun, t)
            if t == begin:
                flow = read(real, sweep.flows, segment)
            change = (read(real, sweep.stepped, t) + A * flow) * read(real, sweep.slope, t)
            write(gradients.dt, (first + t) * H + item % H, cast(problem.zero, change))
            bias_sum += change
            A_sum += read(real, block.step, t) * flow
    _add(gradients.dt_bias, item, bias_sum)
    _add(gradients.A, item, A_sum)
