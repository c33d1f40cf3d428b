# mypy: disable-error-code="no-untyped-def"
"""Three phases for few very long sequences, which alone would not fill a GPU; our choice.

A long sequence is cut into work items of several tiles. 1. `group_states`: what each item adds to
the state, from a state of 0, all items at once. 2. `pass_states`: a short serial pass over the
items of a sequence, which leaves the state before each. 3. The kernels of the other modes, each
item with its own initial state. The backward is the same in reverse, with the gradients of states.

The letters are those of scan_triton_kernels.py.
"""

import triton
import triton.language as tl

from user_model.ops.scan_triton_kernels import (
    load_raw_steps,
    load_rows,
    log_decays,
    softplus,
)


@triton.jit
def group_states(
    KEY, VALUE, DT, BIAS, A, ITEMS, ADDED, KEPT,
    key_stride, value_stride, dt_stride, J,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, BLOCKS: tl.constexpr, ACC: tl.constexpr,
    REVERSE: tl.constexpr,
):  # fmt: skip
    """Write what each item adds to the state, ADDED [W, J, N, P], and its decay, KEPT [W, J].

    Forward, KEY is B and VALUE is x; in reverse they are C and dy, and the state is the gradient
    of the state before the item.
    """
    DOT: tl.constexpr = VALUE.dtype.element_ty
    item, block = (tl.program_id(0) // J).to(tl.int64), tl.program_id(0) % J
    head = block // BLOCKS
    begin, end = tl.load(ITEMS + item * 4), tl.load(ITEMS + item * 4 + 1)
    order_Q = tl.arange(0, Q)
    a = tl.load(A + head)
    state_NP = tl.zeros([N, P], dtype=ACC)
    log_item = tl.zeros([], dtype=tl.float64)
    n_tiles = (end - begin + Q - 1) // Q
    for walked in range(0, n_tiles):
        number = walked
        if REVERSE:
            number = n_tiles - 1 - walked
        first = begin + number * Q
        inside_Q = order_Q < end - first
        key_QN = load_rows(KEY, first * key_stride + head * N, key_stride, inside_Q, Q, N)
        value_QP = load_rows(VALUE, first * value_stride + block * P, value_stride, inside_Q, Q, P)
        step_Q = softplus(load_raw_steps(DT, BIAS, first, dt_stride, head, inside_Q, Q, ACC))
        step_Q = tl.where(inside_Q, step_Q, 0.0)
        log_Q, log_all = log_decays(step_Q, a)
        weight_Q = tl.exp(log_Q.to(ACC))
        if not REVERSE:
            weight_Q = tl.exp((log_all - log_Q).to(ACC)) * step_Q
        weighted_QP = (value_QP.to(ACC) * weight_Q[:, None]).to(DOT)
        state_NP = state_NP * tl.exp(log_all.to(ACC)) + tl.dot(
            tl.trans(key_QN), weighted_QP, input_precision="ieee", out_dtype=ACC
        )
        log_item += log_all
    row = item * J + block
    of_state_NP = tl.arange(0, N)[:, None] * P + tl.arange(0, P)[None, :]
    tl.store(ADDED + row * (N * P) + of_state_NP, state_NP)
    tl.store(KEPT + row, tl.exp(log_item.to(ACC)))


@triton.jit
def pass_states(
    STATES, KEPT, GROUPS, FIRST, LAST, J, STATE: tl.constexpr, ENTRIES: tl.constexpr,
    ACC: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Turn STATES [W, J, STATE] in place: what each item adds becomes the state it starts from.

    GROUPS [S', 3] names a sequence, its first item and the end of its items. The pass starts from
    the sequence's row of FIRST [S, J, STATE] (None is 0) and leaves its end in LAST, if given.
    A program takes ENTRIES of the STATE = N P entries, which do not depend on each other.
    """
    group, block = (tl.program_id(0) // J).to(tl.int64), tl.program_id(0) % J
    sequence = tl.load(GROUPS + group * 3)
    begin, end = tl.load(GROUPS + group * 3 + 1), tl.load(GROUPS + group * 3 + 2)
    of_state = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    of_sequence = (sequence * J + block) * STATE + of_state
    if FIRST is not None:
        state = tl.load(FIRST + of_sequence).to(ACC)
    else:
        state = tl.zeros([ENTRIES], dtype=ACC)
    for walked in range(0, end - begin):
        row = (begin + walked) * J + block
        if REVERSE:
            row = (end - 1 - walked) * J + block
        at_state = STATES + row * STATE + of_state
        added = tl.load(at_state)
        tl.store(at_state, state)
        state = state * tl.load(KEPT + row) + added
    if LAST is not None:
        tl.store(LAST + of_sequence, state)
