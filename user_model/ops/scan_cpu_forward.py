"""The compiled scan on a CPU, forward; `scan_cpu_block` tells how it works.

Shapes: T tokens, S sequences, H heads, P head width, N state, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.convolution_cpu_kernels import apply_silu
from user_model.ops.cpu_rows import BLOCK, clear, copy_rows, note_nothing, store_rows
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import (
    cast,
    finish_streams,
    lanes,
    load,
    padded_width,
    read,
    splat,
    store,
    turn,
)  # fmt: skip
from user_model.ops.recurrence import asked_lines, update_then_read
from user_model.ops.scan_cpu_block import (
    AHEAD,
    first_decay,
    load_block,
    load_state,
    note_inputs,
    scale_inputs,
    state_before,
    store_state,
)  # fmt: skip


@kernel
def forward(problem, block, work, y_out, kept, stretches, final, first_item, last_item):
    """Scan the work items first_item .. last_item - 1.

    Args:
        problem: the inputs.
        block, work: memory, zeros; one slot.
        y_out: Rows [T, H, P], y * RoPE(z), or y without z.
        kept: Rows [T, H, P], y before the product; base 0: not kept.
        stretches: where to keep the states before them.
        final: address of [S, H, N, P]; 0: not asked for.
        first_item, last_item: items; item i is unit i // H, head i % H.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep = padded_width(P), padded_width(N)
    room = asked_lines(deep, wide, lanes(zero))
    for item in range(first_item, last_item):
        unit, head = item // H, item % H
        note_nothing(work.lines, note_inputs(problem, work.lines, room, head), room)
        for s in range(read(0, problem.units, unit), read(0, problem.units, unit + 1)):
            at = (s * H + head) * N * P
            load_state(zero, work.state, problem.initial, at, N, P, wide, deep)
            begin, end, pending = read(0, problem.bounds, s), read(0, problem.bounds, s + 1), 1.0
            for first in range(begin, end, BLOCK):
                tokens = min(BLOCK, end - first)
                if first > begin and (first - begin) % stretches.tokens == 0:
                    _keep_state(problem, stretches, work, first, head, pending)
                load_block(problem, block, s, first, tokens, head, False)
                pending = _recur(zero, block, work, first + AHEAD, tokens, pending, wide, deep)
                _finish(problem, block, work, y_out, kept, s, first, tokens, head)
            if final != 0:
                store_state(final, at, work.state, N, P, wide, cast(zero, pending))
    finish_streams()


@njit
def _keep_state(problem, stretches, work, first, head, pending):
    """Keep the state before a stretch, if the backward will want it."""
    if stretches.states != 0:
        P, N, scale = problem.width, problem.state, cast(problem.zero, pending)
        at = state_before(problem, stretches, first, head)
        store_state(stretches.states, at, work.state, N, P, padded_width(P), scale)


@njit
def _recur(zero, block, work, later, tokens, pending, wide, deep):
    """Run the scan over a block; sums gets h^T C. Return the factor that the state still lacks.

    Meanwhile the inputs of as many tokens from `later` on are asked for.
    """
    row, mixed = wide + 2 * deep, block.mixed
    clear(zero, work.sums, tokens * wide)
    for segment in range(read(0, block.segments, 0)):
        begin, end = read(0, block.starts, segment), read(0, block.starts, segment + 1)
        scale_inputs(zero, block, work.inputs, begin, end, wide, row)
        update_then_read(
            end - begin, cast(zero, pending * first_decay(block, begin)), work.state, deep, wide,
            mixed, begin * row + wide, row, work.inputs, begin * wide, wide,
            mixed, begin * row + wide + deep, row, work.sums, begin * wide, wide,
            work.lines, later + begin,
        )  # fmt: skip
        pending = read(0.0, block.decay, end - 1)
    return pending


@njit
def _finish(problem, block, work, y_out, kept, s, first, tokens, head):
    """Write y = decay * sums + D x, and its product with the turned z."""
    P, zero, wide = problem.width, problem.zero, padded_width(problem.width)
    row = wide + 2 * padded_width(problem.state)
    skip = splat(zero, read(0.0, problem.D, head))
    for t in range(tokens):
        scale = splat(zero, read(0.0, block.decay, t))
        for k in range(0, wide, lanes(zero)):
            total, x = load(zero, work.sums, t * wide + k), load(zero, block.mixed, t * row + k)
            store(work.sums, t * wide + k, scale * total + skip * x)
    if kept.base != 0:
        store_rows(zero, kept, first, head, work.sums, 0, wide, tokens, P)
    if problem.z.base != 0:
        copy_rows(zero, work.z, 0, wide, problem.z, first, head, tokens, P, 0)
        if problem.activates:
            apply_silu(zero, work.z, work.z, tokens * wide)
        position = read(0, problem.first_turn, s) + first - read(0, problem.bounds, s)
        for k in range(0, tokens * wide, lanes(zero)):
            turns = load(zero, problem.turns, position * wide + k)
            turned = turn(load(zero, work.z, k), turns, False)
            store(work.sums, k, load(zero, work.sums, k) * turned)
    store_rows(zero, y_out, first, head, work.sums, 0, wide, tokens, P)
