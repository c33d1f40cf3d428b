"""Code of LLVM's for loops that hold a tile of a matrix in registers, and how large a tile may be.

Numba will not keep a matrix in registers across a loop, so such loops are emitted by hand: the
scan's recurrence (`recurrence.py`) and the products of small matrices (`small_products.py`).
"""

# mypy: disable-error-code="no-untyped-call, misc"

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features

from user_model.ops.lanes import CONTRACT, Vector, _splat

AVX512 = get_host_cpu_features().get("avx512f", False)
# Rows that a tile keeps in registers: with 16 registers of 32 bytes (AVX2) 4 rows leave room for
# the operands, with 32 of 64 bytes (AVX-512) 8 do.
TILE_ROWS = 8 if AVX512 else 4
# Vectors of a tile's row, where the width allows. A coefficient is loaded once for both: with one,
# AVX-512 waits for loads. AVX2 has no registers for it (a vector of ours is two of its own).
TILE_VECTORS = 2 if AVX512 else 1


class VectorCode:
    """Emits what such loops are made of, for vectors of one type."""

    def __init__(self, builder: Any, kind: Vector) -> None:
        self.builder, self.kind = builder, kind
        self.element_bytes = kind.element.bitwidth // 8

    def pointer(self, base: Any, at: Any) -> Any:
        """Return the pointer to element `at` of the memory at address `base`."""
        start = self.builder.inttoptr(base, self.kind.of().element.as_pointer())
        return self.builder.gep(start, [at])

    def offset(self, pointer: Any, count: Any, step: Any) -> Any:
        """Return the pointer `count` times `step` elements further on."""
        return self.builder.gep(pointer, [self.builder.mul(count, step)])

    def place(self, pointer: Any) -> Any:
        """Return a pointer to an element as one to the vector that begins there."""
        return self.builder.bitcast(pointer, self.kind.of().as_pointer())

    def load(self, pointer: Any) -> Any:
        """Return the vector that begins at an element."""
        return self.builder.load(self.place(pointer), align=self.element_bytes)

    def store(self, value: Any, pointer: Any) -> None:
        """Write a vector from an element on."""
        self.builder.store(value, self.place(pointer), align=self.element_bytes)

    def zero(self) -> Any:
        """Return the vector of zeros."""
        return ir.Constant(self.kind.of(), None)

    def splat(self, scalar: Any) -> Any:
        """Return the vector that repeats `scalar`."""
        return _splat(self.builder, self.kind, scalar)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c."""
        product = self.builder.fmul(a, b, flags=CONTRACT)
        return self.builder.fadd(product, c, flags=CONTRACT)

    def loop(
        self, count: Any, initial: list[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Emit a loop that holds vectors from turn to turn; return them as they are in the end.

        Args:
            count: of turns, at least 1.
            initial: the vectors before the first turn.
            body: emits a turn, from its number and the vectors; returns the vectors after it.
        """
        builder, before = self.builder, self.builder.block
        turns, after = builder.append_basic_block("turns"), builder.append_basic_block("done")
        builder.branch(turns)
        builder.position_at_end(turns)
        number = builder.phi(count.type)
        number.add_incoming(ir.Constant(count.type, 0), before)
        held = [builder.phi(self.kind.of()) for _ in initial]
        for phi, value in zip(held, initial, strict=True):
            phi.add_incoming(value, before)
        updated = body(number, held)
        following = builder.add(number, ir.Constant(count.type, 1))
        number.add_incoming(following, turns)
        for phi, value in zip(held, updated, strict=True):
            phi.add_incoming(value, turns)
        builder.cbranch(builder.icmp_signed("<", following, count), turns, after)
        builder.position_at_end(after)
        return updated
