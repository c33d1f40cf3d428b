"""The second sweep of the compiled scan's backward: back through a stretch, for dx, dB and ddt.

The gradient G of the state is run back twice, as [N, P] for dx and as [P, N] for dB; what the first
sweep (`scan_cpu_sweep_forward`) marked and left gives the decays' and the steps' gradients.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.convolution_cpu_kernels import TAPS, through_silu, unconvolve
from user_model.ops.cpu_rows import BLOCK, clear, copy_row, store_rows
from user_model.ops.lanes import (
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
    wide_lanes,
    write,
)
from user_model.ops.recurrence import read_then_update, read_then_update_alone
from user_model.ops.scan_cpu_block import first_decay, slot_of
from user_model.ops.scan_cpu_sweep_forward import add, mark_at, product


@njit
def sweep_back(
    problem, gradients, stretches, block, work, sweep, s, from_token, item, mark, pending, flow,
    later,
):  # fmt: skip
    """Fill in dx, dB, ddt and what the convolution makes of them, for one stretch.

    Meanwhile what the next first sweep reads is asked for, `later` tokens after these.

    Args:
        mark: how many segments the stretch has.
        pending: the factor that G still lacks.
        flow: what flows over the end of the stretch.

    Returns:
        (pending, flow) of the stretch before.
    """
    P, N, zero = problem.width, problem.state, problem.zero
    wide, deep, end = padded_width(P), padded_width(N), read(0, problem.bounds, s + 1)
    skip = splat(zero, read(0.0, problem.D, item % problem.heads))
    size = min(end - from_token, stretches.tokens)
    for number in range((size + BLOCK - 1) // BLOCK - 1, -1, -1):
        at, slot = number * BLOCK, slot_of(block, number)
        first = from_token + at
        tokens = min(BLOCK, size - at)
        segments = read(0, slot.segments, 0)
        write(sweep.flows, segments, flow)
        mark -= segments
        pending = _recur_back(
            zero, slot, work.lines, first + later, sweep, mark, tokens, pending, wide, deep
        )
        flow = read(0.0, sweep.flows, 0)
        _finish_dx_dB(zero, slot, sweep, tokens, at, skip, wide, deep)
        if gradients.final != 0 and first + tokens == end:
            # `flow` was what flows to the end from before the last token.
            write(sweep.begun, tokens - 1, 0.0)
        _finish_dt(problem, gradients, slot, sweep, first, at, item)
        _store_gradients(problem, gradients, slot, sweep, first, tokens, item)
    return pending, flow


@njit
def _store_gradients(problem, gradients, block, sweep, first, tokens, item):
    """Write dx, dB and dC of a block, through the convolution if there is one."""
    P, N, zero, head = problem.width, problem.state, problem.zero, item % problem.heads
    wide, deep = padded_width(P), padded_width(N)
    row, rows = wide + 2 * deep, sweep.grad
    for t in range(tokens):
        copy_row(zero, sweep.grad, t * row + wide + deep, block.dC, t * deep, deep)
    if problem.taps != 0:
        through_silu(zero, block.pre, sweep.grad, block.mixed, tokens * row)
        unconvolve(
            zero, sweep.grad, block.raw, block.pre, problem.taps, head * TAPS * row,
            gradients.taps, item * TAPS * row, gradients.bias, item * row, tokens, row,
        )  # fmt: skip
        rows = block.pre
    store_rows(zero, gradients.x, first, head, rows, 0, row, tokens, P)
    store_rows(zero, gradients.B, first, head, rows, wide, row, tokens, N)
    store_rows(zero, gradients.C, first, head, rows, wide + deep, row, tokens, N)


@njit
def _recur_back(zero, block, lines, later, sweep, mark, tokens, pending, wide, deep):
    """Run the gradient of the state back; sums_x gets G^T B and sums_n G x, before own parts.

    `mark` is that of the block's first segment. Meanwhile as many tokens of `lines` are asked for,
    from `later` on.
    """
    row, mixed = wide + 2 * deep, block.mixed
    clear(zero, sweep.sums_x, tokens * wide)
    clear(zero, sweep.sums_n, tokens * deep)
    for segment in range(read(0, block.segments, 0) - 1, -1, -1):
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        last, count, scale = end - 1, end - begin, cast(zero, pending)
        whole = read(0.0, block.decay, last)
        for t in range(begin, end):
            write(sweep.back, t, whole / read(0.0, block.decay, t))
            weight = splat(zero, read(0.0, block.decay, t) / whole)
            for k in range(0, wide, lanes(zero)):
                store(sweep.weighted, t * wide + k, weight * load(zero, block.dy, t * wide + k))
        x, B, C = last * row, last * row + wide, last * row + wide + deep
        read_then_update_alone(
            count, scale, sweep.G, deep, wide, mixed, C, -row,
            sweep.weighted, last * wide, -wide, mixed, B, -row, sweep.sums_x, last * wide, -wide,
            0, 0,
        )  # fmt: skip
        read_then_update(
            count, scale, sweep.G_transposed, wide, deep, sweep.weighted, last * wide, -wide,
            mixed, C, -row, mixed, x, -row, sweep.sums_n, last * deep, -deep,
            lines, later + begin,
        )  # fmt: skip
        pending = whole * first_decay(block, begin)
        before = mark_at(zero, sweep, mark + segment, wide * deep)
        flow = product(zero, before, sweep.G_transposed, wide * deep) * pending
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
            dy = load(zero, block.dy, t * wide + k)
            carried = back * load(zero, sweep.sums_x, t * wide + k)
            flow_sums += load(zero, mixed, t * row + k) * carried
            store(sweep.grad, t * row + k, steps * (carried + overlaps * dy) + skip * dy)
        flow = cast(0.0, total(flow_sums))
        write(sweep.begun, t, step * flow)
        write(sweep.stepped, t, flow + overlap * direct)


@njit
def _finish_dt(problem, gradients, block, sweep, first, at, item):
    """Write ddt and add to dA and ddt_bias."""
    H, real = problem.heads, 0.0
    A, bias_sum, A_sum = read(real, problem.A, item % H), 0.0, 0.0
    segments = read(0, block.segments, 0)
    tokens = read(0, block.starts, segments)
    into = gradients.dt.base, first * gradients.dt.token + item % H * gradients.dt.head
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
            write(into[0], into[1] + t * gradients.dt.token, cast(problem.zero, change))
            bias_sum += change
            A_sum += read(real, block.step, t) * flow
    add(gradients.dt_bias, item, bias_sum)
    add(gradients.A, item, A_sum)
