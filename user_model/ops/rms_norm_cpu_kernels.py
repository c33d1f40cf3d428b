"""Root mean square norm on a CPU, compiled. Memory is given by addresses.

Shapes: T tokens, d width.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import math

from user_model.ops.cpu_rows import clear, copy_row
from user_model.ops.kernel_cache import kernel
from user_model.ops.lanes import cast, lanes, load, padded_width, splat, store, total


@kernel
def rms_norm_forward(zero, x, weight, out, memory, d, eps, first, last):
    """out = x / rms(x) * weight for tokens first .. last - 1.

    x, out: Rows [T, 1, d]; weight: [padded d]; memory: 2 padded rows.
    """
    wide = padded_width(d)
    clear(zero, memory, 2 * wide)
    for t in range(first, last):
        copy_row(zero, memory, 0, x.base, t * x.token, d)
        squares = splat(zero, 0.0)
        for k in range(0, wide, lanes(zero)):
            value = load(zero, memory, k)
            squares += value * value
        scale = splat(zero, 1.0 / math.sqrt(cast(0.0, total(squares)) / d + eps))
        for k in range(0, wide, lanes(zero)):
            store(memory, wide + k, load(zero, memory, k) * scale * load(zero, weight, k))
        copy_row(zero, out.base, t * out.token, memory, wide, d)


@kernel
def rms_norm_backward(zero, x, weight, dout, dx, dweight, memory, d, eps, first, last):
    """Write dx, add to dweight [padded d]; memory: 3 padded rows."""
    wide = padded_width(d)
    clear(zero, memory, 3 * wide)
    for t in range(first, last):
        copy_row(zero, memory, 0, x.base, t * x.token, d)
        copy_row(zero, memory, wide, dout.base, t * dout.token, d)
        squares, products = splat(zero, 0.0), splat(zero, 0.0)
        for k in range(0, wide, lanes(zero)):
            value = load(zero, memory, k)
            squares += value * value
            products += value * load(zero, memory, wide + k) * load(zero, weight, k)
        inverse = 1.0 / math.sqrt(cast(0.0, total(squares)) / d + eps)
        back = inverse * inverse * inverse * cast(0.0, total(products)) / d
        scale, backs = splat(zero, inverse), splat(zero, back)
        for k in range(0, wide, lanes(zero)):
            value, change = load(zero, memory, k), load(zero, memory, wide + k)
            store(dweight, k, load(zero, dweight, k) + change * value * scale)
            store(memory, 2 * wide + k, change * load(zero, weight, k) * scale - value * backs)
        copy_row(zero, dx.base, t * dx.token, memory, 2 * wide, d)
