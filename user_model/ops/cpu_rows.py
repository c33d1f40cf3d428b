"""Rows of packed tensors for the CPU kernels: where they lie, and how they are copied.

Shapes: T tokens, H heads, K elements of a row.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from typing import NamedTuple

from numba import njit

from user_model.ops.lanes import (
    VECTOR_BYTES,
    lanes,
    load,
    prefetch,
    read,
    splat,
    store,
    stream,
    write,
)

# Tokens that a kernel takes at a time: their rows fit into a core's first cache.
BLOCK = 32
# Loops over wide vectors may pass the end of a buffer by less than this many elements.
SLACK = 64


class Rows(NamedTuple):
    """A tensor [T, H, K] with unit last stride: element base[token * t + head * h + k].

    `base` is an address, 0 where the tensor is absent; `token` and `head` count elements.
    """

    base: int
    token: int
    head: int


@njit
def copy_row(zero, target, into, source, begin, width):
    """Copy `width` elements: whole vectors, then what is left."""
    whole = width - width % lanes(zero)
    for k in range(0, whole, lanes(zero)):
        store(target, into + k, load(zero, source, begin + k))
    for k in range(whole, width):
        write(target, into + k, read(zero, source, begin + k))


@njit
def copy_rows(zero, target, at, stride, source, first, head, tokens, width, ahead=BLOCK):
    """Copy rows of one head into rows `stride` apart; ask for those `ahead` tokens later.

    With `ahead` 0 nothing is asked for: it has been already.
    """
    begin = first * source.token + head * source.head
    for t in range(tokens):
        row = begin + t * source.token
        if ahead != 0:
            for k in range(0, width, lanes(zero)):
                prefetch(zero, source.base, row + ahead * source.token + k, False)
        copy_row(zero, target, at + t * stride, source.base, row, width)


@njit
def note_lines(zero, table, noted, room, source, head, width):
    """Note the lines of a head's rows in a table of lines to ask for; return how many there are.

    Args:
        zero: 0 of the elements' type.
        table: address of int64 (address, stride in bytes), as `recurrence` takes it.
        noted: how many lines it has.
        room: how many it may have; lines beyond are not asked for.
        source: Rows, perhaps absent.
        head, width: whose row, and its elements.
    """
    element = VECTOR_BYTES // lanes(zero)
    if source.base != 0:
        for k in range(0, width, lanes(zero)):
            if noted < room:
                write(table, 2 * noted, source.base + (head * source.head + k) * element)
                write(table, 2 * noted + 1, source.token * element)
                noted += 1
    return noted


@njit
def note_nothing(table, noted, room):
    """Fill the rest of a table of lines with its own."""
    for entry in range(noted, room):
        write(table, 2 * entry, table)
        write(table, 2 * entry + 1, 0)


@njit
def store_rows(zero, target, first, head, source, at, stride, tokens, width):
    """Copy rows `stride` apart to rows of one head.

    Rows of whole cache lines go past the caches: they are not read again before the caches have
    turned over, and so need not be fetched to be overwritten. `finish_streams` must follow.
    """
    begin, line = first * target.token + head * target.head, VECTOR_BYTES // lanes(zero)
    aligned = (
        width % lanes(zero) == 0
        and (target.base + begin * line) % VECTOR_BYTES == 0
        and target.token % lanes(zero) == 0
    )
    for t in range(tokens):
        row = begin + t * target.token
        if aligned:
            for k in range(0, width, lanes(zero)):
                stream(target.base, row + k, load(zero, source, at + t * stride + k))
        else:
            copy_row(zero, target.base, row, source, at + t * stride, width)


@njit
def store_elements(zero, target, at, source, count):
    """Copy `count` elements from the start of `source`, whole lines of them past the caches.

    `finish_streams` must follow.
    """
    line = VECTOR_BYTES // lanes(zero)
    begin = min(count, -(target // line + at) % lanes(zero))
    end = begin + (count - begin) // lanes(zero) * lanes(zero)
    for k in range(begin):
        write(target, at + k, read(zero, source, k))
    for k in range(begin, end, lanes(zero)):
        stream(target, at + k, load(zero, source, k))
    for k in range(end, count):
        write(target, at + k, read(zero, source, k))


@njit
def add_row(zero, target, source, begin, tokens, width):
    """Add `width` elements from `begin` on to each row of `target`; its rows have no gaps."""
    whole = width - width % lanes(zero)
    for at in range(0, tokens * width, width):
        for k in range(0, whole, lanes(zero)):
            store(target, at + k, load(zero, target, at + k) + load(zero, source, begin + k))
        for k in range(whole, width):
            write(target, at + k, read(zero, target, at + k) + read(zero, source, begin + k))


@njit
def clear(zero, base, size):
    """Set `size` elements, rounded up to whole vectors, to 0."""
    zeros = splat(zero, zero)
    for k in range(0, size, lanes(zero)):
        store(base, k, zeros)
