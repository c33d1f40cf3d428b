"""Dropout by tokens' keys on a CPU, compiled. Memory is given by addresses.

Shapes: T tokens, d width.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from user_model.ops.cpu_rows import copy_row
from user_model.ops.dropout import GOLDEN, MIX_1, MIX_2
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import Vector, emit_repeated, lanes, load, read, store

_WORD = ir.IntType(64)
_UNIT = ir.IntType(16)
_UNITS_OF_A_WORD = 4


def _mix(builder: Any, x: Any) -> Any:
    """Emit `dropout.mix` of a vector of words."""

    def times(count: int) -> Any:
        return ir.Constant(x.type, [count] * x.type.count)

    for bits, multiplier in ((30, MIX_1), (27, MIX_2)):
        x = builder.mul(builder.xor(x, builder.lshr(x, times(bits))), times(multiplier))
    return builder.xor(x, builder.lshr(x, times(31)))


@intrinsic
def kept(typing_context, like, key, at, least, scale):
    """Return a vector: `scale` where the units from `at` on are kept, 0 where they are dropped.

    Args:
        like: an element; its type is that of the vector.
        key: int64, of the token.
        at: int64, a multiple of 4.
        least: int64, `dropout.least_kept`.
        scale: an element.
    """
    vector = Vector(like)

    def emit(context, builder, signature, arguments):
        _, key, at, least, scale = arguments
        words = vector.count // _UNITS_OF_A_WORD
        number = builder.udiv(at, _WORD(_UNITS_OF_A_WORD))
        first = builder.add(key, builder.mul(number, _WORD(GOLDEN)))
        kind = ir.VectorType(_WORD, words)
        steps = ir.Constant(kind, [(word + 1) * GOLDEN % (1 << 64) for word in range(words)])
        mixed = _mix(builder, builder.add(emit_repeated(builder, first, words), steps))
        units = builder.bitcast(mixed, ir.VectorType(_UNIT, vector.count))
        limit = emit_repeated(builder, builder.trunc(least, _UNIT), vector.count)
        zeros = ir.Constant(vector.of(), None)
        keeps = builder.icmp_signed(">=", units, limit)
        return builder.select(keeps, emit_repeated(builder, scale, vector.count), zeros)

    return vector(like, key, at, least, like), emit


@kernel
def token_dropout(zero, x, keys, out, memory, d, least, scale, first, last):
    """out = x * kept for tokens first .. last - 1.

    x, out: Rows [T, 1, d]; keys: int64 [T]; memory: a vector.
    """
    whole = d - d % lanes(zero)
    for t in range(first, last):
        key, at, into = read(0, keys, t), t * x.token, t * out.token
        for k in range(0, whole, lanes(zero)):
            units = kept(zero, key, k, least, scale)
            store(out.base, into + k, load(zero, x.base, at + k) * units)
        if whole < d:
            copy_row(zero, memory, 0, x.base, at + whole, d - whole)
            store(memory, 0, load(zero, memory, 0) * kept(zero, key, whole, least, scale))
            copy_row(zero, out.base, into + whole, memory, 0, d - whole)
