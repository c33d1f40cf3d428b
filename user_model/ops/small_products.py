"""Products of small matrices, with a tile of the result in registers.

A library's product packs its operands and is made for large ones; between the 32 columns of a head
and the 65 of its projection it reaches half of its speed.

Shapes: R rows and L lanes of a result, J terms of each sum.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from user_model.ops.lanes import Vector, lanes
from user_model.ops.vector_code import TILE_ROWS, TILE_VECTORS, VectorCode


class _Emitter(VectorCode):
    """Emits a tile: a loop over the terms with the tile's sums as its variables."""

    def tile(self, terms: Any, left: Any, right: Any, out: Any, vectors: int, adds: bool) -> None:
        """Emit the loop.

        Args:
            terms: J.
            left: (pointer, elements between rows, between terms) of [R, J].
            right: (pointer, elements between terms) of [J, L].
            out: (pointer, elements between rows) of [R, L].
            vectors: of a row.
            adds: whether the result is added to `out`.
        """
        builder, integer = self.builder, terms.type
        numbers = [ir.Constant(integer, row) for row in range(TILE_ROWS)]
        along = [ir.Constant(integer, v * self.kind.count) for v in range(vectors)]
        places = [
            builder.gep(self.offset(out[0], number, out[1]), [lane])
            for number in numbers
            for lane in along
        ]
        initial = [self.load(place) if adds else self.zero() for place in places]

        def turn(term: Any, sums: list[Any]) -> list[Any]:
            column, row = self.offset(left[0], term, left[2]), self.offset(right[0], term, right[1])
            operands = [self.load(builder.gep(row, [lane])) for lane in along]
            factors = [
                self.splat(builder.load(self.offset(column, number, left[1]))) for number in numbers
            ]
            return [
                self.multiply_add(factors[n // vectors], operands[n % vectors], old)
                for n, old in enumerate(sums)
            ]

        for place, value in zip(places, self.loop(terms, initial, turn), strict=True):
            self.store(value, place)


def _tile(vectors: int, adds: bool) -> Any:
    @intrinsic
    def tile(
        typing_context, zero, terms, left, left_at, left_row, left_term, right, right_at,
        right_term, out, out_at, out_row,
    ):  # fmt: skip
        given = (
            zero, terms, left, left_at, left_row, left_term, right, right_at, right_term, out,
            out_at, out_row,
        )  # fmt: skip

        def emit(context, builder, signature, arguments):
            emitter = _Emitter(builder, Vector(zero))
            _, terms, *places = arguments
            emitter.tile(
                terms,
                (emitter.pointer(*places[:2]), *places[2:4]),
                (emitter.pointer(*places[4:6]), places[6]),
                (emitter.pointer(*places[7:9]), places[9]),
                vectors,
                adds,
            )
            return context.get_dummy_value()

        return types.void(*given), emit

    return tile


def _product(adds: bool) -> Any:
    broad, narrow = _tile(TILE_VECTORS, adds), _tile(1, adds)

    @njit
    def product(
        zero, height, width, terms, left, left_at, left_row, left_term, right, right_at,
        right_term, out, out_at, out_row,
    ):  # fmt: skip
        """Make out[r, l] = sum over j of left[r, j] right[j, l], the sum in the order of j.

        Rows are made TILE_ROWS at a time and columns a vector at a time, so more of both may be
        read and written than are asked for: `out` and `left` must have room for it.

        Args:
            zero: 0 of the elements' type.
            height: rows of the result, R.
            width: columns of the result, a multiple of a vector's lanes.
            terms: J, at least 1.
            left: address of [R, J]; from element `left_at`, `left_row` between rows, `left_term`
                between terms.
            right: address of [J, width]; from element `right_at`, `right_term` between terms.
            out: address of [R, width]; from element `out_at`, `out_row` between rows.
        """
        one = lanes(zero)
        both = TILE_VECTORS * one
        # The last vectors of a row may pass its end: the first ones of the next are written later.
        whole = width - width % both
        for lane in range(width - one, whole - 1, -one):
            for row in range(0, height, TILE_ROWS):
                narrow(
                    zero, terms, left, left_at + row * left_row, left_row, left_term,
                    right, right_at + lane, right_term, out, out_at + row * out_row + lane, out_row,
                )  # fmt: skip
        for lane in range(whole - both, -1, -both):
            for row in range(0, height, TILE_ROWS):
                broad(
                    zero, terms, left, left_at + row * left_row, left_row, left_term,
                    right, right_at + lane, right_term, out, out_at + row * out_row + lane, out_row,
                )  # fmt: skip

    return product


# Writes the product. Rows of `out` may stand closer than whole vectors: what passes the end of a
# row is overwritten by the next.
set_product = _product(False)
# Adds the product to `out`, whose rows must be whole vectors apart.
add_product = _product(True)
