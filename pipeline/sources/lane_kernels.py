"""Running sums for eight people at once: what numba does not make vectors of itself.

A running sum waits for each addition, so one person's takes as long as eight in a vector. Every
lane does what a plain loop would, in its order and rounding: no multiplication and addition become
one instruction, and results are equal to the last bit.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
RUN = 16  # clusters that one step takes
_DOUBLE, _INT64 = ir.DoubleType(), ir.IntType(64)
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_ROW_BYTES = 8 * LANES


@intrinsic
def add_run(typing_context, before, after, masses, shares, odds, places):
    """Write after = before + the weights of RUN clusters, one after another, in each lane.

    A weight is (rest * first + moved * last) * front * back. All arguments are addresses or pairs
    of them: before and after of float64 [L]; masses (first, last) of float64 [RUN]; shares (rest,
    moved) of float64 [L]; odds (front, back) of tables [pairs, L]; places, of int64 [RUN], the row
    of each cluster in either.
    """

    def emit(context, builder, signature, arguments):
        def pair(number: int) -> list[Any]:
            return [builder.extract_value(arguments[number], k) for k in range(2)]

        masses, shares, odds, places = map(pair, (2, 3, 4, 5))
        rest, moved = (_load(builder, share, _VECTOR) for share in shares)
        total = _load(builder, arguments[0], _VECTOR)
        for k in range(RUN):
            first, last = (_everywhere(builder, _element(builder, m, _DOUBLE, k)) for m in masses)
            weight = builder.fadd(builder.fmul(rest, first), builder.fmul(moved, last))
            for table, place in zip(odds, places, strict=True):
                row = builder.mul(_element(builder, place, _INT64, k), _INT64(_ROW_BYTES))
                weight = builder.fmul(weight, _load(builder, builder.add(table, row), _VECTOR))
            total = builder.fadd(total, weight)
        at = builder.inttoptr(arguments[1], _VECTOR.as_pointer())
        builder.store(total, at, align=8)
        return context.get_dummy_value()

    address, both = types.intp, types.UniTuple(types.intp, 2)
    return types.void(address, address, both, both, both, both), emit


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=8)


def _element(builder: Any, base: Any, kind: Any, number: int) -> Any:
    return _load(builder, builder.add(base, _INT64(8 * number)), kind)


def _everywhere(builder: Any, scalar: Any) -> Any:
    nothing, zero = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(builder.insert_element(nothing, scalar, zero), nothing, order)
