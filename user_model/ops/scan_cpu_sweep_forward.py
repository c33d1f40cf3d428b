"""The first sweep of the compiled scan's backward: forward through a stretch, for dC and dz.

It runs the scan again with the transposed state h^T and marks the state at the start of every
segment, which the second sweep (`scan_cpu_sweep_back`) needs; `scan_cpu_backward` tells how the two
share their memory.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.convolution_cpu_kernels import apply_silu, through_silu
from user_model.ops.cpu_rows import BLOCK, clear, copy_row, copy_rows, store_rows
from user_model.ops.lanes import (
    VECTOR_BYTES,
    cast,
    lanes,
    load,
    padded_width,
    read,
    splat,
    store,
    total,
    turn,
    write,
)
from user_model.ops.recurrence import read_then_update
from user_model.ops.scan_cpu_block import (
    AHEAD,
    first_decay,
    load_block,
    scale_inputs,
    slot_of,
    state_before,
)


@njit
def sweep_forward(problem, gradients, stretches, block, work, sweep, s, from_token, item):
    """Fill in dC, dz, dy, direct, ended and the marks of the stretch that begins at `from_token`.

    Return the number of segments, and what flows over the sequence's last token to the final state:
    0 where the stretch is not the last.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    end = read(0, problem.bounds, s + 1)
    before, at = problem.initial, (s * H + head) * N * P
    if from_token > read(0, problem.bounds, s):
        before, at = stretches.states, state_before(problem, stretches, from_token, head)
    load_transposed(zero, sweep.marks, before, at, N, P, wide, deep)
    pending, mark, flow = 1.0, 0, 0.0
    for first in range(from_token, min(end, from_token + stretches.tokens), BLOCK):
        tokens = min(BLOCK, end - first)
        slot = slot_of(block, (first - from_token) // BLOCK)
        ends = gradients.final != 0 and first + BLOCK >= end
        load_block(problem, slot, s, first, tokens, head, ends)
        _load_output_gradient(problem, gradients, slot, work, sweep, s, first, tokens, head)
        pending, flow = _recur_transposed(
            zero, slot, work, sweep, mark, first + AHEAD, tokens, pending, wide, deep, ends
        )
        mark += read(0, slot.segments, 0)
        at = first - from_token
        add(gradients.D, item, _finish_dC(zero, slot, sweep, tokens, at, wide, deep))
    write(sweep.scales, mark, pending)
    return mark, flow


@njit
def load_transposed(zero, state, source, at, N, P, wide, deep):
    """Read [N, P] transposed, into rows of `deep`; an absent source is zeros."""
    clear(zero, state, wide * deep)
    if source != 0:
        for n in range(N):
            for p in range(P):
                write(state, p * deep + n, read(zero, source, at + n * P + p))


@njit
def _load_output_gradient(problem, gradients, block, work, sweep, s, first, tokens, head):
    """dy = dout * RoPE(z), dz = RoPE^-1(dout * y)."""
    P, zero, wide = problem.width, problem.zero, padded_width(problem.width)
    size = tokens * wide
    copy_rows(zero, block.dy, 0, wide, gradients.out, first, head, tokens, P, 0)
    if problem.z.base == 0:
        return
    copy_rows(zero, work.z, 0, wide, problem.z, first, head, tokens, P, 0)
    copy_rows(zero, work.sums, 0, wide, gradients.y, first, head, tokens, P, 0)
    z = work.z
    if problem.activates:
        z = sweep.weighted
        apply_silu(zero, work.z, z, size)
    position = read(0, problem.first_turn, s) + first - read(0, problem.bounds, s)
    for k in range(0, size, lanes(zero)):
        turns, out = load(zero, problem.turns, position * wide + k), load(zero, block.dy, k)
        store(block.dy, k, out * turn(load(zero, z, k), turns, False))
        store(work.sums, k, turn(out * load(zero, work.sums, k), turns, True))
    if problem.activates:
        through_silu(zero, work.z, work.sums, work.inputs, size)
    store_rows(zero, gradients.z, first, head, work.sums, 0, wide, tokens, P)


@njit
def _recur_transposed(zero, block, work, sweep, mark, later, tokens, pending, wide, deep, ends):
    """Run the scan with h^T from `mark` on; dC gets (decayed h before the token)^T dy.

    Meanwhile what is read of as many tokens from `later` on is asked for.

    Return the factor that the state still lacks, and, where the sequence `ends` and its final state
    has a gradient, what flows to it over the last token. That token's own share passes no decay:
    with it, a strong one would be lost in rounding.
    """
    row, size, flow, segments = wide + 2 * deep, wide * deep, 0.0, read(0, block.segments, 0)
    clear(zero, block.dC, tokens * deep)
    for segment in range(segments):
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        scale_inputs(zero, block, work.inputs, begin, end, wide, row)
        old = mark_at(zero, sweep, mark + segment, size)
        state = mark_at(zero, sweep, mark + segment + 1, size)
        copy_row(zero, state, 0, old, 0, size)
        write(sweep.scales, mark + segment, pending)
        pending *= first_decay(block, begin)
        if ends and segment == segments - 1:
            flow = product(zero, old, sweep.G_transposed, size) * pending
        read_then_update(
            end - begin, cast(zero, pending), state, wide, deep, work.inputs, begin * wide, wide,
            block.mixed, begin * row + wide, row,
            block.dy, begin * wide, wide, block.dC, begin * deep, deep, work.lines, later + begin,
        )  # fmt: skip
        pending = read(0.0, block.decay, end - 1)
    return pending, flow


@njit
def _finish_dC(zero, block, sweep, tokens, at, wide, deep):
    """dC = decayed sums + s (x . dy) B; keep x . dy and C . (decayed sums); return sum x . dy."""
    row, all_direct, mixed = wide + 2 * deep, 0.0, block.mixed
    for t in range(tokens):
        direct_sums, flow_sums = splat(zero, 0.0), splat(zero, 0.0)
        for k in range(0, wide, lanes(zero)):
            direct_sums += load(zero, mixed, t * row + k) * load(zero, block.dy, t * wide + k)
        direct = cast(0.0, total(direct_sums))
        scale = splat(zero, read(0.0, block.decay, t))
        own = splat(zero, read(0.0, block.step, t) * direct)
        B_at, C_at = t * row + wide, t * row + wide + deep
        for k in range(0, deep, lanes(zero)):
            carried = scale * load(zero, block.dC, t * deep + k)
            flow_sums += load(zero, mixed, C_at + k) * carried
            store(block.dC, t * deep + k, carried + own * load(zero, mixed, B_at + k))
        write(sweep.direct, at + t, direct)
        write(sweep.ended, at + t, cast(0.0, total(flow_sums)))
        all_direct += direct
    return all_direct


@njit
def mark_at(zero, sweep, number, size):
    """Return the address of a mark."""
    return sweep.marks + number * size * VECTOR_BYTES // lanes(zero)


@njit
def product(zero, a, b, size):
    """Return the sum of the products of two states' elements."""
    sums = splat(zero, 0.0)
    for k in range(0, size, lanes(zero)):
        sums += load(zero, a, k) * load(zero, b, k)
    return cast(0.0, total(sums))


@njit
def add(base, at, value):
    """Add to one number."""
    write(base, at, read(value, base, at) + value)
