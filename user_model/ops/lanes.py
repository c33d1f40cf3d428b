"""Vectors of one cache line for the CPU kernels, as a type of numba's.

Numba turns loops into vector code well, but it neither keeps a matrix in registers across a loop
nor sees that rows do not overlap. So the kernels say what they mean: `load(like, base, at)` is a
vector of 64 bytes (16 float32 or 8 float64), `+ - * /` work on vectors, `store` writes one. LLVM
splits or keeps them whole for the machine: AVX2, AVX-512 and NEON alike.

Memory is an address and a number of elements. It need not be aligned, and nothing checks bounds:
who calls a kernel keeps the memory alive and rows padded to whole vectors. (With numba's arrays the
same kernels took five times as long to compile, and counted references in the inner loops.)

Imported only where the CPU backend runs: numba takes half a second to import.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.errors import RequireLiteralValue
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

VECTOR_BYTES = 64
# Exponentials are long chains of dependent operations: several vectors at once hide the latency.
WIDE = 4
# Widths are padded to this many elements: whole vectors in float32 and in float64.
PADDING = 16
# What `emit_prefetch` asks for: LLVM's locality.
FIRST_CACHE, SECOND_CACHE = 3, 2
# Multiply and add may become one instruction; nothing else is rearranged.
CONTRACT = ("contract",)


class Vector(types.Type):
    """`count` elements: VECTOR_BYTES of them, or WIDE times as many."""

    def __init__(self, element: Any, times: int = 1) -> None:
        self.element = element
        self.count = times * VECTOR_BYTES * 8 // element.bitwidth
        super().__init__(name=f"Vector({element}, {self.count})")

    def of(self) -> ir.VectorType:
        """Return LLVM's type of it."""
        one = ir.FloatType() if self.element == types.float32 else ir.DoubleType()
        return ir.VectorType(one, self.count)


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.of())


def _operator(function: Callable[..., Any], instruction: str) -> None:
    """Let an operator work on two vectors of one type."""

    @infer_global(function)
    class Operands(AbstractTemplate):
        def generic(self, operands, keywords):
            if (
                len(operands) == 2
                and isinstance(operands[0], Vector)
                and operands[0] == operands[1]
            ):
                return signature(operands[0], *operands)
            return None

    @lower_builtin(function, Vector, Vector)
    def lower(context, builder, kinds, values):
        return getattr(builder, instruction)(*values, flags=CONTRACT)


_operator(operator.add, "fadd")
_operator(operator.iadd, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _place(builder: Any, base: Any, at: Any, one: Any, whole: Any) -> Any:
    """Emit the pointer to `whole` at element `at`, of type `one`, from the address `base`."""
    start = builder.inttoptr(base, one.as_pointer())
    return builder.bitcast(builder.gep(start, [at]), whole.as_pointer())


def _constant(builder_type: Any, value: float) -> ir.Constant:
    return ir.Constant(builder_type, [value] * builder_type.count)


def _splat(builder, kind, scalar):
    return emit_repeated(builder, scalar, kind.count)


def emit_repeated(builder: Any, scalar: Any, count: int) -> Any:
    """Emit the vector that repeats a number, of its type."""
    nothing = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, first, [0] * count)


