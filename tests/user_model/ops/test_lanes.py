"""The vectors of the CPU kernels: functions against 80-bit numbers, tiles against numpy."""

import numpy as np
import pytest
import torch
from numba import njit

from user_model.ops.cpu_memory import rows
from user_model.ops.cpu_rows import note_lines, note_nothing
from user_model.ops.lanes import (
    PADDING,
    VECTOR_BYTES,
    exp,
    lanes,
    load,
    load_wide,
    sigmoid,
    softplus,
    splat,
    store,
    total,
    turn,
    wide_lanes,
)
from user_model.ops.recurrence import (
    asked_lines,
    most_asked_lines,
    read_then_update,
    read_then_update_alone,
    update_then_read,
)

TYPES = [np.float32, np.float64]
LONG = np.longdouble
types = pytest.mark.parametrize("dtype", TYPES)


def _elementwise(function):
    """Compile `function` over an array of whole wide vectors, one wide vector at a time."""

    @njit
    def run(zero, source, target, size):
        for k in range(0, size, wide_lanes(zero)):
            store(target, k, function(load_wide(zero, source, k)))

    def call(values):
        padded = np.zeros(-(-len(values) // 64) * 64, values.dtype)
        padded[: len(values)] = values
        out = np.full_like(padded, 7)
        run(values.dtype.type(0), padded.ctypes.data, out.ctypes.data, len(padded))
        return out[: len(values)]

    return call


EXP, SIGMOID, SOFTPLUS = map(_elementwise, (exp, sigmoid, softplus))
LIMIT = {np.float32: (-87.0, 88.0), np.float64: (-708.0, 708.0)}


def long_softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def grid(dtype, low, high):
    """Numbers of [low, high]: evenly spaced, ever nearer to 0 from both sides, and the ends."""
    tiny = np.logspace(-30, 0, 500)
    near = np.concatenate([-tiny, [0.0, -0.0], tiny])
    even = np.linspace(low, high, 20_011)
    return np.concatenate([even, near[(near >= low) & (near <= high)]]).astype(dtype)


def worst_error(got, exact):
    """The largest error, in units in the last place of the exact value."""
    unit = np.spacing(np.abs(exact).astype(got.dtype)).astype(LONG)
    return float(np.max(np.abs(got.astype(LONG) - exact) / unit))


@types
def test_exp_within_its_range(dtype):
    x = grid(dtype, *LIMIT[dtype])
    assert worst_error(EXP(x), np.exp(x.astype(LONG))) <= 2


@types
def test_exp_beyond_its_range_stays_at_the_ends(dtype):
    low, high = LIMIT[dtype]
    far = np.array([low - 0.5, -1e4, -1e30, -np.inf, high + 0.5, 1e4, 1e30, np.inf], dtype)
    got = EXP(far)
    assert np.array_equal(got[:4], np.full(4, EXP(np.array([low], dtype))[0]))
    assert np.array_equal(got[4:], np.full(4, EXP(np.array([high], dtype))[0]))
    assert np.isfinite(got).all()
    assert (got > 0).all()


@types
def test_sigmoid_where_its_exponential_is(dtype):
    low, high = LIMIT[dtype]
    x = grid(dtype, -high, -low)
    assert worst_error(SIGMOID(x), 1 / (1 + np.exp(-x.astype(LONG)))) <= 3


@types
def test_sigmoid_far_away_is_zero_or_one(dtype):
    far = np.array([-1e4, -1e30, -np.inf, 1e4, 1e30, np.inf], dtype)
    got = SIGMOID(far)
    assert (got[:3] < 2 * np.finfo(dtype).tiny).all()
    assert (got[:3] >= 0).all()
    assert np.array_equal(got[3:], np.ones(3, dtype))


@types
def test_softplus_in_both_tails(dtype):
    low, _ = LIMIT[dtype]
    x = np.concatenate([grid(dtype, low, -low), np.logspace(2, 30, 300).astype(dtype)])
    assert worst_error(SOFTPLUS(x), long_softplus(x.astype(LONG))) <= 3


@types
def test_softplus_far_away(dtype):
    assert SOFTPLUS(np.array([np.inf, 1e30], dtype)).tolist() == [np.inf, dtype(1e30)]
    below = SOFTPLUS(np.array([-1e4, -np.inf], dtype))
    assert (below >= 0).all()
    assert (below < 2 * np.finfo(dtype).tiny).all()


@types
@pytest.mark.parametrize("function", [EXP, SIGMOID, SOFTPLUS], ids=["exp", "sigmoid", "softplus"])
def test_nan_stays_nan_whatever_its_bits(function, dtype):
    integer = np.int32 if dtype == np.float32 else np.int64
    infinity = int(np.array(np.inf, dtype).view(integer))
    last = int(np.iinfo(integer).max)
    payloads = [infinity + 1, infinity + 0x55, (infinity + last) // 2 + 1, last]
    positive = np.array(payloads, integer).view(dtype)
    values = np.concatenate([positive, -positive, np.array([1.0], dtype)])
    assert np.isnan(values[:-1]).all()
    got = function(values)
    assert np.isnan(got).tolist() == [True] * 8 + [False]


@njit
def _total(zero, source):
    return total(load(zero, source, 0))


@types
def test_total_adds_in_pairs(dtype):
    """Halves are added until one element is left; so the sum has these very bits."""
    count = 64 // dtype().itemsize
    values = np.random.default_rng(0).normal(size=count).astype(dtype)
    partial = values
    while len(partial) > 1:
        half = len(partial) // 2
        partial = partial[:half] + partial[half:]
    assert _total(dtype(0), values.ctypes.data) == partial[0]


@njit
def _turn(zero, pairs, turns, target, size, back):
    for k in range(0, size, lanes(zero)):
        store(target, k, turn(load(zero, pairs, k), load(zero, turns, k), back))


@types
def test_turn_multiplies_pairs_as_complex_numbers(dtype):
    rng = np.random.default_rng(1)
    pairs, angles = rng.normal(size=64).astype(dtype), rng.uniform(-4, 4, size=32)
    turns = np.stack([np.cos(angles), np.sin(angles)], 1).ravel().astype(dtype)
    unit = np.finfo(dtype).eps
    for back in (False, True):
        got = np.empty_like(pairs)
        _turn(dtype(0), pairs.ctypes.data, turns.ctypes.data, got.ctypes.data, 64, back)
        factor = turns[0::2] + (-1j if back else 1j) * turns[1::2].astype(np.complex128)
        exact = (pairs[0::2] + 1j * pairs[1::2].astype(np.complex128)) * factor
        assert np.abs(got[0::2] - exact.real).max() < 4 * unit
        assert np.abs(got[1::2] - exact.imag).max() < 4 * unit


@types
def test_turn_there_and_back(dtype):
    pairs = np.random.default_rng(2).normal(size=32).astype(dtype)
    turns = np.tile(np.array([0.6, 0.8], dtype), 16)
    there, again = np.empty_like(pairs), np.empty_like(pairs)
    _turn(dtype(0), pairs.ctypes.data, turns.ctypes.data, there.ctypes.data, 32, False)
    _turn(dtype(0), there.ctypes.data, turns.ctypes.data, again.ctypes.data, 32, True)
    assert not np.allclose(there, pairs, atol=0.1)
    np.testing.assert_allclose(again, pairs, atol=4 * np.finfo(dtype).eps)


@njit
def _sixteen(zero, value, target):
    for k in range(0, 16, lanes(zero)):
        store(target, k, splat(zero, value))


@types
def test_stores_need_no_alignment_and_write_their_own_elements_only(dtype):
    guarded = np.full(18, np.nan, dtype)
    _sixteen(dtype(0), 2.5, guarded[1:].ctypes.data)
    assert guarded[1:17].tolist() == [2.5] * 16
    assert np.isnan(guarded[[0, 17]]).all()


def plain(state, scale, rows, lane_rows, reads, out, *, read_first):
    """The definition, in the type of its operands."""
    state, out = state * scale, out.copy()
    for t in range(len(rows)):
        after = state + np.outer(rows[t], lane_rows[t])
        out[t] += reads[t] @ (state if read_first else after)
        state = after
    return state, out


def guarded(values):
    """The values as every second row of a larger array full of NaN, and that array."""
    around = np.full((2 * len(values) + 1, values.shape[1]), np.nan, values.dtype)
    around[1::2] = values
    return around[1::2], around


@types
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("run", "read_first", "asking"),
    [
        (update_then_read, False, True),
        (read_then_update, True, True),
        (read_then_update_alone, True, False),
    ],
    ids=["update first", "read first", "read first, asking for nothing"],
)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 16), (16, 32)])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_tile_is_the_recurrence(steps, height, width, run, read_first, asking, backward, dtype):
    assert height % PADDING == width % PADDING == 0
    rng = np.random.default_rng(3)
    state = rng.normal(size=(height, width)).astype(dtype)
    tables = [rng.normal(size=(steps, n)).astype(dtype) for n in (height, width, height, width)]
    exact = plain(
        *(v.astype(np.float64) for v in (state, np.array(0.5), *tables)), read_first=read_first
    )
    laid = [guarded(table[::-1] if backward else table) for table in tables]
    places = []
    for view, _ in laid:
        stride = 2 * view.shape[1]
        first = (steps - 1) * stride if backward else 0
        places += [view.ctypes.data, first, -stride if backward else stride]
    lines = np.zeros((most_asked_lines(height, width), 2), np.int64)
    note_nothing(lines.ctypes.data, 0, asked_lines(height, width, VECTOR_BYTES // state.itemsize))
    table = lines.ctypes.data if asking else 0
    run(steps, dtype(0.5), state.ctypes.data, height, width, *places, table, 3)
    out = laid[3][0][::-1] if backward else laid[3][0]
    tolerance = 16 * height * np.finfo(dtype).eps
    np.testing.assert_allclose(state, exact[0], atol=tolerance)
    np.testing.assert_allclose(out, exact[1], atol=tolerance)
    for _, around in laid:
        assert np.isnan(around[0::2]).all()


@types
def test_lines_to_ask_for_are_those_of_a_heads_rows(dtype):
    tensor = torch.zeros(5, 3, 32, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)[:, 1:]
    element, vector = tensor.element_size(), VECTOR_BYTES // tensor.element_size()
    lines = np.zeros((8, 2), np.int64)
    noted = note_lines(dtype(0), lines.ctypes.data, 1, 8, rows(tensor), 1, 32)
    first = tensor.data_ptr() + 32 * element
    expected = [[first + k * element, 3 * 32 * element] for k in range(0, 32, vector)]
    assert lines[1:noted].tolist() == expected
    assert lines[:1].tolist() + lines[noted:].tolist() == [[0, 0]] * (8 - len(expected))
    assert note_lines(dtype(0), lines.ctypes.data, noted, noted, rows(tensor), 0, 32) == noted
    assert note_lines(dtype(0), lines.ctypes.data, noted, 8, rows(None), 0, 32) == noted
    note_nothing(lines.ctypes.data, noted, 8)
    assert lines[1:noted].tolist() == expected
    assert lines[noted:].tolist() == [[lines.ctypes.data, 0]] * (8 - noted)


@types
@pytest.mark.parametrize("height", [16, 32, 64])
@pytest.mark.parametrize("width", [16, 32, 48, 64])
def test_there_is_room_for_all_lines_that_are_asked_for(height, width, dtype):
    one = VECTOR_BYTES // np.dtype(dtype).itemsize
    asked = asked_lines(height, width, one), asked_lines(width, height, one)
    assert 0 < min(asked) <= max(asked) <= most_asked_lines(height, width)
