"""The compiled scan on a CPU: what it reads, and a block of tokens on its way through.

The plain recurrence, not its chunked matrix form: a state of N x P stays in the core's cache, and
a token costs 2 N P multiply-adds forward and 6 N P backward, whatever the length. Convolution and
SiLU before the scan, RoPE and the product after it run on the same block of tokens, so none of
what lies between the projections is written to memory.

A token's decay would cost a third pass over the state. Instead the inputs of a segment are scaled
by the inverse of the decay since the segment's first token, and the outputs by the decay itself;
a segment ends before that factor passes e^16, so a strong decay makes short segments, not
infinities. The gradient of a decay is summed along the paths that cross it: what flows over the
end of the block, plus what ends in the block later, minus what begins in it later; the paths of a
token to itself cross nothing and are kept out of these sums.

A work item is a unit of whole sequences and a head; units do not depend on the number of threads,
so neither do the sums. Rows of a block are padded with zeros to whole vectors.

Shapes: T tokens, S sequences, U units, H heads, P head width, N state, W padded columns of a row
(x, B, C), Q = BLOCK tokens.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import math
from typing import Any, NamedTuple

from numba import njit

from user_model.ops.convolution_cpu_kernels import TAPS, apply_silu, convolve
from user_model.ops.cpu_rows import BLOCK, Rows, clear, copy_row, copy_rows, note_lines
from user_model.ops.lanes import (
    exp,
    lanes,
    load,
    load_wide,
    padded_width,
    read,
    softplus,
    splat,
    store,
    wide_lanes,
    write,
)  # fmt: skip
from user_model.ops.recurrence import most_asked_lines

SEGMENT_DECAY = 16.0
# Inputs are asked for while the block before theirs is computed.
AHEAD = BLOCK


class Problem(NamedTuple):
    """What forward and backward read. Addresses; 0 where something is absent.

    Attributes:
        zero: 0 of the elements' type.
        heads, width, state: H, P, N.
        x, B, C, z: Rows of K = P, N, N, P; x, B and C stand before the convolution if there is one.
        dt: Rows of K = 1.
        A, D, dt_bias: float64 [H].
        bounds: int64 [S + 1], cu_seqlens.
        units: int64 [U + 1], the first sequence of each unit, and S.
        turns: [rows, padded P], cosine and sine of each pair; first_turn: int64 [S], the row of
            each sequence's first token.
        taps: [H, TAPS, W] and bias: [H, W], the convolution.
        tails: [S, H, TAPS - 1, W], what stood before each sequence.
        initial: [S, H, N, P].
        activates: whether z goes through SiLU first.
    """

    zero: Any
    heads: int
    width: int
    state: int
    x: Rows
    B: Rows
    C: Rows
    z: Rows
    dt: Rows
    A: int
    D: int
    dt_bias: int
    bounds: int
    units: int
    turns: int
    first_turn: int
    taps: int
    bias: int
    tails: int
    initial: int
    activates: bool


class Stretches(NamedTuple):
    """What the backward takes of a sequence at a time, from the last stretch to the first.

    Attributes:
        tokens: how many they are, a multiple of BLOCK.
        states: address of [T // tokens, H, N, P], the state before every stretch but a sequence's
            first; 0: none is kept.
    """

    tokens: int
    states: int


class Block(NamedTuple):
    """A slot of memory for what is known of one block of tokens, as addresses.

    Attributes:
        raw: [TAPS - 1 + Q, W], the rows before the convolution, after the three before them.
        pre: [Q, W], before SiLU.
        mixed: [Q, W], x, B and C as the scan reads them.
        dy: [Q, padded P], the gradient of y. dC: [Q, padded N].
        value, step, log_decay, decay, weight: float64 [Q]: dt with its bias, its softplus, the log
            of its decay, the decay since the first token of the segment, and step / decay.
        starts: int64 [Q + 1], the first token of each segment, then the number of tokens.
        segments: int64 [1], their number.
        slot_bytes: how far the next slot is.
    """

    raw: int
    pre: int
    mixed: int
    dy: int
    dC: int
    value: int
    step: int
    log_decay: int
    decay: int
    weight: int
    starts: int
    segments: int
    slot_bytes: int


class Work(NamedTuple):
    """A thread's memory for the block at hand, as addresses.

    Attributes:
        inputs: [Q, padded P], x scaled for its segment.
        sums: [Q, padded P], what the recurrence gives.
        z: [Q, padded P], the item stream.
        state: [padded N, padded P].
        lines: int64 pairs, the memory that recurrences ask for meanwhile (`recurrence`).
    """

    inputs: int
    sums: int
    z: int
    state: int
    lines: int
    slot_bytes: int


def block_sizes(wide: int, deep: int, *, convolves: bool, backward: bool) -> dict[str, int]:
    """Return the number of elements of each part of a Block."""
    row = wide + 2 * deep
    sizes = dict.fromkeys(("raw", "pre", "dy", "dC"), 0) | {"mixed": BLOCK * row}
    if convolves:
        sizes |= {"raw": (TAPS - 1 + BLOCK) * row, "pre": BLOCK * row}
    if backward:
        sizes |= {"dy": BLOCK * wide, "dC": BLOCK * deep}
    steps = dict.fromkeys(("value", "step", "log_decay", "decay", "weight"), BLOCK)
    return sizes | steps | {"starts": BLOCK + 1, "segments": 1}


def work_sizes(wide: int, deep: int) -> dict[str, int]:
    """Return the number of elements of each part of a Work."""
    rows = dict.fromkeys(("inputs", "sums", "z"), BLOCK * wide)
    return rows | {"state": wide * deep, "lines": 2 * most_asked_lines(wide, deep)}


@njit
def state_before(problem, stretches, first, head):
    """Return the element of `stretches.states` at which the state before token `first` begins.

    Two such tokens are a stretch apart or more, in one sequence or in two: each has its own place.
    """
    size = problem.state * problem.width
    return ((first // stretches.tokens - 1) * problem.heads + head) * size


@njit
def slot_of(block, number):
    """Return the Block of another slot."""
    moved = number * block.slot_bytes
    return Block(
        block.raw + moved, block.pre + moved, block.mixed + moved, block.dy + moved,
        block.dC + moved, block.value + moved, block.step + moved, block.log_decay + moved,
        block.decay + moved, block.weight + moved, block.starts + moved, block.segments + moved,
        block.slot_bytes,
    )  # fmt: skip


@njit
def note_inputs(problem, lines, room, head):
    """Begin a table of lines to ask for with a head's inputs; return how many it has."""
    zero, P, N = problem.zero, problem.width, problem.state
    noted = note_lines(zero, lines, 0, room, problem.x, head, P)
    noted = note_lines(zero, lines, noted, room, problem.B, head, N)
    noted = note_lines(zero, lines, noted, room, problem.C, head, N)
    return note_lines(zero, lines, noted, room, problem.z, head, P)


@njit
def load_block(problem, block, s, first, tokens, head, last_alone):
    """Read a block of a sequence: x, B and C, convolved if there are taps, and its steps.

    With `last_alone` the last token is a segment of its own.
    """
    P, N, zero = problem.width, problem.state, problem.zero
    wide, deep = padded_width(P), padded_width(N)
    row = wide + 2 * deep
    convolves = problem.taps != 0
    into = block.raw if convolves else block.mixed
    at = (TAPS - 1) * row if convolves else 0
    copy_rows(zero, into, at, row, problem.x, first, head, tokens, P, 0)
    copy_rows(zero, into, at + wide, row, problem.B, first, head, tokens, N, 0)
    copy_rows(zero, into, at + wide + deep, row, problem.C, first, head, tokens, N, 0)
    if convolves:
        _load_rows_before(problem, block, s, first, head)
        taps_at, bias_at = head * TAPS * row, head * row
        convolve(
            zero, block.raw, block.pre, problem.taps, taps_at, problem.bias, bias_at, tokens, row
        )
        apply_silu(zero, block.pre, block.mixed, tokens * row)
    _fill_steps(problem, block, first, tokens, head, last_alone)


@njit
def _load_rows_before(problem, block, s, first, head):
    """Put the TAPS - 1 rows before token `first` where the convolution looks for them."""
    P, N, zero = problem.width, problem.state, problem.zero
    wide, deep = padded_width(P), padded_width(N)
    row, before = wide + 2 * deep, TAPS - 1
    if first > read(0, problem.bounds, s):  # blocks are longer than the taps
        copy_rows(zero, block.raw, 0, row, problem.x, first - before, head, before, P)
        copy_rows(zero, block.raw, wide, row, problem.B, first - before, head, before, N)
        copy_rows(zero, block.raw, wide + deep, row, problem.C, first - before, head, before, N)
    elif problem.tails != 0:
        at = (s * problem.heads + head) * before * row
        copy_row(zero, block.raw, 0, problem.tails, at, before * row)
    else:
        clear(zero, block.raw, before * row)


@njit
def _fill_steps(problem, block, first, tokens, head, last_alone):
    """Fill in steps, decays and segments of a block."""
    dt, real = problem.dt, 0.0
    bias, A = read(real, problem.dt_bias, head), read(real, problem.A, head)
    at = first * dt.token + head * dt.head
    for t in range(tokens):
        write(block.value, t, read(problem.zero, dt.base, at + t * dt.token) + bias)
    for t in range(0, tokens, wide_lanes(real)):
        step = softplus(load_wide(real, block.value, t))
        store(block.step, t, step)
    segments, since = 1, 0.0
    write(block.starts, 0, 0)
    write(block.decay, 0, 0.0)
    write(block.log_decay, 0, read(real, block.step, 0) * A)
    for t in range(1, tokens):
        log_decay = read(real, block.step, t) * A
        write(block.log_decay, t, log_decay)
        since += log_decay
        # Written so that a NaN ends the segment.
        if not since >= -SEGMENT_DECAY or (last_alone and t == tokens - 1):
            write(block.starts, segments, t)
            segments, since = segments + 1, 0.0
        write(block.decay, t, since)
    write(block.starts, segments, tokens)
    write(block.segments, 0, segments)
    for t in range(0, tokens, wide_lanes(real)):
        decay = exp(load_wide(real, block.decay, t))
        store(block.decay, t, decay)
        store(block.weight, t, load_wide(real, block.step, t) / decay)


@njit
def first_decay(block, begin):
    """Return the decay of a segment's first token."""
    return math.exp(read(0.0, block.log_decay, begin))


@njit
def scale_inputs(zero, block, inputs, begin, end, wide, row):
    """inputs = weight * x for the tokens of a segment."""
    for t in range(begin, end):
        weight = splat(zero, read(0.0, block.weight, t))
        for k in range(0, wide, lanes(zero)):
            store(inputs, t * wide + k, weight * load(zero, block.mixed, t * row + k))


@njit
def load_state(zero, state, source, at, N, P, wide, deep):
    """Read [N, P] into rows of `wide`; an absent source is zeros."""
    clear(zero, state, deep * wide)
    if source != 0:
        for n in range(N):
            for p in range(P):
                write(state, n * wide + p, read(zero, source, at + n * P + p))


@njit
def store_state(target, at, state, N, P, wide, scale):
    """Write scale * state as [N, P]; `scale` has the elements' type."""
    for n in range(N):
        for p in range(P):
            write(target, at + n * P + p, scale * read(scale, state, n * wide + p))