def _shuffle(builder, value, order):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _load(times: int) -> Any:
    @intrinsic
    def load_vector(typing_context, like, base, at):
        kind = Vector(like, times)

        def emit(context, builder, signature, arguments):
            place = _place(builder, arguments[1], arguments[2], kind.of().element, kind.of())
            return builder.load(place, align=like.bitwidth // 8)

        return kind(like, base, at), emit

    return load_vector


# load(like, base, at) is the vector of elements of the type of `like` that begins at element `at`
# of the memory at address `base`; load_wide takes WIDE vectors as one.
load, load_wide = _load(1), _load(WIDE)


@intrinsic
def store(typing_context, base, at, value):
    """Write a vector from element `at` on."""

    def emit(context, builder, signature, arguments):
        place = _place(builder, arguments[0], arguments[1], value.of().element, value.of())
        builder.store(arguments[2], place, align=value.element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(base, at, value), emit


@intrinsic
def read(typing_context, like, base, at):
    """Return element `at` of the memory at address `base`, of the type of `like`."""
    kind = types.unliteral(like)

    def emit(context, builder, signature, arguments):
        one = context.get_value_type(kind)
        return builder.load(_place(builder, arguments[1], arguments[2], one, one))

    return kind(like, base, at), emit


@intrinsic
def write(typing_context, base, at, value):
    """Write one element, of the type of `value`."""
    kind = types.unliteral(value)

    def emit(context, builder, signature, arguments):
        one = context.get_value_type(kind)
        builder.store(arguments[2], _place(builder, arguments[0], arguments[1], one, one))
        return context.get_dummy_value()

    return types.void(base, at, kind), emit


@intrinsic
def splat(typing_context, like, scalar):
    """Return the vector, of the type of `like`, that repeats `scalar`."""
    kind = Vector(like)

    def emit(context, builder, signature, arguments):
        return _splat(builder, kind, context.cast(builder, arguments[1], scalar, like))

    return kind(like, scalar), emit


@intrinsic
def total(typing_context, value):
    """Return the sum of a vector's elements, added in pairs."""

    def emit(context, builder, signature, arguments):
        partial, count = arguments[0], value.count
        while count > 1:
            count //= 2
            low = _shuffle(builder, partial, list(range(count)))
            high = _shuffle(builder, partial, list(range(count, 2 * count)))
            partial = builder.fadd(low, high)
        return builder.extract_element(partial, ir.Constant(ir.IntType(32), 0))

    return value.element(value), emit


@intrinsic
def turn(typing_context, value, turns, back):
    """Turn the pairs of a vector by the (cosine, sine) pairs of another, or back if `back`."""

    def emit(context, builder, signature, arguments):
        pairs, angles, backward = arguments
        lanes = range(value.count)
        cosine = _shuffle(builder, angles, [k & ~1 for k in lanes])
        sine = _shuffle(builder, angles, [k | 1 for k in lanes])
        swapped = _shuffle(builder, pairs, [k ^ 1 for k in lanes])
        signs = [
            ir.Constant(value.of(), [sign if k % 2 else -sign for k in lanes])
            for sign in (1.0, -1.0)
        ]
        sign = builder.select(backward, signs[1], signs[0])
        crossed = builder.fmul(builder.fmul(swapped, sine, flags=CONTRACT), sign, flags=CONTRACT)
        return builder.fadd(builder.fmul(pairs, cosine, flags=CONTRACT), crossed, flags=CONTRACT)

    return value(value, turns, back), emit


def _exp(builder: Any, x: Any) -> Any:
    """Emit e^x for a vector, to 2 units in the last place; NaN stays NaN."""
    kind, single = x.type, x.type.element == ir.FloatType()
    mantissa, low, high = (23, -87.0, 88.0) if single else (52, -708.0, 708.0)
    degree = 7 if single else 13

    def constant(value):
        return _constant(kind, value)

    for bound, beyond in ((low, "<"), (high, ">")):
        outside = builder.fcmp_ordered(beyond, x, constant(bound))
        x = builder.select(outside, constant(bound), x)
    # Adding 1.5 * 2^mantissa rounds to an integer k and leaves k in the low bits.
    magic = constant(1.5 * 2.0**mantissa)
    shifted = builder.fadd(builder.fmul(x, constant(1.0 / math.log(2.0)), flags=CONTRACT), magic)
    k = builder.fsub(shifted, magic)
    ln2_high = 0.693145751953125
    r = builder.fsub(x, builder.fmul(k, constant(ln2_high), flags=CONTRACT), flags=CONTRACT)
    # log(2) - ln2_high to all digits: the difference of the float64 numbers has half of them.
    rest = constant(1.42860682030941723212e-6)
    r = builder.fsub(r, builder.fmul(k, rest, flags=CONTRACT), flags=CONTRACT)
    p = constant(1.0 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        p = builder.fmul(p, r, flags=CONTRACT)
        p = builder.fadd(p, constant(1.0 / math.factorial(power)), flags=CONTRACT)
    # p * 2^k, by adding k to the exponent's bits.
    integers = ir.VectorType(ir.IntType(32 if single else 64), kind.count)
    bits, low_bits = builder.bitcast(p, integers), builder.bitcast(shifted, integers)
    exponent = builder.shl(low_bits, ir.Constant(integers, [mantissa] * kind.count))
    power = builder.bitcast(builder.add(bits, exponent), kind)
    # The sum of bits may be a number where x is a NaN.
    return builder.select(builder.fcmp_unordered("uno", x, x), x, power)


@intrinsic
def exp(typing_context, value):
    """Return e^x of each element."""

    def emit(context, builder, signature, arguments):
        return _exp(builder, arguments[0])

    return value(value), emit


@intrinsic
def sigmoid(typing_context, value):
    """Return 1 / (1 + e^-x) of each element."""

    def emit(context, builder, signature, arguments):
        one = _constant(value.of(), 1.0)
        return builder.fdiv(one, builder.fadd(one, _exp(builder, builder.fneg(arguments[0]))))

    return value(value), emit


@intrinsic
def softplus(typing_context, value):
    """Return log(1 + e^x) of each element, to the last digits in both tails."""

    def emit(context, builder, signature, arguments):
        kind, x = value.of(), arguments[0]

        def constant(number):
            return _constant(kind, number)

        # w = e^-|x|; log(1 + w) = 2 atanh(r), r = w / (2 + w), at most 1/3: a series in r^2.
        positive = builder.fcmp_ordered(">", x, constant(0.0))
        w = _exp(builder, builder.select(positive, builder.fneg(x), x))
        r = builder.fdiv(w, builder.fadd(constant(2.0), w))
        square = builder.fmul(r, r)
        p = constant(1.0 / 33.0)
        for odd in range(31, 0, -2):
            p = builder.fmul(p, square, flags=CONTRACT)
            p = builder.fadd(p, constant(1.0 / odd), flags=CONTRACT)
        log = builder.fmul(builder.fmul(constant(2.0), r), p)
        return builder.select(positive, builder.fadd(log, x), log)

    return value(value), emit


@njit
def padded_width(width):
    """Return the row length that the kernels give to rows of `width` elements."""
    return (width + PADDING - 1) // PADDING * PADDING


@intrinsic
def lanes(typing_context, like):
    """Return how many elements of the type of `like` a vector holds."""

    def emit(context, builder, signature, arguments):
        return context.get_constant(types.intp, Vector(like).count)

    return types.intp(like), emit


@intrinsic
def wide_lanes(typing_context, like):
    """Return how many elements of the type of `like` a wide vector holds."""

    def emit(context, builder, signature, arguments):
        return context.get_constant(types.intp, Vector(like, WIDE).count)

    return types.intp(like), emit


@intrinsic
def cast(typing_context, like, value):
    """Return the number `value` in the type of `like`."""

    def emit(context, builder, signature, arguments):
        return context.cast(builder, arguments[1], value, like)

    return like(like, value), emit


_LINE = 64


def emit_prefetch(builder: Any, place: Any, cache: int, *, write: bool = False) -> None:
    """Emit the request for the line at a pointer to a byte, into the first or second cache."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    options = (1 if write else 0, cache, 1)
    builder.call(function, [place, *(ir.Constant(number, option) for option in options)])


@intrinsic
def prefetch(typing_context, like, base, at, write):
    """Ask for the cache line of an element, to read it soon or (write, a literal) to write it."""

    def emit(context, builder, signature, arguments):
        one = context.get_value_type(like)
        place = _place(builder, arguments[1], arguments[2], one, ir.IntType(8))
        emit_prefetch(builder, place, FIRST_CACHE, write=write.literal_value)
        return context.get_dummy_value()

    if not isinstance(write, types.Literal):
        raise RequireLiteralValue("write must be a literal")
    return types.void(like, base, at, write), emit


@intrinsic
def stream(typing_context, base, at, value):
    """Write a vector past the caches; its address must be a multiple of VECTOR_BYTES."""

    def emit(context, builder, signature, arguments):
        place = _place(builder, arguments[0], arguments[1], value.of().element, value.of())
        instruction = builder.store(arguments[2], place, align=VECTOR_BYTES)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(base, at, value), emit


@intrinsic
def finish_streams(typing_context):
    """Wait until what was streamed can be seen by other threads."""

    def emit(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit
