"""Running sums on a CPU, compiled.

Shapes: T packed tokens, d columns.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from user_model.ops.kernel_cache import kernel


@kernel
def sum_on(x_Td, at_T, sums_Td):
    """sums[t] = x[t], and the sums before it where t is not the first of its sequence."""
    T, d = x_Td.shape
    for t in range(T):
        if at_T[t] == 0:
            for k in range(d):
                sums_Td[t, k] = x_Td[t, k]
        else:
            for k in range(d):
                sums_Td[t, k] = sums_Td[t - 1, k] + x_Td[t, k]


@kernel
def sum_back(x_Td, at_T, sums_Td):
    """sums[t] = x[t], and the sums after it where t is not the last of its sequence."""
    T, d = x_Td.shape
    for t in range(T - 1, -1, -1):
        if t + 1 == T or at_T[t + 1] == 0:
            for k in range(d):
                sums_Td[t, k] = x_Td[t, k]
        else:
            for k in range(d):
                sums_Td[t, k] = sums_Td[t + 1, k] + x_Td[t, k]
