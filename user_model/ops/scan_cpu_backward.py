"""The compiled scan on a CPU, backward; `scan_cpu_block` tells how it works.

Two sweeps over a sequence. The first goes forward with the transposed state h^T and gives dC (and
dz); it marks the state at the start of every segment. The second goes backward with the gradient G
of the state, once as [N, P] for dx and once as [P, N] for dB. What the first knows of the last
blocks stays in their slots; of earlier ones dy and dC wait in the memory of the results, and the
rest is computed again, so that memory does not grow with the length.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q tokens of a block.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from numba import njit

from user_model.ops.convolution_cpu_kernels import (
    TAPS,
    apply_silu,
    tail_gradients,
    through_silu,
    unconvolve,
)  # fmt: skip
from user_model.ops.cpu_rows import (
    BLOCK,
    clear,
    copy_row,
    copy_rows,
    keep_rows,
    note_lines,
    note_nothing,
    store_rows,
)  # fmt: skip
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import (
    VECTOR_BYTES,
    cast,
    finish_streams,
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
from user_model.ops.recurrence import asked_lines, read_then_update
from user_model.ops.scan_cpu_block import (
    AHEAD,
    first_decay,
    load_block,
    load_state,
    note_inputs,
    scale_inputs,
    slot_of,
    store_state,
)  # fmt: skip

# How much of the next sequence is asked for in the second sweep of one: more would have left the
# caches again before it is read.
NEXT_TOKENS = 2048


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
            marks, flow = _sweep_forward(problem, gradients, block, slots, work, sweep, s, item)
            later = s + 1
            if later == end:  # the unit's first sequence follows, in the next head
                later = first
                _note_inputs(problem, gradients, work, (item + 1) % H)
            later = read(0, problem.bounds, later) - read(0, problem.bounds, s)
            _sweep_back(problem, gradients, block, slots, work, sweep, s, item, marks, flow, later)
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


@njit
def _add(base, at, value):
    write(base, at, read(value, base, at) + value)


@njit
def _sweep_forward(problem, gradients, block, slots, work, sweep, s, item):
    """Fill in dC, dz, dy, direct, ended and the marks of one sequence.

    Return the number of segments, and what flows over the last token to the final state.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    begin, end = read(0, problem.bounds, s), read(0, problem.bounds, s + 1)
    at = (s * H + head) * N * P
    _load_transposed(zero, sweep.marks, problem.initial, at, N, P, wide, deep)
    _load_transposed(zero, sweep.G_transposed, gradients.final, at, N, P, wide, deep)
    pending, mark, flow = 1.0, 0, 0.0
    for first in range(begin, end, BLOCK):
        tokens = min(BLOCK, end - first)
        slot = slot_of(block, (first - begin) // BLOCK % slots)
        ends = gradients.final != 0 and first + BLOCK >= end
        load_block(problem, slot, s, first, tokens, head, ends)
        _load_output_gradient(problem, gradients, slot, work, sweep, s, first, tokens, head)
        pending, flow = _recur_transposed(
            zero, slot, work, sweep, mark, first + AHEAD, tokens, pending, wide, deep, ends
        )
        mark += read(0, slot.segments, 0)
        _add(gradients.D, item, _finish_dC(zero, slot, sweep, tokens, first - begin, wide, deep))
        if first + BLOCK * slots < end:  # the slot will be another block's
            keep_rows(zero, gradients.x, first, head, slot.dy, wide, tokens, P)
            keep_rows(zero, gradients.C, first, head, slot.dC, deep, tokens, N)
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
        old = _mark(zero, sweep, mark + segment, size)
        state = _mark(zero, sweep, mark + segment + 1, size)
        copy_row(zero, state, 0, old, 0, size)
        write(sweep.scales, mark + segment, pending)
        pending *= first_decay(block, begin)
        if ends and segment == segments - 1:
            flow = _product(zero, old, sweep.G_transposed, size) * pending
        read_then_update(
            end - begin, cast(zero, pending), state, wide, deep, work.inputs, begin * wide, wide,
            block.mixed, begin * row + wide, row,
            block.dy, begin * wide, wide, block.dC, begin * deep, deep, work.lines, later + begin,
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
def _sweep_back(problem, gradients, block, slots, work, sweep, s, item, mark, flow, later):
    """Fill in dx, dB, ddt and what the convolution makes of them, for one sequence.

    `mark` is the number of its segments, `flow` what flows over its last token to its final state.
    Meanwhile what the next first sweep reads is asked for, `later` tokens after these.
    """
    H, P, N, zero = problem.heads, problem.width, problem.state, problem.zero
    wide, deep, head = padded_width(P), padded_width(N), item % H
    begin, end, row = read(0, problem.bounds, s), read(0, problem.bounds, s + 1), wide + 2 * deep
    at = (s * H + head) * N * P
    load_state(zero, sweep.G, gradients.final, at, N, P, wide, deep)
    clear(zero, sweep.grad, (BLOCK + TAPS - 1) * row)
    pending, blocks = 1.0, (end - begin + BLOCK - 1) // BLOCK
    for number in range(blocks - 1, -1, -1):
        first, slot = begin + number * BLOCK, slot_of(block, number % slots)
        tokens, ends = min(BLOCK, end - first), gradients.final != 0 and number == blocks - 1
        if number + slots < blocks:
            load_block(problem, slot, s, first, tokens, head, ends)
            copy_rows(zero, slot.dy, 0, wide, gradients.x, first, head, tokens, P, 0)
            copy_rows(zero, slot.dC, 0, deep, gradients.C, first, head, tokens, N, 0)
        segments = read(0, slot.segments, 0)
        write(sweep.flows, segments, flow)
        mark -= segments
        kept = work.kept if number > 0 and number - 1 + slots < blocks else 0
        lines = work.lines if first - begin < NEXT_TOKENS else 0
        pending = _recur_back(
            zero, slot, kept, first - BLOCK, lines, first + later, sweep, mark, tokens, pending,
            wide, deep,
        )  # fmt: skip
        flow = read(0.0, sweep.flows, 0)
        skip = splat(zero, read(0.0, problem.D, head))
        _finish_dx_dB(zero, slot, sweep, tokens, first - begin, skip, wide, deep)
        if ends:  # `flow` was what flows to the end from before the last token
            write(sweep.begun, tokens - 1, 0.0)
        _finish_dt(problem, gradients, slot, sweep, first, first - begin, item)
        _store_gradients(problem, gradients, slot, sweep, first, tokens, item)
    if gradients.initial != 0:
        store_state(gradients.initial, at, sweep.G, N, P, wide, cast(zero, pending))
    if gradients.tails != 0:
        tails_at = (s * H + head) * (TAPS - 1) * row
        tail_gradients(
            zero, sweep.grad, problem.taps, head * TAPS * row, gradients.tails, tails_at, row
        )


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
def _product(zero, a, b, size):
    """Return the sum of the products of two states' elements."""
    sums = splat(zero, 0.0)
    for k in range(0, size, lanes(zero)):
        sums += load(zero, a, k) * load(zero, b, k)
    return cast(0.0, total(sums))


@njit
def _recur_back(
    zero, block, kept, earlier, lines, later, sweep, mark, tokens, pending, wide, deep
):  # fmt: skip
    """Run the gradient of the state back; sums_x gets G^T B and sums_n G x, before own parts.

    `mark` is that of the block's first segment. Meanwhile as many tokens are asked for: `kept` ones
    from `earlier` on, and of `lines` from `later` on; 0: none.
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
        read_then_update(
            count, scale, sweep.G, deep, wide, mixed, C, -row,
            sweep.weighted, last * wide, -wide, mixed, B, -row, sweep.sums_x, last * wide, -wide,
            kept, earlier + begin,
        )  # fmt: skip
        read_then_update(
            count, scale, sweep.G_transposed, wide, deep, sweep.weighted, last * wide, -wide,
            mixed, C, -row, mixed, x, -row, sweep.sums_n, last * deep, -deep,
            lines, later + begin,
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
    _add(gradients.dt_bias, item, bias_sum)
    _add(gradients.A, item, A_sum)
