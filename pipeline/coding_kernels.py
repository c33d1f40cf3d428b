"""The table of `coding`, compiled: hashes lead to places, strings are compared byte by byte.

A place holds the beginning of its string, since a table of millions is in no cache: looking up a
string waits for memory once, and again only where it is longer than that.

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
_WITHIN = 15  # bytes of a string that stand in its place; the sixteenth is its length
_LONGEST = 255  # that the sixteenth byte can tell
_HALF = 8  # bytes of a word
_BYTE_BITS = np.uint64(8)


@kernel
def _are_equal(first, first_at, second, second_at, size):
    for k in range(size):  # noqa: SIM110 (numba knows no generators)
        if first[first_at + k] != second[second_at + k]:
            return False
    return True


@kernel
def _touch(hashes, shift, places):
    """Read the places of these strings: the loop waits for the memory of all at once."""
    seen = np.uint64(0)
    for i in range(len(hashes)):
        seen += places[hashes[i] >> np.uint64(shift), 0]
    return seen


@kernel
def _word(given, at, size):
    """Up to eight bytes as one number, the first one lowest."""
    word = np.uint64(0)
    for k in range(size):
        word |= np.uint64(given[at + k]) << (_BYTE_BITS * np.uint64(k))
    return word


@kernel
def number(hashes, ends, given, shift, places, starts, held, count, codes):
    """Write the number of each string to codes, int32 [n]; returns how many there are now.

    Args:
        hashes: uint64 [n], of 32 bits; hash >> shift is where a string's place is looked for.
        ends, given: int64 [n + 1], uint8: the strings' bytes, and where each begins and ends.
        places: uint64 [P, 3], has room: a hash and, below it, a number + 1 (0: nothing is there);
            the string's first eight bytes; its next seven and its length.
        starts, held: the same of the strings that have numbers, with room for all of these.
        count: how many have numbers.
    """
    last = np.uint64(len(places) - 1)
    for i in range(len(hashes)):
        if i % _AHEAD == 0:
            _touch(hashes[i : i + _AHEAD], shift, places)
        at, size = hashes[i] >> np.uint64(shift), ends[i + 1] - ends[i]
        first = _word(given, ends[i], min(size, _HALF))
        second = _word(given, ends[i] + _HALF, min(max(size - _HALF, 0), _WITHIN - _HALF))
        second |= np.uint64(min(size, _LONGEST)) << (_BYTE_BITS * np.uint64(_HALF - 1))
        while True:
            place = places[at, 0]
            if place == 0:
                codes[i] = count
                for k in range(size):
                    held[starts[count] + k] = given[ends[i] + k]
                starts[count + 1] = starts[count] + size
                count += 1
                places[at, 0] = (hashes[i] << _HASH_BITS) | np.uint64(count)
                places[at, 1] = first
                places[at, 2] = second
                break
            if (
                place >> _HASH_BITS == hashes[i]
                and places[at, 1] == first
                and places[at, 2] == second
            ):
                code = np.int64(place & _NUMBER) - 1
                if size <= _WITHIN or (
                    starts[code + 1] - starts[code] == size
                    and _are_equal(held, starts[code], given, ends[i], size)
                ):
                    codes[i] = code
                    break
            at = (at + _ONE) & last
    return count


@kernel
def put_again(before, shift, places):
    """Put what stands in a table, uint64 [P, 3], to its place in a larger one."""
    last = np.uint64(len(places) - 1)
    for k in range(len(before)):
        if before[k, 0] != 0:
            at = (before[k, 0] >> _HASH_BITS) >> np.uint64(shift)
            while places[at, 0] != 0:
                at = (at + _ONE) & last
            places[at] = before[k]
