"""The rank-one recurrence, with a tile of the state in registers: all arithmetic of the CPU scan.

Shapes: R rows and L lanes of a state.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from user_model.ops.lanes import SECOND_CACHE, VECTOR_BYTES, Vector, emit_prefetch
from user_model.ops.lanes import lanes as lanes_of
from user_model.ops.vector_code import AVX512, TILE_ROWS, TILE_VECTORS, VectorCode

# Lines of memory that a tile asks for a token, for what is read later. Asked for all at once, they
# would wait for each other: a core has a few dozen lines under way at most. They go to the second
# cache: the first has no room for them beside the block at hand (a quarter slower).
ASKED = 3 if AVX512 else 1
_ENTRY_BYTES = 16
_LEAST_LANES = VECTOR_BYTES // 8  # of float64


class _Emitter(VectorCode):
    """Emits a tile: a loop over tokens with the tile's rows as its variables."""

    def asks(self, table: Any, first: Any) -> list[tuple[Any, Any]]:
        """Read (pointer to a byte, stride) of each line that the tile asks for, ASKED of them."""
        builder, integer = self.builder, first.type
        entries = builder.inttoptr(table, integer.as_pointer())
        found = []
        for entry in range(ASKED):
            start, stride = (
                builder.load(builder.gep(entries, [ir.Constant(integer, 2 * entry + part)]))
                for part in range(2)
            )
            place = builder.add(start, builder.mul(first, stride))
            found.append((builder.inttoptr(place, ir.IntType(8).as_pointer()), stride))
        return found

    def tile(
        self,
        steps: Any,
        scale: Any,
        arrays: list[tuple[Any, Any]],
        asks: list[tuple[Any, Any]],
        read_first: bool,
    ) -> None:
        """Emit the loop; `arrays` are (pointer, stride) of state, rows, lanes, read, out."""
        builder, integer = self.builder, steps.type
        numbers = [ir.Constant(integer, j) for j in range(TILE_ROWS)]
        (state, pitch), *moving = arrays
        places = [self.offset(state, number, pitch) for number in numbers]
        scales = self.splat(scale)
        initial = [builder.fmul(self.load(place), scales) for place in places]

        def turn(token: Any, held: list[Any]) -> list[Any]:
            for start, stride in asks:
                emit_prefetch(builder, self.offset(start, token, stride), SECOND_CACHE)
            rows, lanes, read, out = (self.offset(at, token, stride) for at, stride in moving)
            lane, sums, updated = self.load(lanes), self.load(out), []
            for number, old in zip(numbers, held, strict=True):
                weight = self.splat(builder.load(builder.gep(rows, [number])))
                coefficient = self.splat(builder.load(builder.gep(read, [number])))
                if read_first:
                    sums = self.multiply_add(coefficient, old, sums)
                new = self.multiply_add(weight, lane, old)
                if not read_first:
                    sums = self.multiply_add(coefficient, new, sums)
                updated.append(new)
            self.store(sums, out)
            return updated

        for place, value in zip(places, self.loop(steps, initial, turn), strict=True):
            self.store(value, place)


def _tile(read_first: bool, vectors: int, asking: bool) -> Any:
    """Make the tile that reads the state before (True) or after (False) a token enters it."""

    @intrinsic
    def tile(
        typing_context, steps, scale, state, state_at, pitch, rows, rows_at, rows_stride,
        lanes, lanes_at, lanes_stride, read, read_at, read_stride, out, out_at, out_stride,
        table, asked_from,
    ):  # fmt: skip
        given = (
            steps, scale, state, state_at, pitch, rows, rows_at, rows_stride, lanes, lanes_at,
            lanes_stride, read, read_at, read_stride, out, out_at, out_stride, table, asked_from,
        )  # fmt: skip

        def emit(context, builder, signature, arguments):
            emitter, arrays = _Emitter(builder, Vector(scale, vectors)), []
            for first in range(2, len(arguments) - 2, 3):
                base, at, stride = arguments[first : first + 3]
                arrays.append((emitter.pointer(base, at), stride))
            asks = emitter.asks(*arguments[-2:]) if asking else []
            emitter.tile(arguments[0], arguments[1], arrays, asks, read_first)
            return context.get_dummy_value()

        return types.void(*given), emit

    return tile


def _recurrence(read_first: bool, asking: bool) -> Any:
    """Make the recurrence over a whole state, tile by tile."""
    broad, narrow = _tile(read_first, TILE_VECTORS, asking), _tile(read_first, 1, asking)

    @njit
    def recurrence(
        steps, scale, state, height, width, rows, rows_at, rows_stride,
        lanes, lanes_at, lanes_stride, read, read_at, read_stride, out, out_at, out_stride,
        table, asked_from,
    ):  # fmt: skip
        """Run state += rows_t (x) lanes_t and out_t += read_t^T state, token by token.

        Args:
            steps: number of tokens, at least 1.
            scale: the state is multiplied by it first; its type is that of all elements.
            state: address of [height, width], in place; both are multiples of PADDING.
            rows: address; height elements a token, from element `rows_at` on, `rows_stride` apart
                (negative: backward).
            lanes, read, out: the same with width, height and width elements a token.
            table: address of `asked_lines` entries, int64 (address, stride in bytes); token t also
                asks for the line at address + (asked_from + t) * stride of each.
            asked_from: see `table`.
        """
        one = lanes_of(scale)
        both = TILE_VECTORS * one
        rest = width - width % both
        for lane in range(0, rest, both):
            for row in range(0, height, TILE_ROWS):
                broad(
                    steps, scale, state, row * width + lane, width, rows, rows_at + row,
                    rows_stride, lanes, lanes_at + lane, lanes_stride, read, read_at + row,
                    read_stride, out, out_at + lane, out_stride, table, asked_from,
                )  # fmt: skip
                table += ASKED * _ENTRY_BYTES
        for lane in range(rest, width, one):
            for row in range(0, height, TILE_ROWS):
                narrow(
                    steps, scale, state, row * width + lane, width, rows, rows_at + row,
                    rows_stride, lanes, lanes_at + lane, lanes_stride, read, read_at + row,
                    read_stride, out, out_at + lane, out_stride, table, asked_from,
                )  # fmt: skip
                table += ASKED * _ENTRY_BYTES

    return recurrence


# A token enters the state before it is read, or after; the last form asks for no lines.
update_then_read = _recurrence(read_first=False, asking=True)
read_then_update = _recurrence(read_first=True, asking=True)
read_then_update_alone = _recurrence(read_first=True, asking=False)


@njit
def asked_lines(height, width, one):
    """Return how many lines a recurrence asks for a token; `one`: lanes of a vector."""
    both = TILE_VECTORS * one
    tiles = width // both + width % both // one
    return ASKED * tiles * (height // TILE_ROWS)


def most_asked_lines(height: int, width: int) -> int:
    """Return as many lines as a recurrence over [height, width] or its transpose asks for."""
    return ASKED * height * width // (TILE_ROWS * _LEAST_LANES)
