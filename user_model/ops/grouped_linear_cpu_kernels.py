"""A linear map of its own for each head on a CPU, compiled. Memory is given by addresses.

A block of tokens of one head at a time: its rows are copied next to each other, multiplied, and
written past the caches. The backward makes both gradients from one reading of the block.

Shapes: T tokens, H heads, P inputs and M outputs of a head, U units of tokens.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from user_model.ops.cpu_rows import add_row, copy_rows, store_elements, store_rows
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import finish_streams, padded_width
from user_model.ops.small_products import add_product, set_product

# Tokens of a block: its rows and those of the result fit into the first cache.
BLOCK_TOKENS = 64


@kernel
def grouped_linear_forward(
    zero, x, weight, bias, out, inputs, outputs, T, H, P, M, first, last
):  # fmt: skip
    """Write out [H, T, M] for tokens first .. last - 1.

    x: Rows [T, H, P]; weight: [H, P, padded M], zeros in the padding; bias: [H, M], 0 where absent;
    inputs, outputs: a block of rows of P and of M, and a vector more of both.
    """
    wide = padded_width(M)
    for begin in range(first, last, BLOCK_TOKENS):
        tokens = min(BLOCK_TOKENS, last - begin)
        for h in range(H):
            copy_rows(zero, inputs, 0, P, x, begin, h, tokens, P, BLOCK_TOKENS)
            set_product(
                zero, tokens, wide, P, inputs, 0, P, 1, weight, h * P * wide, wide, outputs, 0, M
            )
            if bias != 0:
                add_row(zero, outputs, bias, h * M, tokens, M)
            store_elements(zero, out, (h * T + begin) * M, outputs, tokens * M)
    finish_streams()


@kernel
def grouped_linear_backward(
    zero, x, transposed, dout, dx, dweight, inputs, changes, results, H, P, M, first, last
):
    """Write dx for tokens first .. last - 1, and add to dweight [H, padded P, padded M].

    x, dout, dx: Rows [T, H, P], [T, H, M], [T, H, P]; transposed: [H, M, padded P], zeros in the
    padding; inputs, changes, results: a block of rows of P, padded M (zeros in the padding) and P,
    and a vector more of each.
    """
    wide_P, wide_M = padded_width(P), padded_width(M)
    for begin in range(first, last, BLOCK_TOKENS):
        tokens = min(BLOCK_TOKENS, last - begin)
        for h in range(H):
            copy_rows(zero, changes, 0, wide_M, dout, begin, h, tokens, M, BLOCK_TOKENS)
            set_product(
                zero, tokens, wide_P, M, changes, 0, wide_M, 1, transposed, h * M * wide_P,
                wide_P, results, 0, P,
            )  # fmt: skip
            store_rows(zero, dx, begin, h, results, 0, P, tokens, P)
            copy_rows(zero, inputs, 0, P, x, begin, h, tokens, P, BLOCK_TOKENS)
            add_product(
                zero, P, wide_M, tokens, inputs, 0, 1, P, changes, 0, wide_M, dweight,
                h * wide_P * wide_M, wide_M,
            )  # fmt: skip
    finish_streams()
