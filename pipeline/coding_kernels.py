"""The table of `coding`, compiled: hashes lead to places, strings are compared byte by byte.

Legend: P places of the table, a power of two.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from __future__ import annotations

import numpy as np

from user_model.ops.kernel_cache import kernel

_HASH_BITS = np.uint64(32)
_NUMBER = np.uint64((1 << 32) - 1)
_ONE = np.uint64(1)
_AHEAD = 256


@kernel
def _are_equal(first, first_at, second, second_at, size):
    for k in range(size):  # noqa: SIM110 (numba knows no generators)
        if first[first_at + k] != second[second_at + k]:
            return False
    return True


@kernel
def _touch(hashes, shift, places, starts, held):
    """Read what looking these strings up will read, one kind of memory after another.

    Each of the loops waits for the memory of all strings at once; looking up one string after
    another would wait three times for each.
    """
    at = np.empty(len(hashes), dtype=np.int64)
    for i in range(len(hashes)):
        at[i] = places[hashes[i] >> np.uint64(shift)] & _NUMBER
    for i in range(len(hashes)):
        at[i] = starts[max(at[i] - 1, 0)]
    seen = 0
    for i in range(len(hashes)):
        if at[i] < len(held):
            seen += held[at[i]]
    return seen


@kernel
def number(hashes, ends, given, shift, places, starts, held, count, codes):
    """Write the number of each string to codes, int32 [n]; returns how many there are now.

    Args:
        hashes: uint64 [n], of 32 bits; hash >> shift is where a string's place is looked for.
        ends, given: int64 [n + 1], uint8: the strings' bytes, and where each begins and ends.
        places: uint64 [P], has room.
        starts, held: the same of the strings that have numbers, with room for all of these.
        count: how many have numbers.
    """
    last = np.uint64(len(places) - 1)
    for i in range(len(hashes)):
        if i % _AHEAD == 0:
            _touch(hashes[i : i + _AHEAD], shift, places, starts, held)
        at, size = hashes[i] >> np.uint64(shift), ends[i + 1] - ends[i]
        while True:
            place = places[at]
            if place == 0:
                codes[i] = count
                for k in range(size):
                    held[starts[count] + k] = given[ends[i] + k]
                starts[count + 1] = starts[count] + size
                count += 1
                places[at] = (hashes[i] << _HASH_BITS) | np.uint64(count)
                break
            if place >> _HASH_BITS == hashes[i]:
                code = np.int64(place & _NUMBER) - 1
                if starts[code + 1] - starts[code] == size and _are_equal(
                    held, starts[code], given, ends[i], size
                ):
                    codes[i] = code
                    break
            at = (at + _ONE) & last
    return count


@kernel
def put_again(before, shift, places):
    """Put what stands in a table to its place in a larger one."""
    last = np.uint64(len(places) - 1)
    for place in before:
        if place != 0:
            at = (place >> _HASH_BITS) >> np.uint64(shift)
            while places[at] != 0:
                at = (at + _ONE) & last
            places[at] = place
