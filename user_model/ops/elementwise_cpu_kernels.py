"""Gated norm, product with RoPE(z) and SwiGLU on a CPU, compiled. Memory is given by addresses.

Shapes: T tokens, H heads, P head width, F hidden width, G = T*H rows.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import math

from numba import njit

from user_model.ops.cpu_rows import clear, copy_row
from user_model.ops.kernel_cache import kernel
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
    turn,
    wide_lanes,
)  # fmt: skip


@njit
def _row(source, t, h):
    return t * source.token + h * source.head


@kernel
def swiglu_forward(zero, gate_up, out, memory, F, first, last):
    """out = silu(gate) * up for tokens first .. last - 1; Rows [T, 1, 2F] and [T, 1, F]."""
    step = wide_lanes(zero)
    whole = F - F % step
    for t in range(first, last):
        at, into = t * gate_up.token, t * out.token
        for k in range(0, whole, step):
            gate, up = (
                load_wide(zero, gate_up.base, at + k),
                load_wide(zero, gate_up.base, at + F + k),
            )
            store(out.base, into + k, gate * sigmoid(gate) * up)
        if whole < F:
            copy_row(zero, memory, 0, gate_up.base, at + whole, F - whole)
            copy_row(zero, memory, step, gate_up.base, at + F + whole, F - whole)
            gate, up = load_wide(zero, memory, 0), load_wide(zero, memory, step)
            store(memory, 0, gate * sigmoid(gate) * up)
            copy_row(zero, out.base, into + whole, memory, 0, F - whole)


@kernel
def swiglu_backward(zero, gate_up, dout, din, memory, F, first, last):
    """Write the gradient of gate_up; all are Rows of one head."""
    step = wide_lanes(zero)
    whole = F - F % step
    for t in range(first, last):
        at, from_, into = t * gate_up.token, t * dout.token, t * din.token
        for k in range(0, whole, step):
            gate, up = (
                load_wide(zero, gate_up.base, at + k),
                load_wide(zero, gate_up.base, at + F + k),
            )
            change, share = load_wide(zero, dout.base, from_ + k), sigmoid(gate)
            slope = share + gate * (share - share * share)
            store(din.base, into + k, change * up * slope)
            store(din.base, into + F + k, change * gate * share)
        if whole < F:
            rest = F - whole
            copy_row(zero, memory, 0, gate_up.base, at + whole, rest)
            copy_row(zero, memory, step, gate_up.base, at + F + whole, rest)
            copy_row(zero, memory, 2 * step, dout.base, from_ + whole, rest)
            gate, up = load_wide(zero, memory, 0), load_wide(zero, memory, step)
            change, share = load_wide(zero, memory, 2 * step), sigmoid(gate)
            slope = share + gate * (share - share * share)
            store(memory, 0, change * up * slope)
            store(memory, step, change * gate * share)
            copy_row(zero, din.base, into + whole, memory, 0, rest)
            copy_row(zero, din.base, into + F + whole, memory, step, rest)


@kernel
def gated_norm_forward(zero, y, gate, weight, out, memory, H, P, eps, first, last):
    """out = u / rms(u) * weight, u = y * silu(gate), for tokens first .. last - 1.

    y, gate, out: Rows [T, H, P]; weight: [H, padded P]; memory: 3 padded rows and a wide vector.
    """
    wide = padded_width(P)
    clear(zero, memory, 3 * wide)
    for t in range(first, last):
        for h in range(H):
            copy_row(zero, memory, 0, y.base, _row(y, t, h), P)
            copy_row(zero, memory, wide, gate.base, _row(gate, t, h), P)
            squares = splat(zero, 0.0)
            for k in range(0, wide, lanes(zero)):
                value = load(zero, memory, wide + k)
                u = load(zero, memory, k) * value * sigmoid(value)
                squares += u * u
                store(memory, k, u)
            scale = splat(zero, 1.0 / math.sqrt(cast(0.0, total(squares)) / P + eps))
            for k in range(0, wide, lanes(zero)):
                result = load(zero, memory, k) * scale * load(zero, weight, h * wide + k)
                store(memory, 2 * wide + k, result)
            copy_row(zero, out.base, _row(out, t, h), memory, 2 * wide, P)


@kernel
def gated_norm_backward(
    zero, y, gate, weight, dout, dy, dgate, dweight, memory, H, P, eps, first, last
):
    """Write dy and dgate, add to dweight [H, padded P]; memory: 6 padded rows, a wide vector.

    The results have rows of their own: a NaN in their padding would reach the next row's sums.
    """
    wide = padded_width(P)
    clear(zero, memory, 6 * wide)
    for t in range(first, last):
        for h in range(H):
            copy_row(zero, memory, 0, y.base, _row(y, t, h), P)
            copy_row(zero, memory, wide, gate.base, _row(gate, t, h), P)
            copy_row(zero, memory, 2 * wide, dout.base, _row(dout, t, h), P)
            squares, products = splat(zero, 0.0), splat(zero, 0.0)
            for k in range(0, wide, lanes(zero)):
                value = load(zero, memory, wide + k)
                u = load(zero, memory, k) * value * sigmoid(value)
                change = load(zero, memory, 2 * wide + k)
                squares += u * u
                products += u * change * load(zero, weight, h * wide + k)
                store(memory, 3 * wide + k, u)
            inverse = 1.0 / math.sqrt(cast(0.0, total(squares)) / P + eps)
            back = inverse * inverse * inverse * cast(0.0, total(products)) / P
            scale, backs = splat(zero, inverse), splat(zero, back)
            for k in range(0, wide, lanes(zero)):
                u, change = load(zero, memory, 3 * wide + k), load(zero, memory, 2 * wide + k)
                at = h * wide + k
                store(dweight, at, load(zero, dweight, at) + change * u * scale)
                du = change * load(zero, weight, at) * scale - u * backs
                value = load(zero, memory, wide + k)
                share = sigmoid(value)
                slope = share + value * (share - share * share)
                store(memory, 5 * wide + k, du * load(zero, memory, k) * slope)
                store(memory, 4 * wide + k, du * value * share)
            copy_row(zero, dy.base, _row(dy, t, h), memory, 4 * wide, P)
            copy_row(zero, dgate.base, _row(dgate, t, h), memory, 5 * wide, P)


@kernel
def rope_product_forward(zero, y, z, turns, position, out, memory, H, P, first, last):
    """out = y * RoPE(z); turns: [rows, padded P], position: int64 [T]; memory: 2 padded rows."""
    wide = padded_width(P)
    for t in range(first, last):
        turns_at = read(0, position, t) * wide
        for h in range(H):
            copy_row(zero, memory, 0, y.base, _row(y, t, h), P)
            copy_row(zero, memory, wide, z.base, _row(z, t, h), P)
            for k in range(0, wide, lanes(zero)):
                turned = turn(load(zero, memory, wide + k), load(zero, turns, turns_at + k), False)
                store(memory, k, load(zero, memory, k) * turned)
            copy_row(zero, out.base, _row(out, t, h), memory, 0, P)


@kernel
def rope_product_backward(zero, y, z, turns, position, dout, dy, dz, memory, H, P, first, last):
    """Write dy = dout * RoPE(z) and dz = RoPE^-1(dout * y); memory: 3 padded rows."""
    wide = padded_width(P)
    for t in range(first, last):
        turns_at = read(0, position, t) * wide
        for h in range(H):
            copy_row(zero, memory, 0, y.base, _row(y, t, h), P)
            copy_row(zero, memory, wide, z.base, _row(z, t, h), P)
            copy_row(zero, memory, 2 * wide, dout.base, _row(dout, t, h), P)
            for k in range(0, wide, lanes(zero)):
                angle, change = load(zero, turns, turns_at + k), load(zero, memory, 2 * wide + k)
                value = load(zero, memory, k)
                store(memory, k, change * turn(load(zero, memory, wide + k), angle, False))
                store(memory, wide + k, turn(change * value, angle, True))
            copy_row(zero, dy.base, _row(dy, t, h), memory, 0, P)
            copy_row(zero, dz.base, _row(dz, t, h), memory, wide, P)
