"""What the backward of the compiled scan reads and writes, and its memory for a sweep.

Shapes: T tokens, S sequences, H heads, P head width, N state, W padded columns of a row (x, B, C),
I work items, Q = BLOCK tokens.
"""

from typing import NamedTuple

from user_model.ops.convolution_cpu_kernels import TAPS
from user_model.ops.cpu_rows import BLOCK, Rows


class Gradients(NamedTuple):
    """What backward reads besides the problem, and what it writes: addresses, 0 where absent.

    Attributes:
        y: Rows [T, H, P], y before the product; out: Rows, the gradient of the result.
        final: [S, H, N, P], the gradient of the final states.
        x, B, C, z, dt: Rows that are written.
        initial: [S, H, N, P]; tails: [S, H, TAPS - 1, W].
        A, D, dt_bias: float64 [I]; taps: [I, TAPS, W]; bias: [I, W]; to be summed over items.
    """

    y: Rows
    out: Rows
    final: int
    x: Rows
    B: Rows
    C: Rows
    z: Rows
    dt: Rows
    initial: int
    tails: int
    A: int
    D: int
    dt_bias: int
    taps: int
    bias: int


class Sweep(NamedTuple):
    """A work item's memory for the backward, besides its Blocks and Work: addresses.

    Attributes:
        weighted: [Q, padded P], the gradient of y scaled for its segment.
        sums_x: [Q, padded P] and sums_n: [Q, padded N], what the recurrences give.
        grad: [Q + TAPS - 1, W], gradients of x, B, C, with the next block's first rows behind.
        G: [padded N, padded P] and G_transposed: the gradient of the state.
        marks: [segments + 1, padded P, padded N], h^T at the start of each segment of the stretch
            and at its end, to be multiplied by `scales`, float64. There may be as many segments as
            tokens; memory that is not needed is never touched.
        flows: float64 [Q + 1], what flows over the first decay of each segment of the block, and
            over its end: a product of two states, not a difference of sums.
        direct: float64, x . dy of each token of the stretch.
        ended: float64, what flows from earlier tokens into the output of each of them.
        back, begun, stepped, slope: float64 [Q]: the decay from each token to the end of its
            segment, what flows from it to later ones, the gradient of its step but for the decay,
            and the slope of softplus.
    """

    weighted: int
    sums_x: int
    sums_n: int
    grad: int
    G: int
    G_transposed: int
    marks: int
    scales: int
    flows: int
    direct: int
    ended: int
    back: int
    begun: int
    stepped: int
    slope: int
    slot_bytes: int


def sweep_sizes(wide: int, deep: int, longest: int) -> dict[str, int]:
    """Return the number of elements of each part of a Sweep; `longest` tokens of a stretch."""
    row, size = wide + 2 * deep, wide * deep
    rows = dict.fromkeys(("weighted", "sums_x"), BLOCK * wide)
    rows |= {"sums_n": BLOCK * deep, "grad": (BLOCK + TAPS - 1) * row}
    rows |= {"G": size, "G_transposed": size, "marks": (longest + 1) * size}
    steps = {"scales": longest + 1, "direct": longest, "ended": longest}
    return (
        rows
        | steps
        | dict.fromkeys(("back", "begun", "stepped", "slope"), BLOCK)
        | {"flows": BLOCK + 1}
    )
