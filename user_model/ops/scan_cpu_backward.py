"""The compiled scan on a CPU, backward; `scan_cpu_block` tells how it works.

Two sweeps over a sequence. The first (`scan_cpu_sweep_forward`) goes forward with the transposed
state h^T and gives dC (and dz); it marks the state at the start of every segment. The second
(`scan_cpu_sweep_back`) goes backward with the gradient G of the state, once as [N, P] for dx and
once as [P, N] for dB. What the first knows of the last blocks stays in their slots; of earlier ones
dy and dC wait in the memory of the results, and the rest is computed again, so that memory does not
grow with the length.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.cpu_rows import note_lines, note_nothing
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import finish_streams, lanes, padded_width, read
from user_model.ops.recurrence import asked_lines
from user_model.ops.scan_cpu_block import note_inputs
from user_model.ops.scan_cpu_sweep_back import sweep_back
from user_model.ops.scan_cpu_sweep_forward import sweep_forward


@kernel
def backward(problem, gradients, block, slots, work, sweep, first_item, last_item):
    """Differentiate the work items first_item .. last_item - 1.

    Args:
        problem: the inputs.
        gradients: what to read and to write; sums over items begin at zero.
        block, work, sweep: memory, zeros; `slots` Blocks.
        slots: how many blocks of a sequence, its last ones, are remembered from sweep to sweep.
        first_item, last_item: items; item i is unit i // H, head i % H.
    """
    H = problem.heads
    for item in range(first_item, last_item):
        unit = item // H
        first, end = read(0, problem.units, unit), read(0, problem.units, unit + 1)
        _note_inputs(problem, gradients, work, item % H)
        _note_kept(problem, gradients, work, item % H)
        for s in range(first, end):
            marks, flow = sweep_forward(problem, gradients, block, slots, work, sweep, s, item)
            later = s + 1
            if later == end:  # the unit's first sequence follows, in the next head
                later = first
                _note_inputs(problem, gradients, work, (item + 1) % H)
            later = read(0, problem.bounds, later) - read(0, problem.bounds, s)
            sweep_back(problem, gradients, block, slots, work, sweep, s, item, marks, flow, later)
    finish_streams()


@njit
def _note_inputs(problem, gradients, work, head):
    """Note what the first sweep reads of a head, to be asked for before it is read."""
    zero, P, N = problem.zero, problem.width, problem.state
    room = asked_lines(padded_width(P), padded_width(N), lanes(zero))
    noted = note_inputs(problem, work.lines, room, head)
    noted = note_lines(zero, work.lines, noted, room, gradients.out, head, P)
    noted = note_lines(zero, work.lines, noted, room, gradients.y, head, P)
    note_nothing(work.lines, noted, room)


@njit
def _note_kept(problem, gradients, work, head):
    """Note what the second sweep reads of blocks that are not remembered."""
    zero, P, N = problem.zero, problem.width, problem.state
    room = asked_lines(padded_width(N), padded_width(P), lanes(zero))
    noted = note_lines(zero, work.kept, 0, room, gradients.x, head, P)
    noted = note_lines(zero, work.kept, noted, room, gradients.C, head, N)
    noted = note_lines(zero, work.kept, noted, room, problem.x, head, P)
    noted = note_lines(zero, work.kept, noted, room, problem.B, head, N)
    noted = note_lines(zero, work.kept, noted, room, problem.C, head, N)
    note_nothing(work.kept, noted, room)
