"""The compiled scan on a CPU, backward; `scan_cpu_block` tells how it works.

Two sweeps over a stretch of a sequence, the last stretch first. `scan_cpu_sweep_forward` goes
forward with the transposed state h^T, from the state that the scan kept before the stretch, and
gives dC (and dz); it marks the state at the start of every segment. `scan_cpu_sweep_back` goes
backward with the gradient G of the state, once as [N, P] for dx and once as [P, N] for dB, and
leaves it to the stretch before. What the first knows of a block stays in the block's slot for the
second: neither memory nor a token's time grows with a sequence's length.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.convolution_cpu_kernels import TAPS, tail_gradients
from user_model.ops.cpu_rows import BLOCK, clear, note_lines, note_nothing
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import cast, finish_streams, lanes, padded_width, read
from user_model.ops.recurrence import asked_lines
from user_model.ops.scan_cpu_block import load_state, note_inputs, store_state
from user_model.ops.scan_cpu_sweep_back import sweep_back
from user_model.ops.scan_cpu_sweep_forward import load_transposed, sweep_forward


@kernel
def backward(problem, gradients, stretches, block, work, sweep, first_item, last_item):
    """Differentiate the work items first_item .. last_item - 1.

    Args:
        problem: the inputs.
        gradients: what to read and to write; sums over items begin at zero.
        stretches: what is taken at a time, and the states before it.
        block, work, sweep: memory, zeros; as many Blocks as a stretch has.
        first_item, last_item: items; item i is unit i // H, head i % H.
    """
    H = problem.heads
    for item in range(first_item, last_item):
        unit = item // H
        first, end = read(0, problem.units, unit), read(0, problem.units, unit + 1)
        _note_inputs(problem, gradients, work, item % H)
        for s in range(first, end):
            # The unit's last sequence is followed by its first, in the next head.
            following = s + 1 if s + 1 < end else first
            _sequence(problem, gradients, stretches, block, work, sweep, s, item, following)
    finish_streams()


@njit
def _sequence(problem, gradients, stretches, block, work, sweep, s, item, following):
    """Differentiate one sequence; `following` is the one whose inputs are read next."""
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    begin, at = read(0, problem.bounds, s), (s * H + head) * N * P
    load_state(zero, sweep.G, gradients.final, at, N, P, wide, deep)
    load_transposed(zero, sweep.G_transposed, gradients.final, at, N, P, wide, deep)
    clear(zero, sweep.grad, (BLOCK + TAPS - 1) * (wide + 2 * deep))
    pending, flow = 1.0, 0.0
    for first in range(_last_stretch(problem, stretches, s), begin - 1, -stretches.tokens):
        marks, over_end = sweep_forward(
            problem, gradients, stretches, block, work, sweep, s, first, item
        )
        later = first - stretches.tokens
        if first == begin:
            later = _last_stretch(problem, stretches, following)
            if following <= s:
                _note_inputs(problem, gradients, work, (item + 1) % H)
        pending, flow = sweep_back(
            problem, gradients, stretches, block, work, sweep, s, first, item, marks, pending,
            flow + over_end, later - first,
        )  # fmt: skip
    if gradients.initial != 0:
        store_state(gradients.initial, at, sweep.G, N, P, wide, cast(zero, pending))
    if gradients.tails != 0:
        row = wide + 2 * deep
        tails_at = (s * H + head) * (TAPS - 1) * row
        tail_gradients(
            zero, sweep.grad, problem.taps, head * TAPS * row, gradients.tails, tails_at, row
        )


@njit
def _last_stretch(problem, stretches, s):
    """Return the first token of a sequence's last stretch."""
    begin, end = read(0, problem.bounds, s), read(0, problem.bounds, s + 1)
    return begin + max(end - begin - 1, 0) // stretches.tokens * stretches.tokens


@njit
def _note_inputs(problem, gradients, work, head):
    """Note what the first sweep reads of a head, to be asked for before it is read."""
    zero, P, N = problem.zero, problem.width, problem.state
    room = asked_lines(padded_width(P), padded_width(N), lanes(zero))
    noted = note_inputs(problem, work.lines, room, head)
    noted = note_lines(zero, work.lines, noted, room, gradients.out, head, P)
    noted = note_lines(zero, work.lines, noted, room, gradients.y, head, P)
    note_nothing(work.lines, noted, room)
